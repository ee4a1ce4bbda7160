"""A benchmark suite of a second's size: count to three. Its models are scripts; worker processes import it by name."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from agentcascade.messages import text_of
from agentcascade.models.pricing import Price
from agentcascade.models.scripted import ScriptedModel
from agentcascade.prompts.demonstrations import demonstrations_in
from agentcascade.types import Completion, Message

MAX_STEPS = 6


class World:
    """Count to three. A task says ``count <name>``, ``break``, ``die`` or ``die once <marker>``."""

    def __init__(self) -> None:
        self._at, self._steps, self._task = 0, 0, ""

    def reset(self, task: str) -> str:
        self._at, self._steps, self._task = 0, 0, task
        return f"You are at 0. Your task is to: count to three ({task.split()[-1]})."

    def step(self, action: str) -> tuple[str, bool]:
        self._steps += 1
        if self._task == "break" and self._steps == 2:
            raise RuntimeError("the world fell apart")
        if self._task.startswith("die") and self._steps == 2:
            self._die()
        if action == f"say {self._at + 1}":
            self._at += 1
            return f"You are at {self._at}.", self._at == 3
        return "Nothing happens.", self._steps >= MAX_STEPS

    def _die(self) -> None:
        marker = self._task.partition(" once ")[2]
        if marker and Path(marker).exists():
            return
        if marker:
            Path(marker).touch()
        os._exit(3)

    @property
    def success(self) -> bool:
        return self._at == 3

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Result:
    success: bool


class Suite:
    name = "tiny"
    stop = ()

    def environment(self, *, expert: bool) -> World:
        return World()

    def goal(self, messages: list[Message]) -> str:
        return text_of(messages[0]).partition("Your task is to: ")[2]

    async def play(self, environment: Any, path: str, complete: Callable[[list[Message]], Awaitable[str]]) -> Result:
        messages: list[Message] = [{"role": "user", "content": environment.reset(path)}]
        done = False
        while not done and len(messages) < 2 * MAX_STEPS:
            answer = await complete(messages)
            observation, done = environment.step(answer.rpartition("Action: ")[2])
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": observation}]
        return Result(environment.success)


def right(messages: Sequence[Message]) -> str:
    """What to say next, off the conversation."""
    seen = [text_of(m).partition("You are at ")[2][:1] for m in messages if m["role"] == "user"]
    return f"say {int(next(s for s in reversed(seen) if s)) + 1}"


class Teacher(ScriptedModel):
    """Counts."""

    def __init__(self) -> None:
        price = Price(input=Decimal(3), output=Decimal(15))
        super().__init__(lambda messages, sample: f"Thought: I count.\nAction: {right(messages)}", price=price)


class DistantTeacher(Teacher):
    """Counts, a quarter of a second away, as models behind an API are."""

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        await asyncio.sleep(0.25)
        return await super().complete(messages, **options)


class Student(ScriptedModel):
    """Counts more surely with demonstrations in the prompt than without; its luck hangs on the request's seed alone."""

    def __init__(self) -> None:
        super().__init__(self._guess, price=Price(input=Decimal("0.4"), output=Decimal("1.6")))
        self._seed: int | None = None

    async def complete(
        self, messages: Sequence[Message], *, n: int = 1, seed: int | None = None, **options: Any
    ) -> Completion:
        self._seed = seed
        return await super().complete(messages, n=n, seed=seed, **options)

    def _guess(self, messages: Sequence[Message], sample: int) -> str:
        sure = 0.9 if demonstrations_in(messages[0]) else 0.4
        luck = random.Random(f"{self._seed} {sample}").random()
        return f"Thought: I guess.\nAction: {right(messages) if luck < sure else 'say 9'}"
