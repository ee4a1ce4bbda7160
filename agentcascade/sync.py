"""The thin sync face: every call is handed to one event loop in a background thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from agentcascade.errors import EpisodeClosed
from agentcascade.types import Message, Tool, Trajectory

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade
    from agentcascade.episode import Episode
    from agentcascade.response import CascadeCompletion
    from agentcascade.stream import Answer, StepStream

T = TypeVar("T")


class LoopThread:
    """An event loop in a daemon thread; `close` stops both."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agentcascade-sync", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work`; Ctrl-C cancels it. Raises `EpisodeClosed` after `close`."""
        if self._loop.is_closed():
            work.close()
            raise EpisodeClosed("the cascade of this episode was closed: build another one")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is under way, then stop."""
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


_loops: WeakKeyDictionary[Cascade, LoopThread] = WeakKeyDictionary()
_lock = threading.Lock()


def loop_of(cascade: Cascade) -> LoopThread:
    """The cascade's own loop, started on first use and stopped by `cascade.close()`."""
    with _lock:
        if cascade not in _loops:
            _loops[cascade] = LoopThread()
            cascade.on_close(lambda: _loops.pop(cascade).close())
        return _loops[cascade]


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
