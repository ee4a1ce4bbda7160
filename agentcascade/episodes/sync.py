"""The thin sync face: every call is handed to one event loop in a background thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from agentcascade._util import forking
from agentcascade.errors import CascadeClosed
from agentcascade.types import Message, Tool, Trajectory

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade
    from agentcascade.episodes.episode import Episode
    from agentcascade.episodes.responses import CascadeCompletion
    from agentcascade.episodes.stream import Answer, StepStream

T = TypeVar("T")


CLOSED = "the cascade of this episode was closed: build another one"
CLOSE_SECONDS = 10.0
_inherited: list[asyncio.AbstractEventLoop] = []
"""A parent's loops: closed or collected in a child, they would change the parent's."""


class LoopThread:
    """An event loop in a daemon thread, in a child process another one; `close` stops both."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting, self._closed = forking.lock(), False
        forking.on_fork(self.forked)
        self._started()

    def run(self, work: Coroutine[Any, Any, T], *, seconds: float | None = None) -> T:
        """Wait for `work`; Ctrl-C cancels it. Raises `CascadeClosed` after `close`, `TimeoutError` after `seconds`."""
        try:
            loop, thread = self._started()
        except CascadeClosed:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, loop)
        ends = None if seconds is None else time.monotonic() + seconds
        try:
            while True:
                try:
                    return future.result(1.0)
                except TimeoutError:
                    if future.done():
                        raise
                    if not thread.is_alive():  # closed at this very moment
                        raise CascadeClosed(CLOSED) from None
                    if ends is not None and time.monotonic() > ends:
                        raise
        except concurrent.futures.CancelledError:
            if self._closed:  # under the caller's feet
                raise CascadeClosed(CLOSED) from None
            raise
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is under way, then stop. What hangs is left behind after `CLOSE_SECONDS`."""
        with self._starting:
            self._closed = True
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None:
            return
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)

    def forked(self) -> None:
        """In a child process: the thread is the parent's, and so are the loop's descriptors, which must stay as is."""
        if self._loop is not None:
            _inherited.append(self._loop)
        self._loop = self._thread = None

    def _started(self) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        with self._starting:
            if self._closed:
                raise CascadeClosed(CLOSED)
            if self._loop is None or self._thread is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="agentcascade-sync", daemon=True)
                self._thread.start()
            return self._loop, self._thread


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """All of a loop's life is in its own thread: whoever closes it may be in a running loop."""
    try:
        loop.run_forever()
        others = asyncio.all_tasks(loop)
        for task in others:
            task.cancel()
        if others:
            loop.run_until_complete(asyncio.gather(*others, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


_lock = forking.lock()


def loop_of(cascade: Cascade) -> LoopThread:
    """The loop of a cascade and its copies, started on first use and stopped by `cascade.close()`."""
    with _lock:
        if cascade.life.closed:
            raise CascadeClosed(CLOSED)
        loop = cascade.life.loop
        if loop is None:
            loop = cascade.life.loop = LoopThread()
        return loop


class SyncEpisode:
    """An `Episode` for programs without an event loop; same methods, same errors, blocking."""

    def __init__(self, cascade: Cascade, **options: Any) -> None:
        self.episode = cascade.episode(**options)
        self._loop = loop_of(cascade)

    def complete(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] | None = None, **options: Any
    ) -> CascadeCompletion:
        return self._loop.run(self.episode.complete(messages, tools=tools, **options))

    def answer(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Answer:
        """The next step as (completion, messages for the agent, decision); see `Episode.answer`."""
        return self._loop.run(self.episode.answer(messages, tools=tools, options=options))

    def stream(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] | None = None, **options: Any
    ) -> Iterator[dict[str, Any]]:
        """The chunks of `Episode.stream`; leaving the loop early cancels the step."""
        opened = self._loop.run(_open(self.episode, messages, tools=tools, **options))
        try:
            while (part := self._loop.run(_next(opened))) is not None:
                yield part
        finally:
            self._loop.run(opened.aclose())

    def trajectory(self, success: bool) -> Trajectory:
        return self.episode.trajectory(success)

    def finish(self, success: bool | None = None) -> bool:
        """Close the episode; without `success` the cascade's judge decides."""
        return self._loop.run(self.episode.finish(success))


async def _open(episode: Episode, messages: Sequence[Message], **options: Any) -> StepStream:
    return episode.stream(messages, **options)  # it starts a task: inside the loop


async def _next(stream: StepStream) -> dict[str, Any] | None:
    return await anext(stream, None)
