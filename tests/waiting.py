"""Waits for what must come, up to a limit that only a fault reaches: machines of tests are busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

SECONDS = 60.0

T = TypeVar("T")


async def eventually(look: Callable[[], T], seconds: float = SECONDS) -> T:
    """What `look` gives as soon as that is true; the event loop goes on meanwhile."""
    async with asyncio.timeout(seconds):
        while not (found := look()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return found


def until(look: Callable[[], T], seconds: float = SECONDS) -> T:
    """What `look` gives as soon as that is true, asked again and again by a thread."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return found
