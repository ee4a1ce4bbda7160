"""Answers of the dashboard that are fresh enough to be given again; one question at a time goes to the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

FRESH_SECONDS = 2.0
REST = 3
"""An answer is given again for so many times as long as it took, so that the database rests, however many look on."""


class AnswerCache:
    """Bodies that are fresh enough to be given again. One question at a time goes to the database."""

    def __init__(self) -> None:
        self._bodies: dict[Any, tuple[float, bytes]] = {}
        self._busy = asyncio.Lock()

    async def get(self, question: Any, answer: Callable[[], bytes]) -> bytes:
        """The body for a question, of `answer` unless it was just given."""
        async with self._busy:
            started = time.monotonic()
            self._bodies = {q: cached for q, cached in self._bodies.items() if cached[0] > started}
            if question not in self._bodies:
                body = await run_in_threadpool(answer)
                ended = time.monotonic()
                self._bodies[question] = ended + max(FRESH_SECONDS, REST * (ended - started)), body
            return self._bodies[question][1]
