"""Work behind the answers of a cascade: shadows and audits. It is bounded, and waited for at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade

log = logging.getLogger("agentcascade.shadow")


class Behind:
    """Tasks of one cascade that are under way, each with a deadline of its own."""

    def __init__(self, cascade: Cascade) -> None:
        self._cascade = cascade
        self._pending: set[asyncio.Task[None]] = set()

    def of(self, cascade: Cascade) -> Self:
        """Those of a twin, which count and are waited for with these."""
        twin = type(self)(cascade)
        twin._pending = self._pending
        return twin

    def _begin(self, what: str, most: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start `work`, unless `most` are at work already."""
        if len(self._pending) >= most:
            log.warning("%s is left out: %d are under way (max_pending)", what, len(self._pending))
            return
        task = asyncio.create_task(work())
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def settle(self) -> None:
        """Wait for what is under way."""
        while self._pending:
            await asyncio.gather(*self._pending, return_exceptions=True)
