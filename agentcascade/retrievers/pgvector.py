"""Search by pgvector in the bank's own PostgreSQL: one index for any number of processes, none of which holds a copy.

Each step's key is a row of a table, in half precision, which goes when its trajectory goes. A namespace is searched
exactly while it is small; one of more than `exact_below` steps gets an HNSW index (Malkov & Yashunin 2016) of its own.
What recall that leaves is measured by `PgvectorRetriever.recall`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import text

from agentcascade.errors import ConfigError, EmbeddingError, MissingExtra
from agentcascade.retrievers.grouping import Hit, best_per_group, check_keys, check_rows
from agentcascade.retrievers.pgvector_table import KeyTable, part_of
from agentcascade.storage.engine import POOLED

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agentcascade.protocols import IdArray, Vectors
    from agentcascade.storage import Database

WIDEST = 4_000
"""Dimensions that pgvector's index takes in half precision"""
LARGEST = 65_504
"""Number that half precision holds"""
OVERFETCH = 24
"""Candidates per wanted group: steps of one trajectory share goal and plan, so they come in bunches."""
CANDIDATES, MOST_CANDIDATES, STEPS_A_CANDIDATE = 200, 1000, 400
"""What a search of an index keeps in view: one in so many steps, or recall falls with the size of a namespace"""
ADDED_AT_ONCE = 500
_SETTINGS = text(
    "SELECT set_config('hnsw.ef_search', :most, :local), set_config('hnsw.iterative_scan', 'relaxed_order', :local)"
)


class PgvectorRetriever:
    """Keys in table ``step_keys_<space>``; `space` says which embedder and weights made them: others keep apart.

    Thread-safe. Raises `MissingExtra`, `ConfigError` for a bank that is not in PostgreSQL or keys that are too wide,
    and `StorageError` where the server lacks the extension.
    """

    shared = True

    def __init__(self, dimension: int, *, database: Database, space: str, exact_below: int = 4_000) -> None:
        if database.is_sqlite:
            raise ConfigError("retrieval.index 'pgvector' needs a bank in PostgreSQL: set bank.url to postgresql://…")
        if dimension > WIDEST:
            raise ConfigError(
                f"retrieval.index 'pgvector' takes keys of {WIDEST:,} dimensions at most, not {dimension:,}: set "
                "retrieval.embedder to a smaller model, or retrieval.index to faiss"
            )
        try:
            from pgvector import HalfVector
        except ImportError as error:
            raise MissingExtra("pgvector", "pgvector", "retrieval.index 'pgvector'") from error
        self.dimension = dimension
        self._database = database
        self._half: Any = HalfVector
        self._keys = KeyTable(database, space, dimension, exact_below)
        self.table = self._keys.name

    @property
    def watermark(self) -> int:
        return self._keys.watermark

    def reached(self, watermark: int) -> None:
        self._keys.reached(watermark)

    def add(self, namespace: str, rows: IdArray, groups: IdArray, keys: Vectors) -> None:
        """Rows that are there already stay as they are: several processes may add the same at once."""
        rows, groups, keys = check_rows(rows, groups, keys, self.dimension)
        if len(keys) and np.abs(keys).max() > LARGEST:
            raise EmbeddingError(f"a key holds {np.abs(keys).max():g}; half precision ends at {LARGEST:,}")
        insert = text(
            f"INSERT INTO {self.table} (step, trajectory, part, namespace, key) SELECT CAST(:step AS bigint), pk, "
            f"{part_of(namespace)}, :namespace, CAST(:key AS halfvec) FROM trajectories WHERE pk = :trajectory FOR KEY "
            "SHARE ON CONFLICT DO NOTHING"
        )
        self._keys.grows(namespace)
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
        parameters = self._parameters(namespace, key, exclude)
        with self._keys.asking() as connection:
            _register(connection)
            state = self._keys.state(connection, namespace)
            if state == "indexed":
                _prepare(connection, in_view(self._keys.indexed_size(namespace)))
            candidates = OVERFETCH * k
            while state == "indexed":
                hits, row_count = self._near(connection, parameters, k, candidates)
                if len(hits) == k:
                    return hits
                if row_count < candidates:  # the index's own limits, or everything that there is
                    break
                candidates *= 4
            hits = self._exact(connection, parameters, k)
        if state == "large":
            self._keys.build_behind(namespace)
        return hits

    def _parameters(self, namespace: str, key: Vectors, exclude: Collection[int] = ()) -> dict[str, Any]:
        key = check_keys(np.asarray(key)[None], self.dimension)[0]
        partition = {"part": part_of(namespace), "namespace": namespace}
        return {**partition, "key": self._half(key), "without": [int(g) for g in exclude]}

    def _near(
        self, connection: Connection, parameters: dict[str, Any], k: int, candidates: int
    ) -> tuple[list[Hit], int]:
        """The part's number is written out, so that the planner knows its index."""
        without = "AND trajectory <> ALL(CAST(:without AS bigint[])) " if parameters["without"] else ""
        rows = connection.execute(
            text(
                f"SELECT step, trajectory, -(key <#> CAST(:key AS halfvec)) AS score FROM {self.table} "
                f"WHERE part = {parameters['part']:d} AND namespace = :namespace {without}"
                f"ORDER BY key <#> CAST(:key AS halfvec) LIMIT {candidates:d}"
            ),
            parameters,
        ).all()
        return _best(rows, k), len(rows)

    def _exact(self, connection: Connection, parameters: dict[str, Any], k: int) -> list[Hit]:
        rows = connection.execute(
            text(
                f"WITH own AS MATERIALIZED (SELECT step, trajectory, -(key <#> CAST(:key AS halfvec)) AS score FROM "
                f"{self.table} WHERE part = :part AND namespace = :namespace "
                "AND trajectory <> ALL(CAST(:without AS bigint[]))), "
                "best AS (SELECT DISTINCT ON (trajectory) step, trajectory, score FROM own "
                "ORDER BY trajectory, score DESC, step) "
                "SELECT step, trajectory, score FROM best ORDER BY score DESC, step LIMIT :k"
            ),
            parameters | {"k": k},
        )
        return [(int(step), int(trajectory), float(score)) for step, trajectory, score in rows]

    def recall(self, namespace: str, keys: Vectors, k: int = 6) -> float:
        """Share of the k best groups of an exact search that `search` finds, over queries `keys` (n, dimension)."""
        hits_found = total = 0
        for key in check_keys(keys, self.dimension):
            with self._database.reading() as connection:
                _register(connection)
                exact = {group for _, group, _ in self._exact(connection, self._parameters(namespace, key), k)}
            hits_found += len(exact & {group for _, group, _ in self.search(namespace, key, k)})
            total += len(exact)
        return hits_found / total if total else 1.0

    def settle(self) -> None:
        """Make every index that is due for what was added here, or wait until another process has."""
        self._keys.settle()

    def __len__(self) -> int:
        with self._database.begin() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {self.table}")).scalar() or 0)


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


def in_view(size: int) -> int:
    """What a search of an index of so many steps keeps in view."""
    return max(CANDIDATES, min(MOST_CANDIDATES, size // STEPS_A_CANDIDATE))


def _prepare(connection: Connection, candidates: int) -> None:
    """How far the searches of a connection go: it goes on in the index until enough is found.

    Behind a pooler the setting is the transaction's, since the next one may be another session's.
    """
    pooled = bool(connection.info.get(POOLED))
    if pooled or connection.info.get("hnsw") != candidates:
        connection.execute(_SETTINGS, {"most": str(candidates), "local": pooled})
        connection.info["hnsw"] = candidates
