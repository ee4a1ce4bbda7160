"""Decisions into the database, off the hot path.

They are written by a thread of their own, in batches, so a step never waits for the database. What the database will
not take is kept in a spill file beside it and taken in when it answers again.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from agentcascade.errors import StorageError
from agentcascade.storage.database import Database
from agentcascade.storage.spill import Spill
from agentcascade.storage.tables import calls, decisions, drafts, episodes, shadows
from agentcascade.types import Call, Decision, Draft, EpisodeEnd, Shadow

log = logging.getLogger("agentcascade.ledger")
Entry = Decision | Shadow | Draft | EpisodeEnd
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

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def shadowed(self, shadow: Shadow) -> None:
        self.shadows.append(shadow)

    def drafted(self, draft: Draft) -> None:
        self.drafts.append(draft)

    def finished(self, end: EpisodeEnd) -> None:
        self.ends.append(end)

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


def write(connection: Connection, entries: list[Entry]) -> None:
    """Write decisions, shadows and drafts with their calls, and episode ends; what is there already is left alone.

    Raises `StorageError` for a shadow whose decision is not there yet.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    ends = [e for e in entries if isinstance(e, EpisodeEnd)]
    made = {d.id: d for d in entries if isinstance(d, Decision)}
    for draft in (e for e in entries if isinstance(e, Draft)):
        _write_draft(connection, dialect.insert(drafts), draft)
    if ends:
        end = dialect.insert(episodes)
        changes = {c.name: end.excluded[c.name] for c in episodes.c if not c.primary_key}
        rows = [e.model_dump(exclude={"episode", "decision", "calls"}) | {"id": e.episode} for e in ends]
        connection.execute(end.on_conflict_do_update(index_elements=["namespace", "id"], set_=changes), rows)
    if made:
        there = set(connection.execute(select(decisions.c.id).where(decisions.c.id.in_(list(made)))).scalars())
        fresh = [d for d in made.values() if d.id not in there]
        if fresh:
            connection.execute(decisions.insert(), [_decision_row(d) for d in fresh])
        _write_calls(connection, {d.id: d.calls for d in fresh})
    behind = {s.decision: s for s in entries if isinstance(s, Shadow)}
    if behind:
        _write_shadows(connection, behind)
    judged = {e.decision: e.calls for e in ends if e.calls}
    if judged:
        billed = (calls.c.decision.in_(list(judged))) & (calls.c.purpose == "judge")
        known = set(connection.execute(select(calls.c.decision).where(billed)).scalars())
        _write_calls(connection, {d: made for d, made in judged.items() if d not in known})


def _decision_row(decision: Decision) -> dict[str, Any]:
    row = decision.model_dump(exclude={"calls"})
    return row | {
        "votes": dict(decision.votes),
        "demonstrations": list(decision.demonstrations),
        "failures": list(decision.failures),
    }


def _write_calls(connection: Connection, bills: Mapping[str, Sequence[Call]]) -> None:
    rows = [
        call.model_dump(exclude={"usage"}) | call.usage.model_dump() | {"decision": decision}
        for decision, made in bills.items()
        for call in made
    ]
    if rows:
        connection.execute(calls.insert(), rows)


def _write_shadows(connection: Connection, behind: Mapping[str, Shadow]) -> None:
    ids = list(behind)
    there = set(connection.execute(select(shadows.c.decision).where(shadows.c.decision.in_(ids))).scalars())
    decided = set(connection.execute(select(decisions.c.id).where(decisions.c.id.in_(ids))).scalars())
    if not decided.issuperset(ids):
        raise StorageError("the decision of a shadow is not written yet: both are tried again")
    fresh = [s for s in behind.values() if s.decision not in there]
    if fresh:
        rows = [s.model_dump(exclude={"calls"}) for s in fresh]
        connection.execute(shadows.insert(), [{k: _plain(v) for k, v in row.items()} for row in rows])
    _write_calls(connection, {s.decision: s.calls for s in fresh})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _write_draft(connection: Connection, insert: Any, draft: Draft) -> None:
    """A step that is taken again replaces the older one, and an episode that begins again all of them."""
    if draft.position == 0:
        own = (drafts.c.namespace == draft.namespace) & (drafts.c.episode == draft.episode)
        connection.execute(drafts.delete().where(own))
    changes = {c.name: insert.excluded[c.name] for c in drafts.c if not c.primary_key}
    position = ["namespace", "episode", "position"]
    connection.execute(insert.on_conflict_do_update(index_elements=position, set_=changes), draft.model_dump())
