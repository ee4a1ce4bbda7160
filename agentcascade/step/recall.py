"""Memory of a step: what matters of earlier goes before the model, what happens now goes into memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentcascade.errors import InvalidRequest
from agentcascade.prompts.additions import Composed, Rendered
from agentcascade.protocols import ChatModel
from agentcascade.step import history
from agentcascade.step.context import StepContext
from agentcascade.step.model_calls import ModelCalls
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.types import Completion, Message, Recall, Situation, Turn, now

if TYPE_CHECKING:
    from agentcascade.memory.memory import Memory

QUESTION_CHARACTERS = 2000
REMEMBER_SECONDS = 3.0
"""That an answer waits for a database that is locked."""


class StepMemory:
    """Gives the steps of a cascade memory. Its failures are recorded and never fail a step."""

    def __init__(self, context: StepContext, memory: Memory) -> None:
        self._context = context
        self._memory = memory
        self._settings = context.config.memory

    async def inject(self, situation: Situation, request: Request, record: StepRecord) -> Request:
        """The request with a memory block at the end of its last user message: least of a cached prefix is lost."""
        try:
            recall = await self._recall(situation, request, record)
        except Exception as error:
            record.add_failure("memory", error)
            return request
        if not recall.text:
            return request
        values = {"memory": self._quoted(recall.text, situation)}
        block = self._context.prompts.render("memory", **values)
        messages = _with_block(request.messages, block, Rendered("memory", values))
        return request.with_memory(messages, self._context.count(block))

    def _quoted(self, text: str, situation: Situation) -> str:
        quoting = self._context.prompts.quoting
        return quoting.fence("quoted", quoting.text(text), f"{situation.goal}\0{situation.episode}")

    async def _recall(self, situation: Situation, request: Request, record: StepRecord) -> Recall:
        frame = self._context.prompts.render("memory", memory=self._quoted("", situation))
        room = self._context.config.prompt.token_budget - self._context.count(frame)
        question = f"{situation.goal}\n{situation.observation}" if situation.history else situation.goal
        return await self._memory.recall(
            question[-QUESTION_CHARACTERS:],
            self._history(situation),
            namespace=situation.namespace,
            token_budget=max(0, min(self._settings.token_budget, room)),
            episode=situation.episode,
            decision=record.id,
            caller=_OnTheBill(self._context, request, record),
            visible="\n".join(str(m.get("content") or "") for m in history.shown(self._context, request.messages)),
        )

    async def store(self, situation: Situation, reasoning: str, action: str, record: StepRecord) -> None:
        """Append the step to the history; what it observed is already there if it is the answer to an earlier one."""
        if not self._settings.remember:
            return
        name, at = f"{situation.episode}:{situation.step}", now()
        said = [("observation", situation.observation), ("agent", "\n".join(t for t in (reasoning, action) if t))]
        turns = [
            Turn(id=f"{name}:{who}", text=text, speaker=who, session=situation.episode, at=at)
            for who, text in said
            if text
        ]
        try:
            async with asyncio.timeout(REMEMBER_SECONDS):  # it is written behind the answer, once the database is free
                await self._memory.append(self._history(situation), turns, namespace=situation.namespace)
        except InvalidRequest:
            pass  # the step was asked for again, and is in the history as it was the first time
        except Exception as error:
            record.add_failure("memory", error)

    def _history(self, situation: Situation) -> str:
        return self._settings.history or situation.episode


class _OnTheBill:
    """Makes the memory's model calls as calls of the step: within its budgets, watched, in its decision."""

    def __init__(self, context: StepContext, request: Request, record: StepRecord) -> None:
        self._calls = ModelCalls(context, request, record)

    async def __call__(
        self, model: ChatModel, messages: Sequence[Message], *, max_tokens: int, timeout: float
    ) -> Completion:
        options: dict[str, Any] = {"temperature": 0.0, "max_tokens": max_tokens, "timeout": timeout}
        return await self._calls.ask(model, messages, "memory", options)


def _with_block(messages: Sequence[Message], block: str, addition: Rendered) -> list[Message]:
    last = max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=None)
    if last is None:
        return [*messages, Composed({"role": "user", "content": ""}, block, addition)]
    return [*messages[:last], Composed(messages[last], block, addition), *messages[last + 1 :]]
