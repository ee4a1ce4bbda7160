"""Cascades of scripted models, a bank that is a list, and a recorder that keeps what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

from agentcascade.actions.base import ActionFormat, RegexActions, Validator
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.protocols import ChatModel, Router
from agentcascade.routers.step.consistency import Unanimity
from agentcascade.step.context import StepContext
from agentcascade.types import (
    Completion,
    Decision,
    Demonstration,
    Draft,
    EpisodeEnd,
    Message,
    Recall,
    Shadow,
    Situation,
    Step,
    Trajectory,
    Usage,
)

T = TypeVar("T")
Answer = str | Message | BaseException | Sequence[str | Message]
"""Of one call: for each of its samples the same, or one each; or it fails."""
MESSAGES: list[Message] = [{"role": "system", "content": "rules"}, {"role": "user", "content": "put a mug on the desk"}]


class Model:
    """Answers from a list of lists of texts, one list a call; an exception in it is raised."""

    supports_n = True

    def __init__(self, name: str, *answers: Answer, price: str | None = "1", delay: float = 0.0) -> None:
        self.name, self.answers, self.price, self.delay = name, list(answers), price, delay
        self.requests: list[dict[str, Any]] = []

    def dollars(self, usage: Usage) -> Decimal | None:
        return None if self.price is None else Decimal(self.price) * (usage.prompt + usage.completion)

    async def complete(self, messages: Sequence[Message], *, n: int = 1, **options: Any) -> Completion:
        self.requests.append({"messages": list(messages), "n": n, **options})
        await asyncio.sleep(self.delay)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        texts = (answer if isinstance(answer, list) else [answer] * n)[:n]
        usage = Usage(input=100, output=10 * len(texts))
        return Completion(
            model=self.name,
            messages=tuple(t if isinstance(t, dict) else {"role": "assistant", "content": t} for t in texts),
            usage=usage,
            dollars=self.dollars(usage),
        )


class Found(NamedTuple):
    demonstrations: list[Demonstration]
    embedding_seconds: float = 0.0


class FakeBank:
    def __init__(self, *demonstrations: Demonstration, error: Exception | None = None) -> None:
        self.demonstrations, self.error = list(demonstrations), error
        self.added: list[Trajectory] = []

    async def retrieve(self, situation: Situation, k: int) -> Found:
        if self.error:
            raise self.error
        return Found(self.demonstrations[:k])

    async def add(self, trajectory: Trajectory) -> bool:
        if self.error:
            raise self.error
        self.added.append(trajectory)
        return True


class Recorder:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.ends: list[EpisodeEnd] = []
        self.shadows: list[Shadow] = []
        self.drafts: list[Draft] = []
        self.recalls: list[Recall] = []

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def record_shadow(self, shadow: Shadow) -> None:
        self.shadows.append(shadow)

    def record_draft(self, draft: Draft) -> None:
        self.drafts.append(draft)

    def record_end(self, end: EpisodeEnd) -> None:
        self.ends.append(end)

    def record_recall(self, recall: Recall) -> None:
        self.recalls.append(recall)

    def flush(self, seconds: float | None = None) -> bool:
        return True

    def close(self, seconds: float | None = None) -> None: ...


def recorded(cascade: Cascade) -> Recorder:
    """What the recorder of a cascade made here was told."""
    assert isinstance(cascade.context.recorder, Recorder)
    return cascade.context.recorder


DEMONSTRATION = Demonstration(
    trajectory="tr_1", goal="g", steps=(Step(observation="o", action="act"),), start=0, match=0, length=1, score=0.9
)


def known(value: T | None) -> T:
    """What must not be None, as a price or a record that is there."""
    assert value is not None
    return value


def act(text: str) -> str:
    return f"Thought: so.\nAction: {text}"


def make(
    student: ChatModel | None,
    teacher: ChatModel | None = None,
    bank: Any = None,
    router: Router | None = None,
    validators: Sequence[Validator] = (),
    actions: ActionFormat | None = None,
    **config: Any,
) -> Cascade:
    return Cascade(
        StepContext(
            config=CascadeConfig(**config),
            router=router or Unanimity(3),
            count=lambda text: len(text.split()),
            teacher=teacher,
            student=student,
            bank=bank,
            actions=actions or RegexActions(),
            validators=tuple(validators),
            recorder=Recorder(),
        )
    )
