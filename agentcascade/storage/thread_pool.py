"""Thread pool of bookings and of rate limits: while the database hangs, nothing else shall want for a thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
THREADS = 8


def _new_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="agentcascade-budgets")


_pool = _new_pool()


def _replace_pool() -> None:
    """A child process has none of its parent's threads."""
    global _pool
    _pool = _new_pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_pool)


def submit(work: Callable[[], object]) -> None:
    """Start `work` in the pool. Raises `RuntimeError` while the interpreter shuts down."""
    _pool.submit(work)


async def in_pool(work: Callable[..., T], *arguments: object) -> T:
    """What ``work(*arguments)`` returns, called in the pool."""
    return await asyncio.get_running_loop().run_in_executor(_pool, work, *arguments)
