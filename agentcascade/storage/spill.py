"""A file of JSON lines that holds what a database would not take, until it does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # not on Windows, where only one process may share a spill file
    fcntl = None  # type: ignore[assignment]


class Spill:
    """Lines in a file, appended durably and taken out by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def rejected(self) -> Path:
        """Where lines go that can never be taken in, for a person to look at."""
        return self.path.with_name(self.path.name + ".rejected")

    def put(self, lines: Sequence[str]) -> None:
        """Append; durable when it returns. Raises `OSError`."""
        with self._locked() as file:
            _append(file, lines)

    def reject(self, lines: Sequence[str]) -> None:
        """Set aside lines that can never be taken in. Raises `OSError`."""
        with self.rejected.open("a", encoding="utf-8", newline="\n") as file:
            _append(file, lines)

    def take(self, use: Callable[[list[str]], None]) -> None:
        """Hand all lines to `use` and remove them when it returns; they stay when it raises.

        A crash in between hands them out again, so `use` must not mind a line it has seen.
        """
        if not self.path.exists():
            return
        with self._locked() as file:
            file.seek(0)
            lines = [line for line in file.read().split("\n") if line]
            if lines:
                use(lines)
            file.truncate(0)
            with suppress(OSError):
                self.path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[IO[str]]:
        """The file, locked against other processes and threads, and still the one that the path names."""
        while True:
            with self.path.open("a+", encoding="utf-8", newline="\n") as file:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                        yield file
                        return


def _append(file: IO[str], lines: Sequence[str]) -> None:
    file.seek(0, os.SEEK_END)
    end = file.tell()
    if end and file.seekable():  # a crash may have torn the last line: begin a new one
        file.write("\n")
    file.writelines(line + "\n" for line in lines)
    file.flush()
    os.fsync(file.fileno())
