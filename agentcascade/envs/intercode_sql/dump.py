"""Convert a MySQL dump to SQLite files, one a database, each with a table of MySQL's column descriptions.

Types keep their MySQL names, which SQLite reads as affinities; text compares without regard to case, as MySQL's default
collations do. Foreign keys are kept for `SHOW CREATE TABLE` alone: the dump's own data break some.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from agentcascade.errors import EnvironmentFailed

COLUMNS = "agentcascade_columns"
"""The table of what `DESCRIBE` answers; queries see it as two tables of `information_schema`."""
SCHEMA_VIEWS = {
    "columns": "SELECT owner AS TABLE_NAME, field AS COLUMN_NAME, type AS COLUMN_TYPE, type AS DATA_TYPE, nullable AS "
    "IS_NULLABLE, key AS COLUMN_KEY, value AS COLUMN_DEFAULT, extra AS EXTRA, '{name}' AS TABLE_SCHEMA",
    "tables": "SELECT DISTINCT lower(owner) AS TABLE_NAME, 'BASE TABLE' AS TABLE_TYPE, '{name}' AS TABLE_SCHEMA",
}
TEXTS = ("char", "varchar", "text")

_NAME = r"`([^`]+)`"
_COLUMN = re.compile(rf"^\s*{_NAME} (\w+(?:\([\d,]+\))?)(.*?),?$")
_KEY = re.compile(r"^\s*(PRIMARY KEY|UNIQUE KEY|KEY)[^(]*\((.*)\),?$")


class Column(NamedTuple):
    """Row of MySQL's `DESCRIBE`."""

    field: str
    type: str
    null: str
    key: str
    default: str | None
    extra: str


def convert_dump(dump: Path, folder: Path) -> list[str]:
    """Write `<database>.sqlite` for every database of `dump` into `folder`; returns their names.

    Files that are there stay. Raises `EnvironmentFailed` for a file that is no such dump.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        text = dump.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFailed(f"{dump} cannot be read as a MySQL dump: {error}") from error
    names = []
    for part in re.split(r"^CREATE DATABASE\s+IF NOT EXISTS ", text, flags=re.MULTILINE)[1:]:
        name = re.match(_NAME, part)
        if name is None:
            raise EnvironmentFailed(f"{dump} is no MySQL dump: a database without a name near {part[:60]!r}")
        names.append(name[1])
        path = folder / f"{name[1]}.sqlite"
        if not path.exists():
            _write(path, part, dump)
    if not names:
        raise EnvironmentFailed(f"{dump} is no MySQL dump: it has no CREATE DATABASE")
    return names


def _write(path: Path, dump: str, source: Path) -> None:
    """Write one database, whole or not at all."""
    temporary = path.with_suffix(".partial")
    temporary.unlink(missing_ok=True)
    with closing(sqlite3.connect(temporary)) as database:
        database.execute(f"CREATE TABLE {COLUMNS} (owner, field, type, nullable, key, value, extra)")
        try:
            for statement in statements(dump):
                if statement.startswith("CREATE TABLE"):
                    _create(database, statement)
                elif statement.startswith("INSERT INTO"):
                    database.execute(_literals(statement))
        except (sqlite3.Error, ValueError) as error:
            raise EnvironmentFailed(f"{source}: {path.stem} cannot be converted: {error}") from error
        for name, columns in SCHEMA_VIEWS.items():
            database.execute(f"CREATE VIEW {COLUMNS}_{name} AS {columns.format(name=path.stem)} FROM {COLUMNS}")
        database.commit()
    temporary.replace(path)


def statements(dump: str) -> Iterator[str]:
    """Statements of a dump, which end with a semicolon at the end of a line, without comments."""
    text = re.sub(r"^--.*$", "", dump, flags=re.MULTILINE)
    for part in re.split(r";[ \t]*\n", text):
        statement = re.sub(r"/\*!.*?\*/", "", part) if not part.lstrip().startswith("INSERT") else part
        if statement.strip():
            yield statement.strip()


def _create(database: sqlite3.Connection, statement: str) -> None:
    lines = statement.splitlines()
    table = re.match(rf"CREATE TABLE {_NAME}", lines[0])
    if table is None:
        raise ValueError(f"CREATE TABLE without a name: {lines[0]!r}")
    keys: dict[str, str] = {}
    primary: list[str] = []
    for line in lines[1:]:
        if key := _KEY.match(line):
            fields = re.findall(_NAME, key[2])
            if key[1] == "PRIMARY KEY":
                primary = fields
            kind = "PRI" if key[1] == "PRIMARY KEY" else "UNI" if key[1] == "UNIQUE KEY" and len(fields) == 1 else "MUL"
            for field in fields if kind == "PRI" else fields[:1]:
                keys.setdefault(field, kind)
    columns, rows = [], []
    for line in lines[1:]:
        column = _COLUMN.match(line)
        if column is None:
            continue
        field, kind, rest = column.groups()
        default = re.search(r"DEFAULT (?:'([^']*)'|(\w+))", rest)
        value = None if default is None or default[2] == "NULL" else default[1] if default[2] is None else default[2]
        extra = "auto_increment" if "AUTO_INCREMENT" in rest else ""
        null = "NO" if "NOT NULL" in rest else "YES"
        rows.append((table[1], *Column(field, kind, null, keys.get(field, ""), value, extra)))
        columns.append(f'"{field}" {kind}' + (" COLLATE NOCASE" if kind.split("(")[0] in TEXTS else ""))
    if primary:
        columns.append("PRIMARY KEY (" + ", ".join(f'"{f}"' for f in primary) + ")")
    database.execute(f'CREATE TABLE "{table[1]}" ({", ".join(columns)})')
    database.executemany(f"INSERT INTO {COLUMNS} VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "", "Z": "", "b": ""}


def _literals(statement: str) -> str:
    """Convert MySQL's backslash escapes within quotes to SQLite's."""

    def plain(match: re.Match[str]) -> str:
        inner = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), match[1].replace("''", "'"), flags=re.DOTALL)
        return "'" + inner.replace("'", "''") + "'"

    return re.sub(r"'((?:[^'\\]|\\.|'')*)'", plain, statement, flags=re.DOTALL)
