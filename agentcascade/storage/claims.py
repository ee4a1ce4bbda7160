"""File locks (flock) on files of JSON lines: one process writes one, any takes it in once it is let go."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

with suppress(ImportError):  # on Windows a file that somebody has open cannot be renamed, which is lock enough
    import fcntl


def try_lock(descriptor: int, *, wait: bool = False) -> bool:
    """Lock an open file for as long as the descriptor lives; False when another one holds it."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def is_file_at(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def claimed_file(path: Path) -> Iterator[BinaryIO | None]:
    """The file at `path`, held by nobody else; None when somebody holds it or it is gone. Raises `OSError`."""
    if sys.platform == "win32":
        try:
            path = path.rename(path.with_name(f"{path.name}.{os.getpid()}.jsonl"))
        except OSError:
            yield None
            return
    try:
        file = path.open("rb+")
    except FileNotFoundError:
        yield None
        return
    with file:
        yield file if try_lock(file.fileno()) and is_file_at(file.fileno(), path) else None
