"""A program in the foreground: the terminal, the signals and the exit status are its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

FORWARDED = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGINT")
DIED_BY = ("SIGINT", "SIGTERM", "SIGHUP")
"""By these we die as the program did, so that a shell's loop ends as it would have; of others the number is told."""


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The program's exit status, negative by the number of the signal that killed it.

    Signals to us are handed on. Ctrl-C reaches the program from the terminal itself, and ends it if that is what it
    does; we go on to the report.

    Raises:
        OSError: It cannot be started.
    """
    with _handing_on() as children:
        child = subprocess.Popen(command, env=dict(environment))
        children.append(child)
        return child.wait()


def leave(status: int) -> int:
    """The exit status for what `run` returned. For a signal that ends programs, end by it (does not return)."""
    if status >= 0:
        return status
    if any(getattr(signal, name, None) == -status for name in DIED_BY):
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return 128 - status


@contextmanager
def _handing_on() -> Iterator[list[subprocess.Popen[bytes]]]:
    """A program in the list gets our signals."""
    children: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and _is_in_foreground():
            return
        for child in children:
            with suppress(OSError):
                child.send_signal(number)

    numbers = [getattr(signal, name) for name in FORWARDED if hasattr(signal, name)]
    before = {number: signal.signal(number, hand_on) for number in numbers}
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_in_foreground() -> bool:
    """Whether a terminal's Ctrl-C reaches our process group, and so the program, by itself."""
    if sys.platform == "win32":  # a console tells all of its programs
        return True
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
