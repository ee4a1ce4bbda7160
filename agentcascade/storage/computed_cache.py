"""Cache of computed results in the database: vectors of lines, answers of models, by content.

A cache: while the database fails it knows nothing and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import select

from agentcascade.errors import StorageError
from agentcascade.storage.database import Database
from agentcascade.storage.tables import computed
from agentcascade.storage.trajectories import chunks
from agentcascade.storage.upsert import upsert
from agentcascade.types import now


class ComputedCache:
    """Values by kind and key. Thread-safe, shared by all processes on the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, kind: str, keys: Collection[str]) -> dict[str, bytes]:
        """Those that are known."""
        values: dict[str, bytes] = {}
        try:
            with self._database.begin() as connection:
                for part in chunks(sorted(keys)):
                    query = select(computed.c.key, computed.c.value)
                    rows = connection.execute(query.where(computed.c.kind == kind, computed.c.key.in_(part)))
                    values.update((row.key, row.value) for row in rows)
        except StorageError:
            return {}
        return values

    def put(self, kind: str, values: Mapping[str, bytes]) -> None:
        """Keep them; what is there stays as it is."""
        if not values:
            return
        rows = [{"kind": kind, "key": k, "value": v, "created_at": now()} for k, v in sorted(values.items())]
        try:
            with self._database.begin(write=self._database.is_sqlite) as connection:
                connection.execute(upsert(connection, computed).on_conflict_do_nothing(), rows)
        except StorageError:
            pass
