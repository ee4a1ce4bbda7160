"""Decisions into the database, off the hot path.

They are written by a thread of their own, in batches, so a step never waits for the database. What the database will
not take is kept in a spill file beside it and taken in when it answers again.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from agentcascade.errors import StorageError
from agentcascade.memory.types import Recall
from agentcascade.storage.database import Database
from agentcascade.storage.spill import Spill
from agentcascade.storage.writing import Entry, write
from agentcascade.types import Decision, Draft, EpisodeEnd, Shadow

log = logging.getLogger("agentcascade.ledger")
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)

MAX_WAITING = 10_000
"""Entries held in memory while the database is slow; more are spilled to a file."""
MAX_BATCH = 500
GATHER_SECONDS = 0.02
RETRY_SECONDS = 1.0


class MemoryRecorder:
    """Keeps decisions in lists, for tests and workers."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.shadows: list[Shadow] = []
        self.drafts: list[Draft] = []
        self.ends: list[EpisodeEnd] = []
        self.recalls: list[Recall] = []

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def shadowed(self, shadow: Shadow) -> None:
        self.shadows.append(shadow)

    def drafted(self, draft: Draft) -> None:
        self.drafts.append(draft)

    def finished(self, end: EpisodeEnd) -> None:
        self.ends.append(end)

    def recalled(self, recall: Recall) -> None:
        self.recalls.append(recall)

    def taken(self) -> list[Decision]:
        """The decisions so far; they are kept no longer."""
        taken, self.decisions = self.decisions, []
        return taken

    def flush(self) -> None:
        """Nothing is waiting."""

    def close(self) -> None:
        """Nothing is open."""


class DatabaseRecorder:
    """Writes decisions in the background. `spill` (default: beside an SQLite file) takes what the database refuses."""

    def __init__(self, database: Database, spill: Path | None = None) -> None:
        self._database = database
        if spill is None and database.path is not None:
            spill = database.path.with_name(database.path.name + ".spill.jsonl")
        self._spill = Spill(spill or Path("agentcascade.spill.jsonl"))
        self._has_spilled = True  # an earlier process may have
        self._waiting: queue.Queue[Entry | None] = queue.Queue(MAX_WAITING)
        self._closing, self._hurry = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="agentcascade-ledger", daemon=True)
        self._thread.start()

    def record(self, decision: Decision) -> None:
        """Take a decision; returns at once."""
        self._put(decision)

    def shadowed(self, shadow: Shadow) -> None:
        self._put(shadow)

    def drafted(self, draft: Draft) -> None:
        self._put(draft)

    def finished(self, end: EpisodeEnd) -> None:
        self._put(end)

    def recalled(self, recall: Recall) -> None:
        self._put(recall.model_copy(update={"text": ""}))  # parts of the history, which is stored already

    def _put(self, entry: Entry) -> None:
        try:
            if self._closing.is_set():
                raise queue.Full
            self._waiting.put_nowait(entry)
        except queue.Full:
            self._to_spill([entry])

    def flush(self) -> None:
        """Return when all that was recorded so far is durable, in the database or in the spill file."""
        self._hurry.set()
        self._waiting.join()

    def close(self) -> None:
        """Flush and stop. A second call does nothing."""
        if not self._closing.is_set():
            self._closing.set()
            self._hurry.set()
            self._waiting.put(None)
            self._thread.join()

    def _work(self) -> None:
        stop = False
        self._take_in_spill()
        while not stop:
            batch = [self._waiting.get()]
            self._hurry.wait(GATHER_SECONDS)  # one commit for all that comes in meanwhile
            self._hurry.clear()
            while len(batch) < MAX_BATCH:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            stop = None in batch
            entries = [e for e in batch if e is not None]
            if entries and self._store(entries):
                self._take_in_spill()
            for _ in batch:
                self._waiting.task_done()

    def _store(self, entries: list[Entry]) -> bool:
        """Into the database, at the second try if need be; else into the spill file."""
        try:
            try:
                self._write(entries)
            except StorageError:
                self._closing.wait(RETRY_SECONDS)
                self._write(entries)
        except Exception as error:
            log.warning("the ledger spills %d records to %s: %s", len(entries), self._spill.path, error)
            self._to_spill(entries)
            return False
        return True

    def _write(self, entries: list[Entry]) -> None:
        """Write all but the records that no database would take, which are set aside; raises when it is unwell."""
        try:
            with self._database.begin(write=True) as connection:
                write(connection, entries)
        except Exception as error:
            if not _is_about_a_record(error):
                raise
            if len(entries) > 1:
                middle = len(entries) // 2
                self._write(entries[:middle])
                self._write(entries[middle:])
            elif (whole := _ENTRY.validate_json(_line(entries[0]))) != entries[0]:
                self._write([whole])
            else:
                log.warning("the ledger sets a record aside in %s: %s", self._spill.rejected, error)
                self._spill.reject([_line(entries[0])])

    def _to_spill(self, entries: list[Entry]) -> None:
        try:
            self._spill.put([_line(e) for e in entries])
            self._has_spilled = True
        except OSError as error:
            log.error("%d ledger records are lost: %s cannot be written: %s", len(entries), self._spill.path, error)

    def _take_in_spill(self) -> None:
        """Move the spill file's records into the database; ids make a second try harmless."""
        if not self._has_spilled:
            return
        try:
            self._has_spilled = False
            self._spill.take(self._take_in)
        except Exception as error:
            self._has_spilled = True
            log.warning("the ledger cannot take in %s yet: %s", self._spill.path, error)

    def _take_in(self, lines: list[str]) -> None:
        entries, torn = [], []
        for line in lines:
            try:
                entries.append(_ENTRY.validate_json(line))
            except ValidationError:
                torn.append(line)
        for start in range(0, len(entries), MAX_BATCH):
            self._write(entries[start : start + MAX_BATCH])
        if torn:
            log.warning("%s: %d unreadable lines go to %s", self._spill.path, len(torn), self._spill.rejected)
            self._spill.reject(torn)


def _line(entry: Entry) -> str:
    """The record as JSON. Halves of characters, which nothing can store, become question marks."""
    try:
        return entry.model_dump_json()
    except PydanticSerializationError:
        text = json.dumps(entry.model_dump(mode="python"), ensure_ascii=False, default=str)
        return text.encode(errors="replace").decode()


def _is_about_a_record(error: Exception) -> bool:
    """Whether the values are at fault, rather than the database."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    if isinstance(cause, DBAPIError):
        return isinstance(cause, DataError | IntegrityError)
    return isinstance(cause, StatementError | ValueError | OverflowError | TypeError)
