"""`recorded/bfcl/NAME`: what a real model answered to BFCL's tasks, played again with its tokens, verdicts and price.

A model of BFCL's own recordings (`BFCL_DATA`) has one answer to a task. Our own Qwen2.5-Coder ships with the package
and has ten samples: `recorded/bfcl/qwen2.5-coder-1.5b` draws from them, `recorded/bfcl/qwen2.5-coder-1.5b*7` answers
what most of the last seven say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from agentcascade.envs.bfcl import keys, prices, recorded, tasks
from agentcascade.envs.bfcl.recorded import Answer
from agentcascade.envs.recorded import models
from agentcascade.errors import EnvironmentFailed

PREFIX = "recorded/bfcl/"


class Given(NamedTuple):
    """A model's answers to one task."""

    answers: tuple[Answer, ...]
    input_tokens: int | None


class BfclAnswers:
    """Implements `envs.recorded.models.Library`."""

    prefix, suite = PREFIX, "bfcl"

    def models(self) -> Sequence[str]:
        return [*recorded.models(), *recorded.sampled()]

    def sampled(self) -> Mapping[str, int]:
        return _sampled()

    def answers(self, model: str, task: str) -> Given:
        if model not in recorded.sampled():
            one = recorded.answer(model, task)
            return Given((one,), one.input_tokens)
        found = recorded.samples(model, lenient=True).get(tasks.canonical(task))
        if found is None:
            raise EnvironmentFailed(f"there is no recorded sample of '{model}' of '{task[:80]}': see --split shipped")
        return Given(found.answers, found.prompt_tokens)

    def vote(self, answer: Answer) -> str | None:
        return keys.key(answer, tasks.task(answer.task).tools)

    def price(self, model: str) -> Mapping[str, str] | None:
        known = prices.price(model)
        return None if known is None else {"input": str(known.input), "output": str(known.output)}


@cache
def _sampled() -> dict[str, int]:
    return {
        name: min(len(samples.answers) for samples in recorded.samples(name, lenient=True).values())
        for name in recorded.sampled()
    }


LIBRARY = BfclAnswers()


class RecordedModel(models.RecordedModel):
    """A recorded model of BFCL as a `ChatModel`."""

    library = LIBRARY
