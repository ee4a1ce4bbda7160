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
        self.pending: set[asyncio.Task[None]] = set()

    def of(self, cascade: Cascade) -> Self:
        """Those of a twin, which count and are waited for with these."""
        twin = type(self)(cascade)
        twin.pending = self.pending
        return twin

    def _begin(self, what: str, most: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start `work`, unless `most` are at work already."""
        if len(self.pending) >= most:
            log.warning("%s is left out: %d are under way (max_pending)", what, len(self.pending))
            return
        task = asyncio.create_task(work())
        self.pending.add(task)
        task.add_done_callback(self.pending.discard)

    async def settle(self) -> None:
        """Wait for what is under way, here and in other loops that run."""
        here = asyncio.get_running_loop()
        while running := [t for t in list(self.pending) if not t.done() and t.get_loop().is_running()]:
            own = [t for t in running if t.get_loop() is here]
            if own:
                await asyncio.gather(*own, return_exceptions=True)
            if len(own) < len(running):
                await asyncio.sleep(0.02)
