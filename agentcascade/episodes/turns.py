"""Turns of those who ask the database for an episode: a few at a time, none of whom waits for a model meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any, NamedTuple

Turn = AbstractAsyncContextManager[Any]
"""Entered again and again: a semaphore."""
AT_ONCE: Turn = nullcontext()


class Turns(NamedTuple):
    """Turns of one server: `again` is for who looks again for what was not there, within `waiting()`."""

    first: Turn = AT_ONCE
    again: Turn = AT_ONCE
    waiting: Callable[[], AbstractContextManager[Any]] = nullcontext
