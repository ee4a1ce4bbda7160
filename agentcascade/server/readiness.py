"""``/readyz``: whether the database answers. Asked for in a thread of its own, however many probes wait for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentcascade.storage import Database

SECONDS = 2.0


class Readiness:
    """Asks the database one question at a time. A thread that hangs is waited for, and no second one is started."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: Future[None] | None = None

    async def check(self) -> None:
        """Raises `TimeoutError` when the database does not answer in time, `StorageError` when it fails."""
        pending = self._asked
        if pending is None or pending.done():
            pending = self._asked = Future()
            Thread(target=self._ask, args=(pending,), name="agentcascade-ready", daemon=True).start()
        async with asyncio.timeout(SECONDS):
            await asyncio.shield(asyncio.wrap_future(pending))

    def _ask(self, answer: Future[None]) -> None:
        try:
            self._database.ping()
        except BaseException as error:
            answer.set_exception(error)
        else:
            answer.set_result(None)
