"""Blocking episodes, for programs without an event loop: one in a background thread runs every call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from agentcascade._util import forking
from agentcascade.episodes.episode import Episode
from agentcascade.episodes.keywords import EpisodeKeywords, request, takes
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
    """The event loop of a cascade's blocking calls, started on first use and stopped when its life ends.

    Raises `CascadeClosed` afterwards.
    """
    with _lock:
        if life.closed:
            raise CascadeClosed(CLOSED)
        loop = life.loop
        if loop is None:
            loop = life.loop = LoopThread()
        return loop


class SyncEpisode:
    """Blocking `Episode`, for programs without an event loop: the same methods and errors.

    Make one with `Cascade.sync_episode`.

    Args:
        engine: Takes the steps.
        goal: The task in words; default: the first user message.
        keywords: Those of `Episode`.

    Attributes:
        episode: The episode that answers.

    >>> from agentcascade import ScriptedModel, build
    >>> with build(teacher=ScriptedModel(["look", "take mug"]), mode="teacher") as cascade:
    ...     episode = cascade.sync_episode(goal="take the mug")
    ...     first = episode.complete([{"role": "user", "content": "You are in a kitchen."}])
    ...     [chunk["choices"][0]["delta"] for chunk in episode.stream([{"role": "user", "content": "A mug."}])]
    [{'role': 'assistant', 'content': 'take mug'}, {}]
    """

    def __init__(self, engine: Engine, goal: str = "", **keywords: Unpack[EpisodeKeywords]) -> None:
        self.episode: Episode = Episode(engine, goal=goal, **keywords)
        self._loop = loop_of(engine.state.life)

    def _repr_html_(self) -> str:
        return self.episode._repr_html_()

    @takes(request)
    def complete(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] | None = None, **options: Any
    ) -> CascadeCompletion:
        """The next assistant message; arguments, result and errors are those of `Episode.complete`."""
        return self._loop.run(self.episode.complete(messages, tools=tools, **options))

    def answer(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Answer:
        """The next step as (completion, messages for the agent, decision), as `Episode.answer` gives it."""
        return self._loop.run(self.episode.answer(messages, tools=tools, options=options))

    @takes(request)
    def stream(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] | None = None, **options: Any
    ) -> Iterator[dict[str, Any]]:
        """Iterate over the chunks of `Episode.stream`, as it makes them; leaving early cancels the step."""
        stream = self._loop.run(_open(self.episode, messages, tools=tools, **options))
        try:
            while (chunk := self._loop.run(_next(stream))) is not None:
                yield chunk
        finally:
            self._loop.run(stream.aclose())

    def trajectory(self, success: bool) -> Trajectory:
        """The trajectory so far, as `Episode.trajectory` gives it."""
        return self.episode.trajectory(success)

    def finish(self, success: bool | None = None) -> bool:
        """Close the episode, as `Episode.finish` does; returns whether the bank grew, else see `episode.not_banked`."""
        return self._loop.run(self.episode.finish(success))


async def _open(episode: Episode, messages: Sequence[Message], **options: Any) -> StepStream:
    return episode.stream(messages, **options)  # it starts a task: inside the loop


async def _next(stream: StepStream) -> dict[str, Any] | None:
    return await anext(stream, None)
