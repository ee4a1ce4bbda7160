"""Tasks of InterCode-SQL (the 1,034 of Spider's development set), and their splits.

Nothing else is published to learn from, so we divide. Questions with one gold answer (Spider paraphrases most) stay
together, else a demonstration would give the answer away. A quarter of the databases is held out whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from agentcascade._util.files import cache_folder
from agentcascade.envs.intercode_sql.dump import convert_dump
from agentcascade.errors import EnvironmentFailed, did_you_mean
from agentcascade.types import Frozen

Split = Literal["train", "test", "unseen_databases"]
SPLITS: tuple[Split, ...] = ("train", "test", "unseen_databases")
FILES = {
    "tasks": ("ic_spider_dev.json", "data/sql/spider/ic_spider_dev.json"),
    "dump": ("ic_spider_dbs.sql", "data/sql/spider/ic_spider_dbs.sql"),
    "gpt-4": (
        "ic_sql_multiturn_gpt-4_10_turns.json",
        "data/results/sql/gpt-4/ic_sql_multiturn_gpt-4_10_turns.json",
    ),
    "gpt-3.5-turbo": ("ic_sql_react_10_turns.json", "data/results/sql/gpt-3.5/ic_sql_react_10_turns.json"),
    **{
        model: (file, f"data/results/sql/{folder}/{file}")
        for model, folder, file in (
            ("schema gpt-3.5-turbo", "gpt-3.5", "ic_sql_multiturn_gpt-3.5-1_turns_handicap.json"),
            ("schema gpt-3.5-turbo-retry", "gpt-3.5", "ic_sql_multiturn_gpt-3.5_10_turns_handicap.json"),
            ("schema text-bison", "text-bison-001", "ic_sql_multiturn_text-bison-001_10_turns_handicap.json"),
            ("schema chat-bison", "chat-bison-001", "ic_sql_multiturn_chat-bison-001_10_turns_handicap.json"),
        )
    },
}
"""Files of the repository princeton-nlp/intercode (MIT): their names in one folder, and in a checkout"""


class SqlTask(Frozen):
    """Task: a question about a database, and its gold query."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    db: str
    query: str
    gold: str
    hardness: str = ""


def data_folder() -> Path | None:
    """The folder of InterCode's data, where one is named."""
    folder = os.environ.get("INTERCODE_DATA")
    return Path(folder) if folder else None


def has_data() -> bool:
    return data_folder() is not None


def data_file(name: str) -> Path:
    """Path of one of `FILES` in $INTERCODE_DATA. Raises `EnvironmentFailed` that says how to get it."""
    folder = data_folder()
    if folder is None:
        raise EnvironmentFailed(
            "InterCode's data are not here: git clone https://github.com/princeton-nlp/intercode, and set "
            "INTERCODE_DATA to that folder"
        )
    for file in FILES[name]:
        if (folder / file).is_file():
            return folder / file
    raise EnvironmentFailed(f"INTERCODE_DATA is {folder}, which holds neither {' nor '.join(FILES[name])}")


@cache
def load_tasks() -> list[SqlTask]:
    """Load all tasks, in InterCode's order: a task's index is its id. Raises `EnvironmentFailed`."""
    return TypeAdapter(list[SqlTask]).validate_python(read_json(data_file("tasks")))


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `EnvironmentFailed`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EnvironmentFailed(f"{path} cannot be read: {error}") from error


def database_folder() -> Path:
    """Folder of the SQLite files, named by a digest of the dump, which is converted where it is missing."""
    dump = data_file("dump")
    with dump.open("rb") as file:
        folder = cache_folder("intercode_sql") / hashlib.file_digest(file, "sha256").hexdigest()[:16]
    if not (folder / "complete").exists():
        convert_dump(dump, folder)
        (folder / "complete").touch()
    return folder


def choose_tasks(split: str, count: int, seed: int) -> list[int]:
    """Choose ids of up to `count` tasks of a split, in an order drawn with the seed."""
    if split not in SPLITS:
        raise EnvironmentFailed(f"there is no split '{split}': {did_you_mean(split, SPLITS)}")
    ids = split_tasks(load_tasks(), seed)[split]
    random.Random(f"{split} {seed}").shuffle(ids)
    return ids[:count]


def split_tasks(tasks: Sequence[SqlTask], seed: int) -> dict[str, list[int]]:
    """Split task ids by a seed: whole databases are held out, and tasks with one gold answer stay together."""
    names = sorted({task.db for task in tasks})
    random.Random(seed).shuffle(names)
    unseen = set(names[: len(names) // 4])
    answers: dict[tuple[str, str], list[int]] = {}
    for i, task in enumerate(tasks):
        answers.setdefault(gold_key(task), []).append(i)
    groups = sorted(answers)
    random.Random(f"groups {seed}").shuffle(groups)
    ids_by_split: dict[str, list[int]] = {split: [] for split in SPLITS}
    for group in groups:
        ids = answers[group]
        smaller = "train" if len(ids_by_split["train"]) <= len(ids_by_split["test"]) else "test"
        ids_by_split["unseen_databases" if group[0] in unseen else smaller] += ids
    return ids_by_split


def gold_key(task: SqlTask) -> tuple[str, str]:
    """What tasks that ask for the same have in common: the database, and the gold query in any case."""
    return task.db, task.gold.strip().rstrip(";").strip().lower()


def check_data() -> None:
    """Check InterCode's data. Raises `EnvironmentFailed` where a file is missing or not what it should be."""
    try:
        known = load_tasks()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise EnvironmentFailed(
            f"{data_file('tasks')} is not InterCode's list of tasks: {where}: {first['msg']}"
        ) from error
    folder = database_folder()
    for name in {task.db for task in known}:
        if not (folder / f"{name}.sqlite").exists():
            raise EnvironmentFailed(f"database '{name}' of the tasks is not in {data_file('dump')}")
