"""Votes and verdicts at a step of the log, by the rows that queries return, for `agentcascade tune`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

from agentcascade.actions.sql import canonical_sql, statement_of
from agentcascade.envs.intercode_sql import answers, shipped, tasks
from agentcascade.envs.intercode_sql.answers import FORMAT, LIBRARY, PREFIX, Answer
from agentcascade.envs.intercode_sql.results import Result, databases
from agentcascade.envs.recorded.models import split
from agentcascade.errors import InvalidAction


class Judge:
    """Says what the answers to one question vote for, and which of them are right.

    Args:
        task: id of the question.
        names: of the models that answered, whose recorded verdicts go before the database's.
        by_rows: votes are classes of equal rows, as the cascade joined them; else texts.
    """

    def __init__(self, task: int, names: Iterable[str], *, by_rows: bool = True) -> None:
        self._task, self._by_rows = task, by_rows
        self._known = _recorded(task, names)
        self._right: set[str] = set()
        self._wrong: set[str] = set()

    def vote(self, key: str | None, text: str) -> str | None:
        """What an answer votes for; None for what votes for nothing: no query, or one that fails.

        Args:
            key: of its action, by text.
            text: of its action; the key itself where that is all that is known.
        """
        result = None if key is None else self._result(key, statement_of(text))
        said = key if result is None or not self._by_rows else result.rows
        if said is not None and result is not None:
            (self._right if result.right else self._wrong).add(said)
        return said

    def gold(self, votes: Iterable[str | None], teacher: str | None) -> str:
        """The right answer that most samples gave, else the teacher's, else the gold query's.

        Several can be right, and a log has one gold key: the others count as wrong, as do rows that were right of one
        model and wrong of another (their order was left open). That never makes a rule look better than it is.
        """
        counted = Counter(vote for vote in votes if vote is not None)
        candidates = [key for key, _ in counted.most_common()] + ([] if teacher is None else [teacher])
        best = next((key for key in candidates if key in self._right - self._wrong), None)
        gold = best or self._gold()
        return gold if gold not in self._wrong else f"{gold}, in another order"

    def _result(self, key: str, statement: str) -> Result | None:
        """None where it cannot be told without the databases."""
        found = self._known.get(statement) or self._known.get(key)
        if found is not None:
            return Result(found.rows, found.right, found.error)
        return databases().run(self._task, statement) if tasks.has_data() else None

    def _gold(self) -> str:
        if not tasks.has_data():
            return shipped.GOLD
        if self._by_rows:
            return str(databases().gold(self._task).rows)
        return FORMAT.parse({"role": "assistant", "content": tasks.load_tasks()[self._task].gold}).key


def question_of(task: int) -> str:
    """The same for tasks that have one gold query: they are no independent evidence."""
    if not tasks.has_data():
        return f"question {shipped.rows()[task].group}"
    return f"question {first_asked()[tasks.gold_key(tasks.load_tasks()[task])]}"


@cache
def first_asked() -> dict[tuple[str, str], int]:
    """The first task by gold query."""
    found: dict[tuple[str, str], int] = {}
    for i, task in enumerate(tasks.load_tasks()):
        found.setdefault(tasks.gold_key(task), i)
    return found


def _recorded(task: int, names: Iterable[str]) -> dict[str, Answer]:
    """Recorded answers by statement and by key."""
    known: dict[str, Answer] = {}
    for name in names:
        if name.startswith(PREFIX):
            for answer in answers.answers(split(name, LIBRARY)[0], task).answers:
                statement = answers.statement(answer.text)
                known.setdefault(statement, answer)
                try:
                    known.setdefault(canonical_sql(statement, "mysql", True), answer)
                except InvalidAction:
                    continue
    return known
