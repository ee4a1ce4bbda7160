"""Write-ahead journal of records: each is in a file before the answer that it is about is given.

An append is one `write` into the operating system's cache, some microseconds: it outlives a killed process, and not a
power cut, which is what the database's own commit is for. Each process writes files of its own, which it holds locked;
when it is gone the lock is too, and the next process that starts takes in what the files hold.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

from agentcascade._util import forking
from agentcascade._util.files import open_private, user_folder
from agentcascade.storage.claims import try_lock
from agentcascade.storage.database import Database
from agentcascade.storage.spill import ConsumeLines, consume_lines

log = logging.getLogger("agentcascade.ledger")

SEGMENT_BYTES = 1 << 20
PATTERN = "*.journal.jsonl"


class Segment:
    """A journal file that this process writes: `waiting` of its records are not in the database yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.waiting = 0
        self.retained = False
        """Whether a line stays in the file for another time."""
        unlocked = path.with_suffix(".new")  # until it is held, nobody shall take it for one that was left behind
        self.descriptor = open_private(unlocked)
        try_lock(self.descriptor)
        unlocked.rename(path)

    def close(self) -> None:
        """Let go of the file: its lines are for anybody to take in."""
        os.close(self.descriptor)


class Journal:
    """The journal of one process in `folder`, which is made when there is something to write. Thread-safe.

    A full disk or a folder that cannot be written is said once in the log, and the records go on without a journal.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = forking.lock()
        self._open: list[Segment] = []
        self._torn = self._failing = False

    def append(self, line: str) -> Segment | None:
        """Write a line; it is safe from the process' death when this returns. None when it could not be written."""
        data = line.encode(errors="replace") + b"\n"
        with self._lock:
            try:
                segment = self._current()
                if self._torn:
                    data = b"\n" + data
                self._torn = True
                segment.size += (written := os.write(segment.descriptor, data))
                if written < len(data):
                    raise OSError("the disk is full")
            except OSError as error:
                if not self._failing:
                    log.error("the journal in %s cannot be written, a crash may lose records: %s", self.folder, error)
                self._failing = True
                return None
            self._torn = self._failing = False
            segment.waiting += 1
            return segment

    def done(self, segment: Segment | None, *, retain: bool = False) -> None:
        """One record of `segment` is in the database, or, `retain`, has to stay in the file for another time."""
        if segment is None:
            return
        with self._lock:
            segment.waiting -= 1
            segment.retained |= retain
            if segment.waiting or segment not in self._open:
                return
            try:
                if segment.retained:
                    self._let_go(segment)
                elif segment is self._open[-1]:
                    os.ftruncate(segment.descriptor, 0)
                    segment.size = 0
                    self._torn = False
                else:
                    segment.path.unlink(missing_ok=True)
                    self._let_go(segment)
            except OSError as error:
                log.warning("the journal %s cannot be emptied: %s", segment.path, error)

    def take(self, consume: ConsumeLines) -> None:
        """Hand what processes left behind to `consume`, and remove it when that returns; it stays when that raises.

        One process does so at a time for each file; a crash in between hands lines out again.
        """
        open_names = {s.path.name for s in self._open}
        for path in sorted(self.folder.glob(PATTERN + "*")):
            if path.name not in open_names:
                for line in consume_lines(path, consume):
                    self.done(self.append(line), retain=True)

    def close(self) -> None:
        """Remove what is empty; what is not is for the next process that starts. A later append opens a new file."""
        with self._lock:
            for segment in list(self._open):
                if not segment.waiting and not segment.retained:
                    segment.path.unlink(missing_ok=True)
                self._let_go(segment)
        with suppress(OSError):
            self.folder.rmdir()

    def forked(self) -> None:
        """In a child process: the files are the parent's, who holds them on."""
        self._lock = forking.lock()
        for segment in self._open:
            with suppress(OSError):
                segment.close()
        self._open = []
        self._torn = False

    def _current(self) -> Segment:
        if not self._open or self._open[-1].size >= SEGMENT_BYTES or self._open[-1].retained:
            for _ in range(3):
                try:
                    self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self._open.append(Segment(self.folder / f"{os.getpid()}-{uuid4().hex[:12]}{PATTERN[1:]}"))
                    break
                except FileNotFoundError:  # another process found the folder empty and removed it
                    continue
                except FileExistsError:  # the same, between mkdir's failure and its look at what is there
                    if self.folder.exists() and not self.folder.is_dir():
                        raise
            else:
                raise FileNotFoundError(f"{self.folder} is removed again and again")
        return self._open[-1]

    def _let_go(self, segment: Segment) -> None:
        self._open.remove(segment)
        segment.close()


def state_folder(database: Database, configured: Path | None = None) -> Path | None:
    """Where journal and spill file of a database are: beside an SQLite file, else in a folder of the user's.

    That is a folder by the database's name and digest in `configured`, or else under ``$XDG_STATE_HOME/agentcascade``,
    by default ``~/.local/state``. None for a database in memory, whose records end with the process.
    """
    path, base = database.path, configured
    if path is not None and base is None:
        return path.with_name(f"{path.name}.journal")
    if path is None and database.is_sqlite:
        return None
    if path is not None:
        name, where = path.name, str(path.absolute())
    else:
        url = database.engine.url
        name, where = url.database or "", f"{url.host}:{url.port}/{url.database} {url.query.get('options', '')}"
    base = base or user_folder("XDG_STATE_HOME", ".local/state") / "agentcascade"
    short = "".join(c for c in name if c.isalnum() or c in "-_.")[:40]
    return base / f"{short}-{blake2b(where.encode(), digest_size=6).hexdigest()}"
