"""Turns of those who ask the database for an episode: a few at a time, none of whom waits for a model meanwhile."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

Turn = AbstractAsyncContextManager[Any]
"""Entered again and again: a semaphore."""
AT_ONCE: Turn = nullcontext()
