"""Rate limits: requests of an API key in each minute, counted in the database by all replicas together."""

from __future__ import annotations

import time

from agentcascade.errors import RateLimited
from agentcascade.storage.database import Database
from agentcascade.storage.tables import rates
from agentcascade.storage.thread_pool import in_pool
from agentcascade.storage.upsert import upsert


class RateLimiter:
    """Counts the requests of a key in the present minute."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def allow(self, key: str, per_minute: int) -> None:
        """Count one request. Raises `RateLimited`, which is not counted, when the minute has had its share."""
        at = time.time()
        if not await in_pool(self._count, key, int(at // 60), per_minute):
            raise RateLimited(f"more than {per_minute} requests in a minute: wait for the next one", 60 - at % 60)

    def _count(self, key: str, minute: int, limit: int) -> bool:
        """Whether the request is within `limit`, and counted."""
        if limit < 1:
            return False
        with self._database.begin(write=self._database.is_sqlite) as connection:
            first = upsert(connection, rates).values(key=key, minute=minute, requests=1)
            counted = first.on_conflict_do_update(
                index_elements=["key", "minute"],
                set_={"requests": rates.c.requests + 1},
                where=rates.c.requests < limit,
            )
            return connection.execute(counted.returning(rates.c.requests)).first() is not None
