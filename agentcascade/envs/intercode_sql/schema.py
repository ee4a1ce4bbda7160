"""The prompt that asks for one query: the schema of the database with a row of each table, and the question."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

from agentcascade.envs.intercode_sql import tasks
from agentcascade.envs.intercode_sql.dump import COLUMNS
from agentcascade.errors import EnvironmentFailed
from agentcascade.prompts.additions import Composed, Rendered
from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.prompts.quoting import neutral
from agentcascade.types import Message

LONGEST_VALUE = 40
"""Characters of a text in the row that is shown of a table"""
TEMPLATE = "intercode_sql_schema"


def messages(task: int) -> list[Message]:
    """The conversation that asks a task's question, for one statement as the answer. Raises `EnvironmentFailed`."""
    known = tasks.load_tasks()
    if not 0 <= task < len(known):
        raise EnvironmentFailed(f"there is no task '{task}': ids are 0 to {len(known) - 1}")
    asked = known[task]
    values = {"database": asked.db, "schema": describe_database(tasks.database_folder() / f"{asked.db}.sqlite")}
    system = Composed(
        {"role": "system", "content": ""}, TEMPLATES[TEMPLATE].render(**values), Rendered(TEMPLATE, values)
    )
    return [system, {"role": "user", "content": neutral(question(asked))}]


def question(asked: tasks.SqlTask) -> str:
    """A task as an agent is told it."""
    return f"Your task is to: {asked.query}\nThe MySQL database is `{asked.db}`."


@cache
def describe_database(path: Path) -> str:
    """`CREATE TABLE` of every table on a line of its own, each followed by its first row where it has one.

    Args:
        path: of a file of `dump.convert_dump`.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        names = database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> ? "
            "ORDER BY rowid",
            (COLUMNS,),
        ).fetchall()
        return "\n".join(_describe_table(database, name) for (name,) in names)


def _describe_table(database: sqlite3.Connection, name: str) -> str:
    columns = database.execute(f'PRAGMA table_info("{name}")').fetchall()
    text = ", ".join(f"{column[1]} {column[2].upper() or 'TEXT'}" for column in columns)
    if keys := [column[1] for column in columns if column[5]]:
        text += f", PRIMARY KEY ({', '.join(keys)})"
    row = database.execute(f'SELECT * FROM "{name}" LIMIT 1').fetchone()
    if row is None:
        return f"CREATE TABLE {name} ({text});"
    shown = ", ".join(repr(value[:LONGEST_VALUE] if isinstance(value, str) else value) for value in row)
    return f"CREATE TABLE {name} ({text});\n-- e.g. ({shown})"
