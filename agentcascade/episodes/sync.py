"""The thin sync face: every call is handed to one event loop in a background thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentcascade._util import forking
from agentcascade.episodes.episode import Episode
from agentcascade.errors import CascadeClosed
from agentcascade.event_loop import CLOSED, LoopThread
from agentcascade.lifetime import Lifetime
from agentcascade.step.engine import Engine
from agentcascade.types import Message, Tool, Trajectory

if TYPE_CHECKING:
    from agentcascade.episodes.responses import CascadeCompletion
    from agentcascade.episodes.stream import Answer, StepStream


_lock = forking.lock()


def loop_of(life: Lifetime) -> LoopThread:
    """The loop of a cascade's blocking episodes, started on first use and stopped when its life ends."""
    with _lock:
        if life.closed:
            raise CascadeClosed(CLOSED)
        loop = life.loop
        if loop is None:
            loop = life.loop = LoopThread()
        return loop


class SyncEpisode:
    """An `Episode` for programs without an event loop; same methods, same errors, blocking."""

    def __init__(self, engine: Engine, **options: Any) -> None:
        self.episode = Episode(engine, **options)
        self._loop = loop_of(engine.state.life)

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
