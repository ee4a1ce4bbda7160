"""Background tasks of a cascade: bounded work behind its answers, such as shadows and audits, waited for at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from agentcascade.lifetime import Lifetime

log = logging.getLogger("agentcascade.shadow")


class BackgroundTasks:
    """Tasks under way, each with a deadline of its own. Twins of a cascade share them.

    Args:
        life: Of the cascade, which does not end before them when nobody holds the cascade any more.
    """

    def __init__(self, life: Lifetime) -> None:
        self.pending: set[asyncio.Task[None]] = set()
        self._life = life
        life.waits_for(self.pending)

    def start(self, what: str, most: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start `work`, unless `most` tasks are under way already."""
        if len(self.pending) >= most:
            log.warning("%s is left out: %d are under way (max_pending)", what, len(self.pending))
            return
        task = asyncio.create_task(work())
        self.pending.add(task)
        task.add_done_callback(self.pending.discard)

    async def wait(self) -> None:
        """Wait for what is under way, in this loop and in other loops that run."""
        here = asyncio.get_running_loop()
        while running := [t for t in list(self.pending) if not t.done() and t.get_loop().is_running()]:
            in_this_loop = [t for t in running if t.get_loop() is here]
            if in_this_loop:
                await asyncio.gather(*in_this_loop, return_exceptions=True)
            if len(in_this_loop) < len(running):
                await asyncio.sleep(0.02)
