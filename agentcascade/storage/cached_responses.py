"""Response cache in the database: answers to exact requests, sealed with a key that is made of the request itself.

Whoever has the database alone cannot read them: neither a request nor its key is kept, the row is found by another
digest. Who guesses a whole request, to the byte, can open its answer.

A cache: while the database fails it knows nothing and keeps nothing. What is kept is written behind the answer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, func, or_, select

from agentcascade._util import forking
from agentcascade.errors import describe
from agentcascade.storage import thread_pool
from agentcascade.storage.database import Database
from agentcascade.storage.sealing import seal, unseal
from agentcascade.storage.tables import cached_responses
from agentcascade.storage.trajectories import chunks
from agentcascade.storage.upsert import replacing
from agentcascade.types import now

log = logging.getLogger("agentcascade.storage")

MOST_WAITING = 500
"""Answers that wait to be written; what comes while there are more is not kept."""
BATCH = 50
"""Written in one transaction."""
TRIM_EVERY = 100
"""Answers of a namespace, after which those beyond its limits are removed."""
CLOSE_SECONDS = 5.0


class Sealed(NamedTuple):
    """The digests of one request: where its answer is kept, and what opens it."""

    row: str
    key: bytes


class Limits(NamedTuple):
    """Of what a namespace may keep: the oldest go first."""

    seconds: float
    entries: int
    bytes: int


class _Waiting(NamedTuple):
    namespace: str
    sealed: Sealed
    answer: bytes
    at: datetime


class CachedResponses:
    """Answers by the digests of their requests. Thread-safe; `find` blocks, `save` does not."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database, self._limits = database, limits
        self._waiting: dict[str, _Waiting] = {}
        self._added: dict[str, int] = {}
        """Answers by namespace, since it was trimmed."""
        self._lock = forking.lock()
        self._idle = threading.Event()
        self._idle.set()
        forking.on_fork(self._forked)

    def find(self, sealed: Sealed, most_bytes: int) -> tuple[bytes, datetime] | None:
        """The answer and when it was given; None where there is none, or only one too old or too large."""
        query = select(cached_responses.c.body, cached_responses.c.created_at).where(
            cached_responses.c.key == sealed.row, cached_responses.c.expires_at > now()
        )
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        if row is None or row.created_at < now() - timedelta(seconds=self._limits.seconds):
            return None
        try:
            answer = unseal(sealed.key, row.body, most_bytes)
        except Exception as error:  # somebody changed the row
            log.warning("an answer of the response cache cannot be read: %s", describe(error))
            return None
        return None if answer is None else (answer, row.created_at)

    def save(self, namespace: str, sealed: Sealed, answer: bytes) -> None:
        """Keep an answer, written behind the caller; in place of an earlier one to the same request."""
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                return
            self._waiting[sealed.row] = _Waiting(namespace, sealed, answer, now())
            if not self._idle.is_set():
                return
            self._idle.clear()
        try:
            thread_pool.submit(self._write)
        except RuntimeError:  # the interpreter ends
            self._idle.set()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Wait until what was kept is written, but no longer than `seconds`."""
        self._idle.wait(seconds)

    def _write(self) -> None:
        while True:
            with self._lock:
                batch = [self._waiting.pop(row) for row in list(self._waiting)[:BATCH]]
                if not batch:
                    self._idle.set()
                    return
            try:
                self._write_batch(batch)
            except Exception as error:
                log.warning("answers are lost to the response cache: %s", describe(error))

    def _write_batch(self, batch: Sequence[_Waiting]) -> None:
        lifetime = timedelta(seconds=self._limits.seconds)
        rows = []
        for namespace, sealed, answer, at in batch:
            body = seal(sealed.key, answer)
            row = {"key": sealed.row, "namespace": namespace, "created_at": at, "expires_at": at + lifetime}
            rows.append(row | {"bytes": len(body), "body": body})
        rows.sort(key=lambda row: str(row["key"]))  # two writers in one order do not wait for each other
        with self._database.begin(write=self._database.is_sqlite) as connection:
            connection.execute(replacing(connection, cached_responses), rows)
        for namespace in {waiting.namespace for waiting in batch}:
            added = self._added.get(namespace, 0) + sum(waiting.namespace == namespace for waiting in batch)
            if added >= min(TRIM_EVERY, max(1, self._limits.entries // 10)):
                added = 0
                trim(self._database, namespace, self._limits)
            self._added[namespace] = added

    def _forked(self) -> None:
        """In a child process: what waits is the parent's."""
        self._waiting, self._idle = {}, threading.Event()
        self._idle.set()


def trim(database: Database, namespace: str, limits: Limits) -> int:
    """Remove a namespace's oldest answers beyond its limits; returns how many. Raises `StorageError`."""
    columns = cached_responses.c
    newest = columns.created_at.desc(), columns.key
    ranked = select(
        columns.key,
        func.row_number().over(order_by=newest).label("rank"),
        func.sum(columns.bytes).over(order_by=newest).label("total"),
    )
    ranked_rows = ranked.where(columns.namespace == namespace).subquery()
    beyond = or_(ranked_rows.c.rank > limits.entries, ranked_rows.c.total > limits.bytes)
    with database.begin() as connection:
        keys = connection.execute(select(ranked_rows.c.key).where(beyond)).scalars().all()
    for part in chunks(sorted(keys)):
        with database.begin(write=database.is_sqlite) as connection:
            connection.execute(delete(cached_responses).where(columns.key.in_(part)))
    return len(keys)


def clear(database: Database, namespace: str | None) -> int:
    """Remove all answers of a namespace, or (None) of all; returns how many. Raises `StorageError`."""
    conditions = [] if namespace is None else [cached_responses.c.namespace == namespace]
    with database.begin(write=database.is_sqlite) as connection:
        return connection.execute(delete(cached_responses).where(*conditions)).rowcount


def kept(database: Database) -> Mapping[str, tuple[int, int]]:
    """(answers, bytes) by namespace. Raises `StorageError`."""
    columns = cached_responses.c.namespace, func.count(), func.sum(cached_responses.c.bytes)
    with database.begin() as connection:
        rows = connection.execute(select(*columns).group_by(columns[0]).order_by(columns[0]))
        return {name: (count, int(size)) for name, count, size in rows}
