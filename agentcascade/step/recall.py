"""Memory in an agent's step: what matters of earlier goes before the model, what happens now goes into memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentcascade.errors import InvalidRequest
from agentcascade.memory.memory import Memory
from agentcascade.messages import with_text
from agentcascade.protocols import ChatModel
from agentcascade.step.model_calls import Caller, Request
from agentcascade.step.record import StepRecord
from agentcascade.types import Completion, Message, Recall, Situation, Turn, now

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade

HEADER = "# Memory\nFrom earlier, by date where one is known. It may be incomplete."
QUESTION_CHARACTERS = 2000
REMEMBER_SECONDS = 3.0
"""That an answer waits for a database that is locked."""


class Remembering:
    """Gives the steps of a cascade memory. Its failures are recorded and never fail a step."""

    def __init__(self, cascade: Cascade, memory: Memory) -> None:
        self.memory, self._cascade, self._settings = memory, cascade, cascade.config.memory

    def of(self, cascade: Cascade) -> Remembering:
        """That of a twin, which asks the same memory."""
        return Remembering(cascade, self.memory)

    async def before(self, situation: Situation, request: Request, record: StepRecord) -> None:
        """Put a memory block at the end of the last user message, where it spoils least of a prompt's cached prefix."""
        try:
            recall = await self._recall(situation, request, record)
        except Exception as error:
            record.failed("memory", error)
            return
        if not recall.text:
            return
        block = f"{HEADER}\n{self._quoted(recall.text, situation)}"
        request.remember(_with_block(request.messages, block), self._cascade.count(block))

    def _quoted(self, text: str, situation: Situation) -> str:
        quoting = self._cascade.quoting
        return quoting.fence("quoted", quoting.text(text), f"{situation.goal}\0{situation.episode}")

    async def _recall(self, situation: Situation, request: Request, record: StepRecord) -> Recall:
        frame = f"{HEADER}\n{self._quoted('', situation)}"
        room = self._cascade.config.prompt.token_budget - self._cascade.count(frame)
        question = f"{situation.goal}\n{situation.observation}" if situation.history else situation.goal
        return await self.memory.recall(
            question[-QUESTION_CHARACTERS:],
            self._history(situation),
            namespace=situation.namespace,
            token_budget=max(0, min(self._settings.token_budget, room)),
            episode=situation.episode,
            decision=record.id,
            caller=_OnTheBill(self._cascade, request, record),
            visible="\n".join(str(m.get("content") or "") for m in request.messages),
        )

    async def after(self, situation: Situation, message: Message, record: StepRecord) -> None:
        """Append the step to the history; what it observed is already there if it is the answer to an earlier one."""
        from agentcascade import conversation

        if not self._settings.remember:
            return
        reasoning, action = await conversation.split_off_loop(message, self._cascade.actions)
        name, at = f"{situation.episode}:{situation.step}", now()
        said = [("observation", situation.observation), ("agent", "\n".join(t for t in (reasoning, action) if t))]
        turns = [
            Turn(id=f"{name}:{who}", text=text, speaker=who, session=situation.episode, at=at)
            for who, text in said
            if text
        ]
        try:
            async with asyncio.timeout(REMEMBER_SECONDS):  # it is written behind the answer, once the database is free
                await self.memory.append(self._history(situation), turns, namespace=situation.namespace)
        except InvalidRequest:
            pass  # the step was asked for again, and is in the history as it was the first time
        except Exception as error:
            record.failed("memory", error)

    def _history(self, situation: Situation) -> str:
        return self._settings.history or situation.episode


class _OnTheBill:
    """Makes the memory's model calls as calls of the step: within its budgets, watched, in its decision."""

    def __init__(self, cascade: Cascade, request: Request, record: StepRecord) -> None:
        self._caller = Caller(cascade, request, record)

    async def __call__(
        self, model: ChatModel, messages: Sequence[Message], *, max_tokens: int, timeout: float
    ) -> Completion:
        options: dict[str, Any] = {"temperature": 0.0, "max_tokens": max_tokens, "timeout": timeout}
        return await self._caller.other(model, messages, "memory", options)


def _with_block(messages: Sequence[Message], block: str) -> list[Message]:
    last = max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=None)
    if last is None:
        return [*messages, {"role": "user", "content": block}]
    return [*messages[:last], with_text(messages[last], block), *messages[last + 1 :]]
