"""Spill file: JSON lines that the database would not take, kept until it does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from agentcascade._util.files import open_private
from agentcascade.storage.claims import claimed_file, is_file_at, try_lock

ConsumeLines = Callable[[Iterable[bytes]], Iterable[str]]
"""Takes lines in, and returns those that are to be kept for another time."""


class SpillFile:
    """Lines in a file, appended durably and taken out by one process at a time.

    Whoever takes lines out renames the file first: those who append never wait for a database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def rejected(self) -> Path:
        """Where lines go that can never be taken in, for a person to look at."""
        return self.path.with_name(self.path.name + ".rejected")

    def put(self, lines: Sequence[str]) -> None:
        """Append; durable when it returns. Raises `OSError`."""
        with self._locked() as descriptor:
            _append(descriptor, lines)

    def reject(self, lines: Sequence[str]) -> None:
        """Set aside lines that can never be taken in. Raises `OSError`."""
        descriptor = open_private(self.rejected)
        try:
            _append(descriptor, lines)
        finally:
            os.close(descriptor)

    def take(self, consume: ConsumeLines) -> None:
        """Hand all lines to `consume` and remove them when it returns; they stay when it raises.

        A crash in between hands them out again, so `consume` must not mind a line it has seen.
        """
        if self.path.exists():
            with self._locked() as _:
                if self.path.stat().st_size:
                    self.path.rename(
                        self.path.with_name(f"{self.path.name}.{time.time_ns():020}-{uuid4().hex[:8]}.taking")
                    )
                else:
                    self.path.unlink()
        for path in sorted(self.path.parent.glob(f"{self.path.name}.*.taking*")):
            if remaining := consume_lines(path, consume):
                self.put(remaining)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, locked against other processes and threads, and still the one that the path names."""
        while True:
            descriptor = open_private(self.path)
            try:
                if try_lock(descriptor) and is_file_at(descriptor, self.path):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)
            time.sleep(0.001)  # it is held for no longer than an append takes


def consume_lines(path: Path, consume: ConsumeLines) -> list[str]:
    """Hand the lines of a file that nobody holds to `consume`, then remove it; returns what it wants to be kept."""
    remaining: list[str] = []
    with claimed_file(path) as file:
        if file is not None:
            remaining = list(consume(line for line in file if line.strip(b"\0 \t\r\n")))
            with suppress(PermissionError):  # Windows removes no file that is open: it stays, empty
                file.truncate(0)
                Path(file.name).unlink(missing_ok=True)
    return remaining


def _append(descriptor: int, lines: Sequence[str]) -> None:
    data = "".join(line + "\n" for line in lines).encode()
    if os.fstat(descriptor).st_size:  # a crash may have torn the last line: begin a new one
        data = b"\n" + data
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)
