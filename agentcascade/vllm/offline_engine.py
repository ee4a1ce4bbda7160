"""Script for the Python of vLLM's environment, which has no agentcascade: prompts in, samples out, as JSON lines.

Arguments are those of `vllm serve`. A line ``{"sampling": {...}, "asked": [{"id", "messages", "seed"}]}`` is answered
by ``{"answers": [{"id", "samples", "prompt", "cached"} or {"id", "error"}]}``. The first answer is ``{"ready": true}``.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

SERVER = ("--host", "--port", "--tool-call-parser", "--chat-template")
SERVER_FLAGS = ("--enable-prompt-tokens-details", "--enable-auto-tool-choice")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the engine prints goes to the log
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from vllm import LLM, EngineArgs
    from vllm.platforms import current_platform
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    EngineArgs.add_cli_args(parser)
    for name in SERVER:
        parser.add_argument(name)
    for name in SERVER_FLAGS:
        parser.add_argument(name, action="store_true")
    options = vars(parser.parse_args())
    names = [name.removeprefix("--").replace("-", "_") for name in (*SERVER, *SERVER_FLAGS)]
    server = {name: options.pop(name) for name in names}
    if current_platform.is_cpu() and options.get("max_num_batched_tokens") is None:
        # vLLM 0.32 dies on the CPU of a seeded request whose prompt it reads in pieces
        options["max_num_batched_tokens"] = options.get("max_model_len")
    template = server["chat_template"]
    if template:
        with open(template, encoding="utf-8") as file:
            template = file.read()
    llm = LLM(**options)
    hello = {"id": "", "messages": [{"role": "user", "content": "Hello"}], "seed": 0}
    first = sample_chats(llm, [hello], {"n": 1, "max_tokens": 1, "temperature": 0.0}, template)[0]
    if "error" in first:
        sys.exit(f"ERROR {first['error']}")
    write_line(answers, {"ready": True})
    for line in sys.stdin:
        work = json.loads(line)
        write_line(answers, {"answers": sample_chats(llm, work["asked"], work["sampling"], template)})


def write_line(answers: Any, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def sample_chats(
    llm: Any, prompts: list[dict[str, Any]], sampling: dict[str, Any], template: str | None
) -> list[dict[str, Any]]:
    """Sample each prompt; one that cannot be answered (too long, no text) gets an error of its own."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    common = dict(sampling)
    structured = common.pop("structured", None)
    if structured:
        common["structured_outputs"] = StructuredOutputsParams(**structured)
    try:
        parameters = [SamplingParams(**common, seed=prompt["seed"], logprobs=0) for prompt in prompts]
        outputs = llm.chat(
            [prompt["messages"] for prompt in prompts], parameters, use_tqdm=False, chat_template=template
        )
    except Exception as error:
        if len(prompts) == 1:
            return [{"id": prompts[0]["id"], "error": f"{type(error).__name__}: {str(error)[:500]}"}]
        return [answer for prompt in prompts for answer in sample_chats(llm, [prompt], sampling, template)]
    return [sampled_answer(prompt["id"], output) for prompt, output in zip(prompts, outputs)]


def sampled_answer(id: str, output: Any) -> dict[str, Any]:
    prompt = len(output.prompt_token_ids or ())
    return {
        "id": id,
        "prompt": prompt,
        "cached": min(output.num_cached_tokens or 0, prompt),
        "samples": [
            {
                "text": sample.text,
                "tokens": len(sample.token_ids),
                "logprob": sample.cumulative_logprob / max(1, len(sample.token_ids))
                if sample.cumulative_logprob is not None
                else None,
            }
            for sample in output.outputs
        ],
    }


if __name__ == "__main__":
    main()
