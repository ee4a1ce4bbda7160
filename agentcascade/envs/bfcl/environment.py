"""BFCL behind the `Environment` protocol: a question with functions, one answer, the official verdict on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from agentcascade.envs.bfcl import calls, tasks
from agentcascade.envs.bfcl.check import check
from agentcascade.envs.bfcl.recorded import Answer
from agentcascade.envs.react import EpisodeResult
from agentcascade.errors import EnvironmentFailed, InvalidAction
from agentcascade.messages import text_of
from agentcascade.protocols import Environment
from agentcascade.types import Message, Tool


class CompleteMessage(Protocol):
    """Gets the whole conversation and the tools, and returns the assistant's message."""

    async def message(self, messages: list[Message], *, tools: Sequence[Tool]) -> Message: ...


class BfclEnvironment:
    """One task at a time, named by its id. Not thread-safe. Raises `EnvironmentFailed` for a task that is none."""

    def __init__(self) -> None:
        self.task = ""
        """Id of the task that is played"""
        self.plays = 0
        """How often a task was begun: a recorded model gives each its own samples"""
        self.success = False
        self._recorded: list[Answer] = []

    def reset(self, task: str) -> str:
        found = tasks.task(task)
        self.task, self.success, self._recorded = found.id, False, []
        self.plays += 1
        return text_of(found.messages[-1])

    def add_recorded(self, answers: Sequence[Answer]) -> None:
        """Answers that recorded models gave in this play, whose verdicts are known."""
        self._recorded += answers

    def answer(self, message: Message) -> bool:
        """The verdict on an answer: the recorded one where a recorded model gave it, else that of our check."""
        if not self.task:
            raise EnvironmentFailed("no task is running: call reset first")
        wanted = _content(message)
        given = next((a for a in reversed(self._recorded) if _content(a.message) == wanted), None)
        self.success = verdict(given) if given is not None else _checked(self.task, message)
        return self.success

    def step(self, action: str) -> tuple[str, bool]:
        """Answer with a message in JSON; (nothing to observe, done)."""
        self.answer(json.loads(action))
        return "", True

    def close(self) -> None: ...


def verdict(answer: Answer) -> bool:
    """Whether a recorded answer is right: officially, else by our check where nobody gave a verdict."""
    if answer.right is not None:
        return answer.right
    task = tasks.task(answer.task)
    return check(answer.calls, tasks.possible_answers()[task.id], task.language, dots=answer.dots).right


def _checked(id: str, message: Message) -> bool:
    """Our check of tool calls; what a model calls in its text alone is no call."""
    task = tasks.task(id)
    try:
        given = [_named(call) for call in message.get("tool_calls") or []]
        found = calls.read(given, "tools", task.language) if given else None
    except InvalidAction:
        found = None
    return check(found, tasks.possible_answers()[task.id], task.language).right


def _named(call: Any) -> dict[str, Any]:
    try:
        return {str(call["function"]["name"]): call["function"]["arguments"] or "{}"}
    except (KeyError, TypeError) as error:
        raise InvalidAction(f"no tool call: {str(call)[:80]}") from error


def _content(message: Message) -> tuple[str, list[tuple[str, str]]]:
    """What a message says, whatever ids its calls were given on the way."""
    given = message.get("tool_calls") or []
    return text_of(message), [(c["function"]["name"], c["function"]["arguments"]) for c in given if "function" in c]


async def play(environment: Environment, task: str, complete: CompleteMessage) -> EpisodeResult:
    """Answer one question. Nothing is written around it: the official harness writes nothing for models with tools."""
    assert isinstance(environment, BfclEnvironment)
    environment.reset(task)
    found = tasks.task(task)
    answer = await complete.message([dict(message) for message in found.messages], tools=found.tools)
    return EpisodeResult(environment.answer(answer), 1)
