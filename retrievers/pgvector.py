"""Search by pgvector in the bank's own PostgreSQL: one index for any number of processes, none of which holds a copy.

Each step's key is a row of a table of its own, which goes when its trajectory goes. A namespace of more than
`exact_below` steps is searched by HNSW (Malkov & Yashunin 2016) over inner products in half precision, a smaller one
exactly. What recall the approximation leaves is measured by `PgvectorRetriever.recall`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import text

from agentcascade.errors import ConfigError, StorageError
from agentcascade.retrievers.grouping import Hit, best_per_group, check_keys, check_rows

if TYPE_CHECKING:
    from agentcascade.protocols import Ids, Vectors
    from agentcascade.storage import Database

WIDEST = 4_000
"""Dimensions that pgvector's index takes in half precision"""
OVERFETCH = 24
"""Candidates per wanted group: steps of one trajectory share goal and plan, so they come in bunches."""
ADDED_AT_ONCE = 500
SETUP_LOCK = 0x61676363
"""PostgreSQL's advisory lock of whoever makes the table."""


class PgvectorRetriever:
    """Keys in table ``step_keys_<space>``; `space` says which embedder and weights made them: others keep apart.

    Thread-safe. Raises `ConfigError` for a bank that is not in PostgreSQL or keys that are too wide, `StorageError`
    where the server lacks the extension and it cannot be made.
    """

    shared = True

    def __init__(self, dimension: int, *, database: Database, space: str, exact_below: int = 20_000) -> None:
        if database.engine.dialect.name != "postgresql":
            raise ConfigError("retrieval.index 'pgvector' needs a bank in PostgreSQL: set bank.url to postgresql://…")
        if dimension > WIDEST:
            raise ConfigError(
                f"retrieval.index 'pgvector' takes keys of {WIDEST:,} dimensions at most, not {dimension}"
            )
        self.dimension, self._database, self._exact_below = dimension, database, exact_below
        name = hashlib.blake2b(f"{space} {dimension}".encode(), digest_size=6).hexdigest()
        self.table = f"step_keys_{name}"
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
            connection.execute(
                text(
                    f"CREATE TABLE IF NOT EXISTS {self.table} (step bigint PRIMARY KEY, trajectory bigint NOT NULL "
                    f"REFERENCES trajectories (pk) ON DELETE CASCADE, namespace varchar(200) NOT NULL, "
                    f"key halfvec({self.dimension}) NOT NULL)"
                )
            )
            connection.execute(text(f"CREATE INDEX IF NOT EXISTS {self.table}_ns ON {self.table} (namespace)"))
            connection.execute(text(f"CREATE INDEX IF NOT EXISTS {self.table}_tr ON {self.table} (trajectory)"))
            connection.execute(
                text(f"CREATE INDEX IF NOT EXISTS {self.table}_key ON {self.table} USING hnsw (key halfvec_ip_ops)")
            )

    @property
    def watermark(self) -> int:
        """The last trajectory that is indexed; trajectories become visible in the order of their keys."""
        with self._database.begin() as connection:
            return int(connection.execute(text(f"SELECT coalesce(max(trajectory), 0) FROM {self.table}")).scalar() or 0)

    def add(self, namespace: str, rows: Ids, groups: Ids, keys: Vectors) -> None:
        """Rows that are there already stay as they are: several processes may add the same at once."""
        rows, groups, keys = check_rows(rows, groups, keys, self.dimension)
        insert = text(
            f"INSERT INTO {self.table} (step, trajectory, namespace, key) SELECT :step, pk, :namespace, "
            "cast(:key AS halfvec) FROM trajectories WHERE pk = :trajectory ON CONFLICT DO NOTHING"
        )
        for start in range(0, len(rows), ADDED_AT_ONCE):
            part = slice(start, start + ADDED_AT_ONCE)
            values = [
                {"step": int(row), "trajectory": int(group), "namespace": namespace, "key": _text(key)}
                for row, group, key in zip(rows[part], groups[part], keys[part])
            ]
            with self._database.begin() as connection:
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
        key = check_keys(np.asarray(key)[None], self.dimension)[0]
        asked = {"namespace": namespace, "key": _text(key), "without": [int(g) for g in exclude]}
        with self._database.begin() as connection:
            few = f"SELECT count(*) FROM (SELECT 1 FROM {self.table} WHERE namespace = :namespace LIMIT :most) AS own"
            size = int(connection.execute(text(few), asked | {"most": self._exact_below + 1}).scalar() or 0)
            if size > self._exact_below:
                wanted = OVERFETCH * k
                while wanted < size:
                    hits, found = self._near(connection, asked, k, wanted)
                    if len(hits) == k or found < wanted:
                        return hits
                    wanted *= 4
            return self._exact(connection, asked, k)

    def _near(self, connection: Any, asked: dict[str, Any], k: int, wanted: int) -> tuple[list[Hit], int]:
        for setting in (f"hnsw.ef_search = {min(1000, max(100, wanted))}", "hnsw.iterative_scan = strict_order"):
            connection.execute(text(f"SET LOCAL {setting}"))
        rows = connection.execute(
            text(
                f"SELECT step, trajectory, -(key <#> cast(:key AS halfvec)) AS score FROM {self.table} WHERE namespace "
                "= :namespace AND trajectory <> ALL(cast(:without AS bigint[])) ORDER BY key <#> cast(:key AS halfvec) "
                "LIMIT :wanted"
            ),
            asked | {"wanted": wanted},
        ).all()
        if not rows:
            return [], 0
        steps, groups, scores = (np.array(column) for column in zip(*rows))
        return best_per_group(steps.astype(np.int64), groups.astype(np.int64), scores, k), len(rows)

    def _exact(self, connection: Any, asked: dict[str, Any], k: int) -> list[Hit]:
        rows = connection.execute(
            text(
                f"WITH own AS MATERIALIZED (SELECT step, trajectory, -(key <#> cast(:key AS halfvec)) AS score "
                f"FROM {self.table} WHERE namespace = :namespace AND trajectory <> ALL(cast(:without AS bigint[]))), "
                "best AS (SELECT DISTINCT ON (trajectory) step, trajectory, score FROM own "
                "ORDER BY trajectory, score DESC, step) "
                "SELECT step, trajectory, score FROM best ORDER BY score DESC, step LIMIT :k"
            ),
            asked | {"k": k},
        )
        return [(int(step), int(trajectory), float(score)) for step, trajectory, score in rows]

    def recall(self, namespace: str, keys: Vectors, k: int) -> float:
        """Share of the k best groups of an exact search that `search` finds, over queries `keys` (n, dimension)."""
        found = total = 0
        for key in check_keys(keys, self.dimension):
            asked: dict[str, Any] = {"namespace": namespace, "key": _text(key), "without": []}
            with self._database.begin() as connection:
                exact = {group for _, group, _ in self._exact(connection, asked, k)}
            found += len(exact & {group for _, group, _ in self.search(namespace, key, k)})
            total += len(exact)
        return found / total if total else 1.0

    def settle(self) -> None:
        """Nothing is done in the background."""

    def __len__(self) -> int:
        with self._database.begin() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {self.table}")).scalar() or 0)


def _text(key: Vectors) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(map("{:.6g}".format, key.tolist())) + "]"
