"""A package that behaves like `vllm` in a program, well or badly, as the model's name says: for the offline mode."""

from __future__ import annotations

import argparse
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class EngineArgs:
    @staticmethod
    def add_cli_args(parser: argparse.ArgumentParser) -> None:
        for flag in ("--model", "--served-model-name", "--max-model-len", "--max-num-batched-tokens", "--dtype"):
            parser.add_argument(flag)
        parser.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction)


class SamplingParams:
    def __init__(self, n: int, temperature: float, max_tokens: int, seed: int, **others: Any) -> None:
        self.n, self.seed, self.others = n, seed, others


class LLM:
    def __init__(self, model: str, max_model_len: str | None = None, **_: Any) -> None:
        self.name = Path(model).name
        self.longest = int(max_model_len or 1000)
        self.calls = 0
        print("the engine talks to its standard output")
        if self.name == "oom":
            raise ValueError("No available memory for the cache blocks")
        if self.name == "hangs":
            import time

            time.sleep(600)

    def chat(self, conversations: Sequence[Any], parameters: Sequence[SamplingParams], **_: Any) -> list[Any]:
        if self.name == "no-template":
            raise ValueError("As of transformers v4.44, default chat template is no longer allowed")
        self.calls += 1
        if self.name == "dies" and self.calls == 3 and not Path(os.environ["FAKE_VLLM_DIED"]).exists():
            Path(os.environ["FAKE_VLLM_DIED"]).touch()
            os._exit(9)
        made = []
        for messages, asked in zip(conversations, parameters):
            words = " ".join(str(m["content"]) for m in messages).split()
            if len(words) > self.longest:
                raise ValueError(f"the prompt has {len(words)} tokens, more than {self.longest}")
            form = asked.others.get("structured_outputs")
            texts = [form.regex if form else f"go {(asked.seed + i) % 2}" for i in range(asked.n)]
            outputs = [SimpleNamespace(text=t, token_ids=[1, 2], cumulative_logprob=-3.0) for t in texts]
            made.append(SimpleNamespace(prompt_token_ids=words, num_cached_tokens=len(words) // 2, outputs=outputs))
        return made


def module(name: str, **contents: Any) -> None:
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(contents)


module("vllm.platforms", current_platform=SimpleNamespace(is_cpu=lambda: True))
module("vllm.utils")
module("vllm.utils.argparse_utils", FlexibleArgumentParser=argparse.ArgumentParser)
module("vllm.sampling_params", StructuredOutputsParams=SimpleNamespace)
