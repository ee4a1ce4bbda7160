"""InterCode-SQL environment (Yang et al. 2023): queries to answer a question, of which the last result counts."""

from __future__ import annotations

from pathlib import Path

from agentcascade.actions.sql import SUBMIT, statement_of
from agentcascade.envs.intercode_sql import schema
from agentcascade.envs.intercode_sql.readonly_database import QueryResult, ReadOnlyDatabase
from agentcascade.envs.intercode_sql.rewards import rows_reward
from agentcascade.envs.intercode_sql.tasks import database_folder, load_tasks
from agentcascade.errors import EnvironmentFailed
from agentcascade.types import Action, Situation

MAX_TURNS = 10
MOST_ROWS, MOST_CHARACTERS = 25, 350
"""Of an observation, as in InterCode's ReAct runs"""


class IntercodeSqlEnvironment:
    """One task at a time, named by its id. Not thread-safe. Raises `EnvironmentFailed` for a task that is none."""

    def __init__(self, folder: Path | None = None, *, max_turns: int = MAX_TURNS, seconds: float = 10.0) -> None:
        self._folder = folder
        self._max_turns = max_turns
        self._seconds = seconds
        self._open: dict[str, ReadOnlyDatabase] = {}
        self._database: ReadOnlyDatabase | None = None
        self._last: QueryResult | None = None
        self._gold: QueryResult | None = None
        self._turns = 0
        self.task = -1
        """Id of the task that is played"""

    def reset(self, task: str) -> str:
        known = load_tasks()
        if not task.isdigit() or int(task) >= len(known):
            raise EnvironmentFailed(f"there is no task '{task}': ids are 0 to {len(known) - 1}")
        question = known[int(task)]
        self.task = int(task)
        self._turns = 0
        self._last = None
        self._folder = self._folder or database_folder()
        if question.db not in self._open:
            path = self._folder / f"{question.db}.sqlite"
            self._open[question.db] = ReadOnlyDatabase(path, seconds=self._seconds)
        self._database = self._open[question.db]
        self._gold = self._database.run(question.gold)
        return schema.question(question)

    def step(self, action: str) -> tuple[str, bool]:
        """Run a query (bare or in ``execute[…]``), or ``submit``; returns (visible result, done)."""
        if self._database is None:
            raise EnvironmentFailed("no task is running: call reset first")
        self._turns += 1
        statement = statement_of(action)
        if statement.lower() == SUBMIT:
            return visible_rows(self._last), True
        self._last = self._database.run(statement)
        return visible_rows(self._last), self._turns >= self._max_turns

    @property
    def reward(self) -> float:
        """InterCode's reward of the last result, from 0 to 1."""
        if self._last is None or self._gold is None:
            return 0.0
        return rows_reward(self._last.rows, self._gold.rows)

    @property
    def success(self) -> bool:
        return self.reward == 1.0

    def impossible(self, action: Action, situation: Situation) -> str | None:
        """Validator of samples: why a query cannot run here, by `EXPLAIN`, or None."""
        if self._database is None or action.key == SUBMIT:
            return None
        return self._database.plan(statement_of(action.text))

    def dry_run(self, action: Action) -> str | None:
        """Rows that an action would return; None where it is no query or fails."""
        if self._database is None or action.key == SUBMIT:
            return None
        answer = self._database.run(statement_of(action.text))
        return None if answer.rows is None else str(answer.rows)

    def close(self) -> None:
        for database in self._open.values():
            database.close()
        self._open.clear()
        self._database = None


def visible_rows(answer: QueryResult | None) -> str:
    """Part of a result that an agent sees."""
    if answer is None:
        return "No output"
    if answer.rows is None:
        return answer.text[:MOST_CHARACTERS]
    return str(answer.rows[:MOST_ROWS]) if answer.rows else "[]"
