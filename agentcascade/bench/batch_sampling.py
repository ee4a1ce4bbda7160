"""Sample a provider's model at the steps of a log by its batch interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentcascade.batches.run import Batches
from agentcascade.batches.types import BatchAnswer, BatchRequest
from agentcascade.bench.sampling import StepPrompt, seeded_prompt, step_key
from agentcascade.messages import text_of
from agentcascade.protocols import ChatModel
from agentcascade.types import Account
from agentcascade.vllm.offline import SamplingSettings


async def sample_by_batch(
    items: Sequence[StepPrompt],
    model: ChatModel,
    batches: Batches,
    sampling: SamplingSettings,
    *,
    seed: int,
    namespace: str,
    accounts: Sequence[Account],
) -> tuple[dict[str, dict[str, Any]], list[BatchAnswer]]:
    """Samples of `model` at each item, as `sample_steps` gives them, and the answers to be taken when they are kept.

    Raises what `Batches.complete_all` raises.
    """
    fixed = {"n": sampling.n, "temperature": sampling.temperature, "max_tokens": sampling.max_tokens}
    requests = [BatchRequest(item.messages, fixed | {"seed": seeded_prompt(item, seed)["seed"]}) for item in items]
    batched = await batches.complete_all(
        model,
        requests,
        job=f"students sample {model.name}",
        role="student",
        purpose="sample",
        namespace=namespace,
        accounts=accounts,
    )
    answers = {step_key(item.step): _answer(item, answer, sampling.n) for item, answer in zip(items, batched)}
    return answers, batched


def _answer(item: StepPrompt, answer: BatchAnswer, n: int) -> dict[str, Any]:
    name, completion = step_key(item.step), answer.completion
    if completion is None:
        return {"id": name, "error": answer.error or "no answer"}
    tokens = completion.tokens or (None,) * len(completion.messages)
    samples = [
        {"text": text_of(message), "logprob": None, "tokens": count}
        for message, count in zip(completion.messages[:n], tokens)
    ]
    usage = completion.usage
    prompt, cached = usage.prompt // completion.calls, usage.cached_input // completion.calls
    return {"id": name, "samples": samples, "prompt": prompt, "cached": cached}
