"""Search by pgvector in the bank's own PostgreSQL: one index for any number of processes, none of which holds a copy.

Each step's key is a row of a table, in half precision, which goes when its trajectory goes. A namespace is searched
exactly while it is small; one of more than `exact_below` steps gets an HNSW index (Malkov & Yashunin 2016) of its own.
What recall that leaves is measured by `PgvectorRetriever.recall`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import text

from agentcascade.errors import ConfigError, EmbeddingError, MissingExtra, StorageError
from agentcascade.retrievers.grouping import Hit, best_per_group, check_keys, check_rows

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agentcascade.protocols import Ids, Vectors
    from agentcascade.storage import Database

WIDEST = 4_000
"""Dimensions that pgvector's index takes in half precision"""
LARGEST = 65_504
"""Number that half precision holds"""
OVERFETCH = 24
"""Candidates per wanted group: steps of one trajectory share goal and plan, so they come in bunches."""
CANDIDATES = 200
"""What a search of an index keeps in view, and looks for at a time"""
ADDED_AT_ONCE = 500
LOOKED_AGAIN = 2.0
"""Seconds after which it is asked again whether a namespace has grown large, or has its index."""
BUILDING_MEMORY = "1GB"
"""For making an index: one that does not fit takes many times longer"""
SETUP_LOCK, BUILD_LOCK = 0x61676363, 0x61676364
"""PostgreSQL's advisory locks of whoever makes the tables, or an index."""
MARKS = "step_key_marks"


class PgvectorRetriever:
    """Keys in table ``step_keys_<space>``; `space` says which embedder and weights made them: others keep apart.

    Thread-safe. Raises `MissingExtra`, `ConfigError` for a bank that is not in PostgreSQL or keys that are too wide,
    and `StorageError` where the server lacks the extension.
    """

    shared = True

    def __init__(self, dimension: int, *, database: Database, space: str, exact_below: int = 4_000) -> None:
        try:
            from pgvector import HalfVector
        except ImportError as error:
            raise MissingExtra("pgvector", "pgvector", "retrieval.index 'pgvector'") from error
        if database.engine.dialect.name != "postgresql":
            raise ConfigError("retrieval.index 'pgvector' needs a bank in PostgreSQL: set bank.url to postgresql://…")
        if dimension > WIDEST:
            raise ConfigError(
                f"retrieval.index 'pgvector' takes keys of {WIDEST:,} dimensions at most, not {dimension:,}: set "
                "retrieval.embedder to a smaller model, or retrieval.index to faiss"
            )
        self.dimension, self._database, self._exact_below = dimension, database, exact_below
        self._half: Any = HalfVector
        name = hashlib.blake2b(f"{space} {dimension}".encode(), digest_size=6).hexdigest()
        self.table = f"step_keys_{name}"
        self._lock = threading.Lock()
        self._states: dict[str, tuple[str, float]] = {}
        self._building: threading.Thread | None = None
        self._set_up()

    def _set_up(self) -> None:
        with self._database.begin() as connection:
            if connection.execute(text("SELECT to_regclass(:name)"), {"name": self.table}).scalar():
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
                f"CREATE TABLE IF NOT EXISTS {self.table} (step bigint PRIMARY KEY, trajectory bigint NOT NULL "
                "REFERENCES trajectories (pk) ON DELETE CASCADE, part bigint NOT NULL, namespace varchar(200) NOT "
                # in line: a search that looks at every key would fetch each from elsewhere
                f"NULL, key halfvec({self.dimension}) STORAGE PLAIN NOT NULL)",
                f"CREATE INDEX IF NOT EXISTS {self.table}_pa ON {self.table} (part)",
                f"CREATE INDEX IF NOT EXISTS {self.table}_tr ON {self.table} (trajectory)",
            ):
                connection.execute(text(statement))

    @property
    def watermark(self) -> int:
        """The last trajectory that `reached` named."""
        with self._database.begin() as connection:
            query = text(f"SELECT watermark FROM {MARKS} WHERE name = :name")
            return int(connection.execute(query, {"name": self.table}).scalar() or 0)

    def reached(self, watermark: int) -> None:
        """Every trajectory up to this one is in the index."""
        with self._database.begin() as connection:
            insert = text(
                f"INSERT INTO {MARKS} AS m (name, watermark) VALUES (:name, :watermark) ON CONFLICT (name) DO UPDATE "
                "SET watermark = greatest(m.watermark, excluded.watermark)"
            )
            connection.execute(insert, {"name": self.table, "watermark": watermark})

    def add(self, namespace: str, rows: Ids, groups: Ids, keys: Vectors) -> None:
        """Rows that are there already stay as they are: several processes may add the same at once."""
        rows, groups, keys = check_rows(rows, groups, keys, self.dimension)
        if len(keys) and np.abs(keys).max() > LARGEST:
            raise EmbeddingError(f"a key holds {np.abs(keys).max():g}; half precision ends at {LARGEST:,}")
        insert = text(
            f"INSERT INTO {self.table} (step, trajectory, part, namespace, key) SELECT CAST(:step AS bigint), pk, "
            f"{_part(namespace)}, :namespace, CAST(:key AS halfvec) FROM trajectories WHERE pk = :trajectory FOR KEY "
            "SHARE ON CONFLICT DO NOTHING"
        )
        for start in range(0, len(rows), ADDED_AT_ONCE):
            part = slice(start, start + ADDED_AT_ONCE)
            values = [
                {"step": int(row), "trajectory": int(group), "namespace": namespace, "key": self._half(key)}
                for row, group, key in zip(rows[part], groups[part], keys[part])
            ]
            with self._database.begin() as connection:
                _register(connection)
                connection.execute(insert, values)

    def remove(self, namespace: str, groups: Collection[int]) -> None:
        """Keys go with their trajectories; those of trajectories that are still there are taken away here."""
        with self._database.begin() as connection:
            statement = text(f"DELETE FROM {self.table} WHERE namespace = :namespace AND trajectory = ANY(:groups)")
            connection.execute(statement, {"namespace": namespace, "groups": [int(g) for g in groups]})

    def search(self, namespace: str, key: Vectors, k: int, exclude: Collection[int] = ()) -> list[Hit]:
        """Asks the database: some milliseconds, in which the calling thread waits."""
        if k < 1:
            return []
        asked = self._asked(namespace, key, exclude)
        with self._database.reading() as connection:
            _prepare(connection)
            state = self._state(connection, namespace)
            wanted = OVERFETCH * k
            while state == "indexed":
                hits, found = self._near(connection, asked, k, wanted)
                if len(hits) == k:
                    return hits
                if found < wanted:  # the index's own limits, or everything that there is
                    break
                wanted *= 4
            hits = self._exact(connection, asked, k)
        if state == "large":
            self._build_behind(namespace)
        return hits

    def _asked(self, namespace: str, key: Vectors, exclude: Collection[int] = ()) -> dict[str, Any]:
        key = check_keys(np.asarray(key)[None], self.dimension)[0]
        own = {"part": _part(namespace), "namespace": namespace}
        return {**own, "key": self._half(key), "without": [int(g) for g in exclude]}

    def _state(self, connection: Connection, namespace: str) -> str:
        """``small``, ``large`` or, once it has its index, ``indexed``."""
        state, until = self._states.get(namespace, ("", 0.0))
        if time.monotonic() < until:
            return state
        if self._indexed(connection, namespace):
            state, until = "indexed", float("inf")
        else:
            few = f"SELECT count(*) FROM (SELECT 1 FROM {self.table} WHERE part = :part LIMIT :most) AS own"
            asked = {"part": _part(namespace), "most": self._exact_below + 1}
            size = int(connection.execute(text(few), asked).scalar() or 0)
            state, until = ("large" if size > self._exact_below else "small"), time.monotonic() + LOOKED_AGAIN
        self._states[namespace] = state, until
        return state

    def _near(self, connection: Connection, asked: dict[str, Any], k: int, wanted: int) -> tuple[list[Hit], int]:
        """The part's number is written out, so that the planner knows its index."""
        without = "AND trajectory <> ALL(CAST(:without AS bigint[])) " if asked["without"] else ""
        rows = connection.execute(
            text(
                f"SELECT step, trajectory, -(key <#> CAST(:key AS halfvec)) AS score FROM {self.table} "
                f"WHERE part = {asked['part']:d} AND namespace = :namespace {without}"
                f"ORDER BY key <#> CAST(:key AS halfvec) LIMIT {wanted:d}"
            ),
            asked,
        ).all()
        return _best(rows, k), len(rows)

    def _exact(self, connection: Connection, asked: dict[str, Any], k: int) -> list[Hit]:
        rows = connection.execute(
            text(
                f"WITH own AS MATERIALIZED (SELECT step, trajectory, -(key <#> CAST(:key AS halfvec)) AS score FROM "
                f"{self.table} WHERE part = :part AND namespace = :namespace "
                "AND trajectory <> ALL(CAST(:without AS bigint[]))), "
                "best AS (SELECT DISTINCT ON (trajectory) step, trajectory, score FROM own "
                "ORDER BY trajectory, score DESC, step) "
                "SELECT step, trajectory, score FROM best ORDER BY score DESC, step LIMIT :k"
            ),
            asked | {"k": k},
        )
        return [(int(step), int(trajectory), float(score)) for step, trajectory, score in rows]

    def recall(self, namespace: str, keys: Vectors, k: int = 6) -> float:
        """Share of the k best groups of an exact search that `search` finds, over queries `keys` (n, dimension)."""
        found = total = 0
        for key in check_keys(keys, self.dimension):
            with self._database.reading() as connection:
                _register(connection)
                exact = {group for _, group, _ in self._exact(connection, self._asked(namespace, key), k)}
            found += len(exact & {group for _, group, _ in self.search(namespace, key, k)})
            total += len(exact)
        return found / total if total else 1.0

    def settle(self) -> None:
        """Make every index that is due, or wait until another process has."""
        if (building := self._building) is not None:
            building.join()
        with self._database.reading() as connection:
            sizes = text(f"SELECT namespace FROM {self.table} GROUP BY namespace HAVING count(*) > :most")
            due = list(connection.execute(sizes, {"most": self._exact_below}).scalars())
            due = [namespace for namespace in due if not self._indexed(connection, namespace)]
        for namespace in due:
            self._build(namespace)

    def _build_behind(self, namespace: str) -> None:
        with self._lock:
            if self._building is None or not self._building.is_alive():
                self._building = threading.Thread(target=self._build, args=(namespace,), name="pgvector-index")
                self._building.start()

    def _build(self, namespace: str) -> None:
        """Make a namespace's index, without holding anybody up; one process does it, the others wait."""
        index, part = self._index(namespace), _part(namespace)
        with self._database.reading() as connection:
            # not a lock that waits: whoever makes an index waits for all statements that began before
            lock = {"kind": BUILD_LOCK, "part": part % 2**31}
            while not connection.execute(text("SELECT pg_try_advisory_lock(:kind, :part)"), lock).scalar():
                time.sleep(0.2)
            try:
                if not self._indexed(connection, namespace):
                    connection.execute(text(f"SET maintenance_work_mem = '{BUILDING_MEMORY}'"))
                    connection.execute(text("SET max_parallel_maintenance_workers = 0"))
                    connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {index}"))  # of one that was killed
                    connection.execute(
                        text(
                            f"CREATE INDEX CONCURRENTLY {index} ON {self.table} USING hnsw (key halfvec_ip_ops) "
                            f"WHERE part = {part:d}"
                        )
                    )
                    connection.execute(text(f"ANALYZE {self.table}"))
            finally:
                connection.execute(text("RESET maintenance_work_mem"))
                connection.execute(text("RESET max_parallel_maintenance_workers"))
                connection.execute(text("SELECT pg_advisory_unlock(:kind, :part)"), lock)
        self._states.pop(namespace, None)

    def _index(self, namespace: str) -> str:
        return f"{self.table}_{_part(namespace) % 2**64:016x}"

    def _indexed(self, connection: Connection, namespace: str) -> bool:
        query = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
        return bool(connection.execute(query, {"name": self._index(namespace)}).scalar())

    def __len__(self) -> int:
        with self._database.begin() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {self.table}")).scalar() or 0)


def _part(namespace: str) -> int:
    """A namespace as a number of 64 bits, which can stand in a statement."""
    digest = hashlib.blake2b(namespace.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _best(rows: Sequence[Any], k: int) -> list[Hit]:
    if not rows:
        return []
    steps, groups, scores = (np.array(column) for column in zip(*rows))
    return best_per_group(steps.astype(np.int64), groups.astype(np.int64), scores, k)


def _register(connection: Connection) -> None:
    """Teach a connection pgvector's types, once."""
    if "pgvector" not in connection.info:
        from pgvector.psycopg import register_vector

        register_vector(connection.connection.driver_connection)
        connection.info["pgvector"] = True


def _prepare(connection: Connection) -> None:
    """How far the searches of a connection go: it goes on in the index until enough is found."""
    _register(connection)
    if "hnsw" not in connection.info:
        for setting in (f"hnsw.ef_search = {CANDIDATES}", "hnsw.iterative_scan = relaxed_order"):
            connection.exec_driver_sql(f"SET {setting}")
        connection.info["hnsw"] = True
