"""Recorder of decisions into the database, off the hot path.

Each is in the journal before the answer is given, and written by a thread of its own, in batches: no decision waits
for the database (a draft does, for a second at most), and what was answered is in the ledger after a crash. What the
database will not take is kept in a spill file beside it and taken in when it answers again.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from agentcascade import lifetime
from agentcascade._util import forking
from agentcascade.errors import StorageError
from agentcascade.storage.database import Database
from agentcascade.storage.journal import Journal, Segment, state_folder
from agentcascade.storage.record_lines import from_line, is_bad_record, record_key, to_line, without_recalled_text
from agentcascade.storage.record_rows import Record, without_outdated, write_records
from agentcascade.storage.spill import SpillFile
from agentcascade.types import Decision, Draft, EpisodeEnd, Outcome, Recall, Shadow, now

log = logging.getLogger("agentcascade.ledger")

MAX_WAITING = 10_000
"""Entries held in memory while the database is slow; more are spilled to a file."""
MAX_BATCH = 500
GATHER_SECONDS, LEDGER_SECONDS = 0.02, 0.08
"""For which more is waited for, of any kind, and then of decisions alone: a transaction costs as much as 15 records.
Drafts and ends are what another replica may look for at once."""
RETRY_SECONDS = 1.0
PATIENCE_SECONDS = 5.0
"""For a database that somebody else has locked: the records are safe meanwhile, and others wait for this thread."""
IDLE_SECONDS = 60.0
"""After which a recorder without work looks for what others left behind, or the database would not take."""
SHADOW_DAYS = 1
"""For which a shadow waits for its decision, which another process may hold."""


class QueuedRecord(NamedTuple):
    """A record on its way to the database; `make` is what it is made by, where that takes long."""

    record: Record | None
    make: Callable[[], Record] | None
    segment: Segment | None


class DatabaseRecorder:
    """A `Recorder` that writes into the database in the background. Thread-safe; it starts a thread of its own.

    Args:
        database: Where the records go. It stays open when the recorder is closed.
        spill: The file that takes what the database refuses. By default it stands beside an SQLite file, else in
            `folder`.
        folder: That of the journal; by default `state_folder` says which.
    """

    def __init__(self, database: Database, spill: Path | None = None, *, folder: Path | None = None) -> None:
        self._database = database
        folder = state_folder(database, folder)
        self._journal = Journal(folder) if folder is not None else None
        if spill is None:
            spill = _beside(database) or (folder or Path()) / "agentcascade.spill.jsonl"
        self._spill = SpillFile(spill)
        self._left_behind = True  # by an earlier process, perhaps
        self._closing = threading.Event()
        self._begin()
        self._start()
        forking.on_fork(self.forked)

    def _begin(self) -> None:
        self._waiting: queue.Queue[QueuedRecord | None] = queue.Queue(MAX_WAITING)
        self._finished = 0
        self._hurry = threading.Event()
        self._starting = forking.lock()
        self._thread: threading.Thread | None = None

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="agentcascade-ledger", daemon=True)
                self._thread.start()

    def record(self, decision: Decision) -> None:
        """Take a decision with its calls.

        Args:
            decision: One step's decision. It outlives this process when this returns, and is in the database within a
                fraction of a second as a rule. A record that a full disk keeps out of journal and spill file is lost,
                and said so in the log; nothing is raised.
        """
        self._put(decision)

    def record_shadow(self, shadow: Shadow) -> None:
        """Take a shadow with its samples, as `record` takes a decision."""
        self._put(shadow)

    def record_draft(self, draft: Draft) -> None:
        """Take one step of an episode that may be banked later, as `record` takes a decision."""
        self._put(draft)

    def record_end(self, end: EpisodeEnd) -> None:
        """Take the end of an episode, as `record` takes a decision."""
        self._put(end)

    def record_recall(self, recall: Recall) -> None:
        """Take a memory's recall, without its text where that is in the history, as `record` takes a decision."""
        self._put(without_recalled_text(recall))

    def record_outcome(self, outcome: Outcome) -> None:
        """Take what came of one action, as `record` takes a decision."""
        self._put(outcome)

    def defer(self, make: Callable[[], Record], meanwhile: Record | None) -> None:
        """Take a record that is made (redacted, say) in the background. After a crash `meanwhile` stands in for it."""
        self._put(meanwhile, make)

    def _put(self, entry: Record | None, make: Callable[[], Record] | None = None) -> None:
        segment = self._journal.append(to_line(entry)) if self._journal is not None and entry is not None else None
        try:
            if self._closing.is_set():
                raise queue.Full
            self._waiting.put_nowait(QueuedRecord(None if make else entry, make, segment))
        except queue.Full:
            if segment is not None and make is None:
                self._keep(segment)
            else:
                self._to_spill([_made(QueuedRecord(entry, make, segment))])
                self._done(segment)
            return
        if self._thread is None:  # in a child process
            self._start()

    def _keep(self, segment: Segment) -> None:
        """The record stays in the journal until there is less to do."""
        assert self._journal is not None
        self._journal.done(segment, retain=True)
        self._left_behind = True

    def _done(self, segment: Segment | None) -> None:
        if self._journal is not None:
            self._journal.done(segment)

    def flush(self, seconds: float | None = None) -> bool:
        """Wait until all that was recorded so far is durable, in the database or in the spill file.

        Args:
            seconds: To wait at most; None for as long as it takes.

        Returns:
            False when it took longer; by then a killed process would not lose it.
        """
        self._hurry.set()
        if self._thread is None:
            return True
        with self._waiting.all_tasks_done:
            last = self._finished + self._waiting.unfinished_tasks
            return self._waiting.all_tasks_done.wait_for(lambda: self._finished >= last, seconds)

    def close(self, seconds: float | None = None) -> None:
        """Flush and stop. A second call does nothing.

        Args:
            seconds: To wait at most; the journal holds what is left then. None waits to the end, but for
                `lifetime.EXIT_SECONDS` while the program exits.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        if seconds is None and lifetime.exiting():
            seconds = lifetime.EXIT_SECONDS
        thread = self._thread
        if thread is not None:
            self._hurry.set()
            with suppress(queue.Full):
                self._waiting.put(None, timeout=seconds)
            if thread is not threading.current_thread():
                thread.join(seconds)
        if self._journal is not None and (thread is None or not thread.is_alive()):
            self._journal.close()

    def forked(self) -> None:
        """In a child process: what waits is the parent's to write, and so are its files."""
        if self._journal is not None:
            self._journal.forked()
        self._begin()

    def _work(self) -> None:
        stop, well = False, True
        while not stop:
            if self._left_behind and well:
                self._take_in_left_behind()
            try:
                batch = [self._waiting.get(timeout=IDLE_SECONDS)]
            except queue.Empty:
                self._left_behind = well = True
                continue
            self._gather(batch)
            stop = None in batch
            waiting = [w for w in batch if w is not None]
            try:
                well = self._store_all(waiting)
                if well and self._left_behind:
                    self._take_in_left_behind()
            except Exception:  # nothing may end this thread
                log.exception("the ledger could not write %d records", len(waiting))
            with self._waiting.all_tasks_done:  # `task_done` for all in one turn, so that both counts agree
                self._waiting.unfinished_tasks -= len(batch)
                self._finished += len(batch)
                self._waiting.all_tasks_done.notify_all()

    def _gather(self, batch: list[QueuedRecord | None]) -> None:
        """Add what comes in meanwhile, so that there is one commit for it."""
        for seconds in (GATHER_SECONDS, LEDGER_SECONDS):
            is_asked_for = self._hurry.wait(seconds)
            self._hurry.clear()
            while len(batch) < MAX_BATCH:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            if is_asked_for or not all(isinstance(w.record if w else None, Decision) for w in batch):
                return

    def _store_all(self, waiting: list[QueuedRecord]) -> bool:
        """Whether the database took them."""
        entries, segments = [], [w.segment for w in waiting]
        for w in waiting:
            entries.append(entry := _made(w))
            if w.make is not None and self._journal is not None:
                segments.append(self._journal.append(to_line(entry)))
        well = not entries or self._store(entries)
        for segment in segments:
            self._done(segment)
        return well

    def _store(self, entries: list[Record]) -> bool:
        """Into the database, at the second try if need be; else into the spill file."""
        try:
            try:
                early = self._write(entries)
            except StorageError:
                self._closing.wait(RETRY_SECONDS)
                early = self._write(entries)
        except Exception as error:
            log.warning("the ledger spills %d records to %s: %s", len(entries), self._spill.path, error)
            self._to_spill(entries)
            return False
        if early:
            self._to_spill(early)
            return False
        return True

    def _write(self, entries: list[Record], *, again: bool = False) -> list[Record]:
        """Write all but the records that no database would take, which are set aside; raises when it is unwell.

        Returns the shadows that have to wait for their decisions. `again`: some may have been written before.
        """
        try:
            with self._database.begin(write=True, seconds=PATIENCE_SECONDS) as connection:
                return write_records(connection, without_outdated(connection, entries) if again else entries)
        except Exception as error:
            if not is_bad_record(error):
                raise
            if len(entries) > 1:
                middle = len(entries) // 2
                return self._write(entries[:middle], again=again) + self._write(entries[middle:], again=again)
            if (storable := from_line(to_line(entries[0]))) != entries[0]:
                return self._write([storable], again=again)
            log.warning("the ledger sets a record aside in %s: %s", self._spill.rejected, error)
            self._spill.reject([to_line(entries[0])])
            return []

    def _to_spill(self, entries: list[Record]) -> None:
        try:
            self._spill.put([to_line(e) for e in entries])
            self._left_behind = True
        except OSError as error:
            log.error("%d ledger records are lost: %s cannot be written: %s", len(entries), self._spill.path, error)

    def _take_in_left_behind(self) -> None:
        """Move into the database what a crash left in journals, and what is spilled; a second try is harmless."""
        self._left_behind = False
        try:
            if self._journal is not None:
                self._journal.take(self._take_in)
            self._spill.take(self._take_in)
        except Exception as error:
            self._left_behind = True
            log.warning("the ledger cannot take in %s yet: %s", self._spill.path, error)

    def _take_in(self, lines: Iterable[bytes]) -> list[str]:
        """Write what is readable; returns the shadows that may yet find their decisions."""
        entries: dict[tuple[str, str], Record] = {}
        early: list[Record] = []
        bad: list[str] = []

        def write_all() -> None:
            early.extend(self._write(list(entries.values()), again=True))
            entries.clear()

        for line in lines:
            try:
                entry = from_line(line)
            except (ValidationError, RecursionError):
                bad.append(line.decode(errors="backslashreplace").rstrip("\n"))
                continue
            entries[record_key(entry)] = entry  # of two with one id the later one has its texts
            if len(entries) >= MAX_BATCH:
                write_all()
        if entries:
            write_all()
        orphans = self._write(early, again=True) if early else []
        oldest = now() - timedelta(days=SHADOW_DAYS)
        lost = [e for e in orphans if not (isinstance(e, Shadow) and e.created_at > oldest)]
        if bad or lost:
            log.warning("%d records that cannot be taken in go to %s", len(bad) + len(lost), self._spill.rejected)
            self._spill.reject([*bad, *map(to_line, lost)])
        return [to_line(e) for e in orphans if e not in lost]


def _beside(database: Database) -> Path | None:
    path = database.path
    return None if path is None else path.with_name(path.name + ".spill.jsonl")


def _made(queued: QueuedRecord) -> Record:
    entry = queued.make() if queued.make is not None else queued.record
    assert entry is not None
    return without_recalled_text(entry) if isinstance(entry, Recall) else entry
