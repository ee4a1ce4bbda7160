"""Make `data/results.jsonl.xz`, which ships, of InterCode's data and our own samples.

``python -m agentcascade.envs.intercode_sql.gather`` says on how many tasks the file is as the data in
$INTERCODE_DATA give it; with ``--write`` it writes the file.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Iterator
from typing import Any

from agentcascade.envs.intercode_sql import answers, tasks
from agentcascade.envs.intercode_sql.results import databases
from agentcascade.envs.intercode_sql.shipped import FILE
from agentcascade.envs.recorded.rows import read
from agentcascade.errors import EnvironmentFailed


def made() -> Iterator[dict[str, Any]]:
    """The file's lines, made of InterCode's data and our own samples. Raises `EnvironmentFailed`."""
    groups: dict[tuple[str, str], int] = {}
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
        group = groups.setdefault(tasks.gold_key(asked), task)
        yield {"task": task, "database": asked.db, "hardness": asked.hardness, "group": group, "models": models}


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
