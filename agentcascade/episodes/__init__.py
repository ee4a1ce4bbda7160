"""Episodes: one run of an agent, kept by its object or read off the messages of a stateless caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade._util.lazy import public_names

__all__ = ["Episode", "SyncEpisode"]

if TYPE_CHECKING:
    from agentcascade.episodes.episode import Episode as Episode
    from agentcascade.episodes.sync import SyncEpisode as SyncEpisode
else:  # to a type checker `__getattr__` would stand for every name
    __getattr__, __dir__ = public_names(
        __name__,
        {
            "Episode": "episode",
            "SyncEpisode": "sync",
        },
    )
