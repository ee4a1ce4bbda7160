"""Ctrl-C (SIGINT): who presses it does not want to wait for a provider, but wants what was done to be recorded."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_SECONDS = 3.0
"""For requests under way after the first Ctrl-C. A second one ends them at once."""


@contextmanager
def short_grace(cancel: Callable[[], object], seconds: float = GRACE_SECONDS) -> Iterator[None]:
    """On SIGINT, do what was done so far (stop), and `cancel()` so many seconds later, or at the next SIGINT.

    In the main thread; in others it does nothing, since signals are not theirs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    pressed = 0

    def interrupted(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed == 1:
            loop.call_soon_threadsafe(lambda: loop.call_later(seconds, cancel))
        elif pressed == 2:
            loop.call_soon_threadsafe(cancel)
        if pressed != 2 and callable(before):  # the second would make the server leave without closing anything
            before(number, frame)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupted:
            signal.signal(signal.SIGINT, before)
