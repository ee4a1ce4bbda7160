"""What ships of InterCode-SQL's recorded answers: classes of equal results, verdicts, token counts; no text of anyone's.

`data/results.jsonl.xz` is made of InterCode's data by ``python -m agentcascade.envs.intercode_sql.shipped --write``;
without ``--write`` the command says where the file and the data differ. A line is a task: `task`, `database`, `hardness`,
and by model `in` (tokens of its prompt) and `answers`, for each its class of results (0: the gold query's; null: it
failed), 1 where it is right and, but for our own samples, its tokens.
"""

from __future__ import annotations

import argparse
import json
import lzma
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
            found[int(row["task"])] = Row(row["database"], row["hardness"], models)
        except (KeyError, TypeError, ValueError) as error:
            raise EnvironmentFailed(f"{where}: not a row of results: {error}") from error
    return found


def _results(answers: list[list[Any]]) -> Iterator[tuple[Result, int | None]]:
    for place, right, *counted in answers:
        rows = None if place is None else f"result {place}"
        yield Result(rows, bool(right), "" if rows else FAILED), counted[0] if counted else None


def made() -> Iterator[dict[str, Any]]:
    """The file's lines, made of InterCode's data and our own samples. Raises `EnvironmentFailed`."""
    from agentcascade.envs.intercode_sql import answers, tasks
    from agentcascade.envs.intercode_sql.results import databases

    names = [answers.TEACHER, *answers.ONE_ANSWER, *answers.SAMPLED]
    for task, asked in enumerate(tasks.load_tasks()):
        places: dict[str, int] = {str(databases().gold(task).rows): 0}
        models = {}
        for name in names:
            given = answers.answers(name, task)
            listed = []
            for answer in given.answers:
                rows = answer.rows
                place = None if rows is None else places.setdefault(rows, len(places))
                counted = [] if name in answers.SAMPLED else [answer.output_tokens]
                listed.append([place, int(answer.right), *counted])
            models[name] = {"in": given.input_tokens, "answers": listed}
        yield {"task": task, "database": asked.db, "hardness": asked.hardness, "models": models}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    try:
        lines = list(made())
        if given.write:
            FILE.parent.mkdir(exist_ok=True)
            with lzma.open(FILE, "wt", encoding="utf-8", preset=9 | lzma.PRESET_EXTREME) as file:
                file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
            print(f"wrote {len(lines):,} tasks to {FILE}")
            return
        differing = [line["task"] for line, (_, old) in zip(lines, read(FILE)) if line != old]
    except EnvironmentFailed as error:
        parser.exit(1, f"{error}\n")
    print(f"{len(lines) - len(differing):,} of {len(lines):,} tasks are as the data give them; not {differing[:10]}")


if __name__ == "__main__":
    main()
