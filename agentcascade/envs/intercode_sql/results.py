"""What queries return: classes of equal results, by which answers vote, and whether InterCode's reward is 1."""

from __future__ import annotations

from functools import cache, lru_cache
from hashlib import blake2b
from typing import NamedTuple

from agentcascade.envs.intercode_sql import tasks
from agentcascade.envs.intercode_sql.readonly_database import QueryResult, ReadOnlyDatabase
from agentcascade.envs.intercode_sql.rewards import rows_reward
from agentcascade.errors import EnvironmentFailed

SECONDS = 10.0


class Result(NamedTuple):
    """Of one query on one task's database."""

    rows: str | None
    """The same for queries that return the same rows in the same order; None for one that fails"""
    right: bool
    """Whether InterCode's reward is 1, in our databases"""
    error: str = ""


class Databases:
    """The databases of all tasks, opened when they are asked. Not thread-safe."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._open: dict[str, ReadOnlyDatabase] = {}
        self._gold: dict[int, QueryResult] = {}
        self._run = lru_cache(maxsize=20_000)(self._run_query)

    def run(self, task: int, statement: str) -> Result:
        """The result of a statement. Raises `EnvironmentFailed` for a task that is none."""
        return self._run(task, statement)

    def gold(self, task: int) -> Result:
        """The result of a task's gold query."""
        return self._run(task, self._asked(task).gold)

    def _run_query(self, task: int, statement: str) -> Result:
        asked = self._asked(task)
        database = self._database(asked.db)
        if task not in self._gold:
            self._gold[task] = database.run(asked.gold)
        found = database.run(statement)
        if found.rows is None:
            return Result(None, False, found.error)
        digest = blake2b(str(found.rows).encode(errors="surrogatepass"), digest_size=8).hexdigest()
        return Result(f"rows {digest}", rows_reward(found.rows, self._gold[task].rows) == 1.0)

    def _asked(self, task: int) -> tasks.SqlTask:
        known = tasks.load_tasks()
        if not 0 <= task < len(known):
            raise EnvironmentFailed(f"there is no task '{task}': ids are 0 to {len(known) - 1}")
        return known[task]

    def _database(self, name: str) -> ReadOnlyDatabase:
        if name not in self._open:
            self._open[name] = ReadOnlyDatabase(tasks.database_folder() / f"{name}.sqlite", seconds=self._seconds)
        return self._open[name]

    def close(self) -> None:
        for database in self._open.values():
            database.close()
        self._open.clear()


@cache
def databases() -> Databases:
    """Those of this process."""
    return Databases()
