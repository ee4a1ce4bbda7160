"""What ships of InterCode-SQL's recorded answers: classes of equal results, verdicts, token counts; nobody's texts.

`data/results.jsonl.xz` is made of InterCode's data by ``python -m agentcascade.envs.intercode_sql.gather``. A line is a
task: `task`, `database`, `hardness`, `group` (the first task with the same gold query), and by model `in` (tokens of
its prompt) and `answers`, for each its class of results (0: the gold query's; null: it failed), 1 where it is right
and, but for our own samples, its tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from agentcascade.envs.intercode_sql.results import Result
from agentcascade.envs.recorded.rows import read
from agentcascade.errors import EnvironmentFailed

FILE = Path(__file__).parent / "data" / "results.jsonl.xz"
SAMPLES = 10
"""That our own models gave to each task"""
GOLD = "result 0"
FAILED = "the query failed where it was recorded"


class Entry(NamedTuple):
    """What one model answered to one task: results and tokens, in order."""

    results: tuple[tuple[Result, int | None], ...]
    input_tokens: int | None


class Row(NamedTuple):
    database: str
    hardness: str
    group: int
    """The first task with the same gold query: Spider asks most in two ways"""
    models: dict[str, Entry]


@cache
def rows() -> dict[int, Row]:
    """All tasks by id. Raises `EnvironmentFailed` for a file that cannot be read."""
    found = {}
    for where, row in read(FILE):
        try:
            models = {
                name: Entry(tuple(_results(entry["answers"])), entry["in"]) for name, entry in row["models"].items()
            }
            found[int(row["task"])] = Row(row["database"], row["hardness"], row["group"], models)
        except (KeyError, TypeError, ValueError) as error:
            raise EnvironmentFailed(f"{where}: not a row of results: {error}") from error
    return found


def _results(answers: list[list[Any]]) -> Iterator[tuple[Result, int | None]]:
    for place, right, *counted in answers:
        rows = None if place is None else f"result {place}"
        yield Result(rows, bool(right), "" if rows else FAILED), counted[0] if counted else None
