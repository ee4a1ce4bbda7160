"""Answers of the dashboard, fresh enough to be given again; to the database goes one question at a time, in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

from agentcascade.storage.read_limit import reads_end_within

FRESH_SECONDS = 2.0
MOST_SECONDS = 10.0
"""What a question may take: others wait for it."""
REST = 3
"""An answer is given again for so many times as long as it took, so that the database rests, however many look on."""


class AnswerCache:
    """Bodies that are fresh enough to be given again. One question at a time goes to the database.

    A reader's questions wait for each other first, so that one who asks many holds others up by one of them.
    """

    def __init__(self) -> None:
        self._bodies: dict[Any, tuple[float, bytes]] = {}
        self._busy = asyncio.Lock()
        self._turns: dict[str | None, asyncio.Lock] = {}

    async def get(self, reader: str | None, question: Any, answer: Callable[[], bytes]) -> bytes:
        """The body for a question of a `reader` (its namespace), of `answer` unless it was just given.

        Raises `InvalidRequest` where the database takes longer than `MOST_SECONDS`.
        """
        question = reader, question
        cached = self._bodies.get(question)
        if cached is not None and cached[0] > time.monotonic():
            return cached[1]
        async with self._turns.setdefault(reader, asyncio.Lock()), self._busy:
            started = time.monotonic()
            self._bodies = {q: kept for q, kept in self._bodies.items() if kept[0] > started}
            if question not in self._bodies:
                body = await run_in_threadpool(_in_time, answer)
                ended = time.monotonic()
                self._bodies[question] = ended + max(FRESH_SECONDS, REST * (ended - started)), body
            return self._bodies[question][1]


def _in_time(answer: Callable[[], bytes]) -> bytes:
    with reads_end_within(MOST_SECONDS):
        return answer()
