"""Cascades of scripted models, a bank that is a list, and a recorder that keeps what it is told."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import NamedTuple

from agentcascade.actions.base import RegexActions
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.routers.step.consistency import Unanimity
from agentcascade.step.context import StepContext
from agentcascade.types import Completion, Demonstration, Step, Usage

MESSAGES = [{"role": "system", "content": "rules"}, {"role": "user", "content": "put a mug on the desk"}]


class Model:
    """Answers from a list of lists of texts, one list a call; an exception in it is raised."""

    supports_n = True

    def __init__(self, name, *answers, price="1", delay=0.0):
        self.name, self.answers, self.requests, self.price, self.delay = name, list(answers), [], price, delay

    def dollars(self, usage):
        return None if self.price is None else Decimal(self.price) * (usage.prompt + usage.completion)

    async def complete(self, messages, *, n=1, **options):
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
    demonstrations: list
    embedding_seconds: float = 0.0


class FakeBank:
    def __init__(self, *demonstrations, error=None):
        self.demonstrations, self.error, self.added = list(demonstrations), error, []

    async def retrieve(self, situation, k):
        if self.error:
            raise self.error
        return Found(self.demonstrations[:k])

    async def add(self, trajectory):
        if self.error:
            raise self.error
        self.added.append(trajectory)
        return True


class Recorder:
    def __init__(self):
        self.decisions, self.ends, self.shadows, self.drafts, self.recalls = [], [], [], [], []

    def record(self, decision):
        self.decisions.append(decision)

    def record_shadow(self, shadow):
        self.shadows.append(shadow)

    def record_draft(self, draft):
        self.drafts.append(draft)

    def record_end(self, end):
        self.ends.append(end)

    def record_recall(self, recall):
        self.recalls.append(recall)

    def flush(self): ...

    def close(self): ...


DEMONSTRATION = Demonstration(
    trajectory="tr_1", goal="g", steps=(Step(observation="o", action="act"),), start=0, match=0, length=1, score=0.9
)


def act(text):
    return f"Thought: so.\nAction: {text}"


def make(student, teacher=None, bank=None, router=None, validators=(), actions=None, **config):
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
