"""Stream of one step. Nothing of a sample is shown before the verdict; a deferral streams live from the teacher.

The contract: ordinary chunks, never retracted; usage and decision in the last one; who stops reading cancels everything
upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

from agentcascade.episodes.response_json import Chunks
from agentcascade.models.deltas import split_into_deltas
from agentcascade.types import Completion, Decision, Delta, Message, new_id


class Answer(NamedTuple):
    """Answer of one step: the model's completion, the messages that the agent gets, the decision."""

    completion: Completion
    messages: list[Message]
    decision: Decision


Work = Callable[[Callable[[Delta], None]], Awaitable[Answer]]
"""Makes the whole answer; takes the function that gets live deltas."""


class StepStream:
    """Chunks of one step, as plain data in OpenAI's shape. Close it, or read it to its end.

    An error is raised where the chunk would be that it prevents. An event loop must be running.

    Args:
        work: Makes the answer.
        teacher: Name of the model that a live answer comes from.
        usage_apart: Put usage and decision into a chunk without choices, as OpenAI's ``include_usage`` does.
        render_decision: Makes the field ``agentcascade`` of the last chunk.

    Attributes:
        answer: The whole answer, once all chunks were read.
    """

    def __init__(
        self,
        work: Work,
        *,
        teacher: str,
        usage_apart: bool = False,
        render_decision: Callable[[Decision], Any] = lambda decision: decision,
    ) -> None:
        self._queue: asyncio.Queue[Delta | None] = asyncio.Queue()
        self._begun = asyncio.Event()
        self._task = asyncio.ensure_future(work(self._put))
        self._task.add_done_callback(self._ended)
        self._teacher, self._usage_apart, self._render_decision = teacher, usage_apart, render_decision
        self._chunks = self._run()
        self._first: dict[str, Any] | None = None
        self.answer: Answer | None = None

    def _put(self, delta: Delta | None) -> None:
        self._queue.put_nowait(delta)
        self._begun.set()

    def _ended(self, task: asyncio.Future[Answer]) -> None:
        if not task.cancelled():
            task.exception()  # retrieved, since whoever reads may have left before
        self._put(None)

    async def _run(self) -> AsyncIterator[dict[str, Any]]:
        id = new_id("chatcmpl")
        chunks: Chunks | None = None
        try:
            while (delta := await self._queue.get()) is not None:
                chunks = chunks or Chunks(self._teacher, id)
                yield chunks.part(delta)
            self.answer = answer = await self._task
            if chunks is None:
                chunks = Chunks(answer.completion.model, id)
                for index, message in enumerate(answer.messages):
                    for delta in split_into_deltas(message):
                        yield chunks.part(delta, index)
            for last in chunks.end(
                answer.completion, self._render_decision(answer.decision), usage_apart=self._usage_apart
            ):
                yield last
        finally:
            await self._stop()

    async def _stop(self) -> None:
        if not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._chunks.__anext__()

    async def begin(self, seconds: float | None = None) -> None:
        """Wait for the first chunk, `seconds` at most; raises what went wrong before, while a status can still say so.

        None: as long as it takes.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._begun.wait()
        if self._begun.is_set():
            self._first = await self._chunks.__anext__()

    async def aclose(self) -> None:
        """Stop: cancels what is under way upstream."""
        await self._chunks.aclose()  # type: ignore[attr-defined]
        await self._stop()

    async def __aenter__(self) -> StepStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
