"""Usual thinking: reasoning tokens of an answer, as a namespace's records have them of a model, for relative efforts.

Of calls at an effort that is itself relative, at a budget, or without any thinking nothing is learnt: half of the half
would soon be nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from agentcascade._util.lru_cache import LRUCache
from agentcascade._util.threads import apart
from agentcascade.config.effort import plain_name
from agentcascade.errors import describe

if TYPE_CHECKING:
    from agentcascade.storage import Database

log = logging.getLogger("agentcascade.effort")

SECONDS = 300.0
"""For which what was read is believed."""
NAMESPACES = 1000


class UsualThinking:
    """What answers of a model usually take to think in a namespace, read from the records, a while remembered."""

    def __init__(self) -> None:
        self._known: LRUCache[tuple[str, str], tuple[float, float | None]] = LRUCache(NAMESPACES)

    async def of(
        self, database: Database | None, namespace: str, model: str, clock: Callable[[], float]
    ) -> float | None:
        """Mean reasoning tokens of an answer; None where nothing is recorded, or the records cannot be read."""
        if database is None:
            return None
        key, now = (namespace, plain_name(model)), clock()
        known = self._known.get(key)
        if known is None or now - known[0] > SECONDS:
            from agentcascade.ledger.thinking import usual_thinking

            try:
                known = now, await apart(usual_thinking, database, namespace, key[1])
            except Exception as error:
                log.warning("what %s usually thinks is not known: %s", key[1], describe(error))
                known = now, None
            self._known.put(key, known)
        return known[1]
