"""The table of pgvector's keys in the bank's PostgreSQL: made where it is missing, an index for what grew large."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from sqlalchemy import text

from agentcascade._util import forking
from agentcascade.errors import StorageError
from agentcascade.storage.engine import POOLED
from agentcascade.storage.exclusive import hold

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agentcascade.storage import Database

RECHECK_SECONDS = 2.0
"""After which it is looked at again whether a namespace has grown large, or has its index."""
RESIZE_SECONDS = 60.0
"""After which it is looked at again how large a namespace with an index is."""
BUILDING_MEMORY = 1 << 30
"""Bytes for making an index, or what the server's maintenance_work_mem allows, if that is more: one that does not fit
takes many times longer."""
NODE_BYTES = 900
"""What a key takes beside itself while its index is made"""
SETUP_LOCK = 0x61676363
"""PostgreSQL's advisory lock of whoever makes the tables."""
MARKS = "step_key_marks"
OWN = "to_regclass(format('%I.%I', current_schema(), CAST(:name AS text)))"
"""What goes by a name in this bank's schema; others on the search path may have it, too."""

log = logging.getLogger("agentcascade")


class KeyTable:
    """Table ``step_keys_<space>`` and the mark up to which it is complete. Thread-safe.

    A namespace of more than `exact_below` steps gets an HNSW index. Raises `StorageError` where the server lacks the
    extension.
    """

    def __init__(self, database: Database, space: str, dimension: int, exact_below: int) -> None:
        self._database = database
        self.dimension = dimension
        self._exact_below = exact_below
        name = hashlib.blake2b(f"{space} {dimension}".encode(), digest_size=6).hexdigest()
        self.name = f"step_keys_{name}"
        self._lock = forking.lock()
        self._states: dict[str, tuple[str, float]] = {}
        self._sizes: dict[str, int] = {}
        self._added: set[str] = set()
        self._building: threading.Thread | None = None
        self._set_up()

    def _set_up(self) -> None:
        with self._database.begin() as connection:
            self._pooled = bool(connection.info.get(POOLED))
            if connection.execute(text(f"SELECT {OWN}"), {"name": self.name}).scalar():
                return
        try:
            with self._database.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SETUP_LOCK})
                connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        except StorageError as error:
            raise StorageError(
                f"the database has no pgvector ({error}): install the extension on its server and run CREATE EXTENSION "
                "vector as a superuser, or set retrieval.index to faiss"
            ) from error
        with self._database.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SETUP_LOCK})
            for statement in (
                f"CREATE TABLE IF NOT EXISTS {MARKS} (name varchar(40) PRIMARY KEY, watermark bigint NOT NULL)",
                f"CREATE TABLE IF NOT EXISTS {self.name} (step bigint PRIMARY KEY, trajectory bigint NOT NULL "
                "REFERENCES trajectories (pk) ON DELETE CASCADE, part bigint NOT NULL, namespace varchar(200) NOT "
                # in line: a search that looks at every key would fetch each from elsewhere
                f"NULL, key halfvec({self.dimension}) STORAGE PLAIN NOT NULL)",
                f"CREATE INDEX IF NOT EXISTS {self.name}_pa ON {self.name} (part)",
                f"CREATE INDEX IF NOT EXISTS {self.name}_tr ON {self.name} (trajectory)",
            ):
                connection.execute(text(statement))

    def asking(self) -> AbstractContextManager[Connection]:
        """A connection that keeps its settings: to itself, or behind a pooler for a transaction."""
        return self._database.begin() if self._pooled else self._database.reading()

    @property
    def watermark(self) -> int:
        """The last trajectory that `reached` named."""
        with self._database.begin() as connection:
            query = text(f"SELECT watermark FROM {MARKS} WHERE name = :name")
            return int(connection.execute(query, {"name": self.name}).scalar() or 0)

    def reached(self, watermark: int) -> None:
        """Every trajectory up to this one is in the index."""
        with self._database.begin() as connection:
            insert = text(
                f"INSERT INTO {MARKS} AS m (name, watermark) VALUES (:name, :watermark) ON CONFLICT (name) DO UPDATE "
                "SET watermark = greatest(m.watermark, excluded.watermark)"
            )
            connection.execute(insert, {"name": self.name, "watermark": watermark})

    def grows(self, namespace: str) -> None:
        """Something is added to the namespace: `settle` looks whether it needs an index."""
        self._added.add(namespace)

    def state(self, connection: Connection, namespace: str) -> str:
        """``small``, ``large`` or, once it has its index, ``indexed``."""
        state, until = self._states.get(namespace, ("", 0.0))
        if time.monotonic() < until:
            return state
        if self._indexed(connection, namespace):
            state, until = "indexed", time.monotonic() + RESIZE_SECONDS
        else:
            few = f"SELECT count(*) FROM (SELECT 1 FROM {self.name} WHERE part = :part LIMIT :most) AS own"
            parameters = {"part": part_of(namespace), "most": self._exact_below + 1}
            size = int(connection.execute(text(few), parameters).scalar() or 0)
            state, until = ("large" if size > self._exact_below else "small"), time.monotonic() + RECHECK_SECONDS
        self._states[namespace] = state, until
        return state

    def indexed_size(self, namespace: str) -> int:
        """About how many steps a namespace's index had when `state` looked."""
        return self._sizes.get(namespace, 0)

    def settle(self) -> None:
        """Make every index that is due for what was added here, or wait until another process has."""
        if (building := self._building) is not None:
            building.join()
        while self._added:
            namespace = self._added.pop()
            self._states.pop(namespace, None)
            with self._database.reading() as connection:
                state = self.state(connection, namespace)
            if state == "large":
                self._build(namespace)

    def build_behind(self, namespace: str) -> None:
        def build() -> None:
            try:
                self._build(namespace, waits=False)
            except StorageError as error:  # searches go on without it
                log.warning("pgvector: no index for namespace %r yet (%s)", namespace, error)

        with self._lock:
            if self._building is None or not self._building.is_alive():
                self._building = threading.Thread(target=build, name="pgvector-index")
                self._building.start()

    def _build(self, namespace: str, *, waits: bool = True) -> None:
        """Make a namespace's index without holding anybody up; where another process makes one, wait or leave it.

        One is made at a time in all of the table: of two that wait for each other's statements PostgreSQL ends one.
        """
        index, part = self._index(namespace), part_of(namespace)
        # not a lock that waits: whoever makes an index waits for all statements that began before
        while (release := hold(self._database, f"indexes of {self.name}")) is None:
            if not waits:
                time.sleep(RECHECK_SECONDS)  # not asked for again by the very next search
                return
            time.sleep(0.2)
        try:
            with self._database.reading() as connection:
                try:
                    if not self._indexed(connection, namespace):
                        self._make_room(connection, namespace)
                        connection.execute(text("SET max_parallel_maintenance_workers = 0"))
                        connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {index}"))  # of one that was killed
                        connection.execute(
                            text(
                                f"CREATE INDEX CONCURRENTLY {index} ON {self.name} USING hnsw (key halfvec_ip_ops) "
                                f"WHERE part = {part:d}"
                            )
                        )
                        connection.execute(text(f"ANALYZE {self.name}"))
                finally:
                    connection.execute(text("RESET maintenance_work_mem"))
                    connection.execute(text("RESET max_parallel_maintenance_workers"))
        finally:
            release()
        self._states.pop(namespace, None)

    def _make_room(self, connection: Connection, namespace: str) -> None:
        """Memory for making an index: as much as is needed, within what is allowed."""
        count = text(f"SELECT count(*) FROM {self.name} WHERE part = :part")
        size = int(connection.execute(count, {"part": part_of(namespace)}).scalar() or 0)
        allowed = text("SELECT pg_size_bytes(current_setting('maintenance_work_mem'))")
        most = max(BUILDING_MEMORY, int(connection.execute(allowed).scalar() or 0))
        needed = size * (2 * self.dimension + NODE_BYTES)
        if needed > most:
            log.warning(
                "pgvector: the index of namespace %r (%s steps) takes %.1f GB to make, and maintenance_work_mem allows "
                "%.1f: it takes many times longer so. ALTER ROLE … SET maintenance_work_mem = '%.0fGB' if the server "
                "has as much",
                *(namespace, f"{size:,}", needed / 1e9, most / 1e9, needed / 1e9 + 0.5),
            )
        kilobytes = min(max(needed, 64 << 20), most) >> 10
        connection.execute(text(f"SET maintenance_work_mem = {kilobytes:d}"))

    def _index(self, namespace: str) -> str:
        return f"{self.name}_{part_of(namespace) % 2**64:016x}"

    def _indexed(self, connection: Connection, namespace: str) -> bool:
        query = text(
            f"SELECT indisvalid, reltuples FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indexrelid = {OWN}"
        )
        valid, size = connection.execute(query, {"name": self._index(namespace)}).first() or (False, 0)
        self._sizes[namespace] = int(size)
        return bool(valid)


def part_of(namespace: str) -> int:
    """A namespace as a number of 64 bits, which can stand in a statement."""
    digest = hashlib.blake2b(namespace.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
