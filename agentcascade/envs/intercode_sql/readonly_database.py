"""Read-only database: SQLite queries with limits on time, rows and memory, answered as MySQL would."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from agentcascade._util.bounds import linear_pattern
from agentcascade.envs.intercode_sql import functions
from agentcascade.envs.intercode_sql.dialect import Rejected, mysql_message, translate
from agentcascade.envs.intercode_sql.dump import COLUMNS
from agentcascade.errors import EnvironmentFailed

Row = tuple[Any, ...]
LONGEST_VALUE = 1_000_000
"""Bytes of a value that a query makes"""
_STEPS = 2_000
"""Instructions of SQLite's machine between two checks of the deadline"""
_READS = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}


class QueryResult(NamedTuple):
    """Result of a statement: its rows, or an error."""

    rows: list[Row] | None
    error: str = ""

    @property
    def text(self) -> str:
        """Text of the result as InterCode shows it to an agent."""
        return f"Error executing query: {self.error}" if self.rows is None else str(self.rows)


class ReadOnlyDatabase:
    """Read-only SQLite file of `dump.convert_dump`. Not thread-safe. Raises `EnvironmentFailed` for another file."""

    def __init__(self, path: Path, *, seconds: float = 10.0, rows: int = 50_000) -> None:
        self.name = path.stem
        self._seconds = seconds
        self._rows = rows
        if not path.is_file():
            raise EnvironmentFailed(f"there is no database {path}: delete its folder to have it made again")
        self._deadline = 0.0
        self._database = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        self._database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
        self._database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self._tables = self._schema()
        functions.add_mysql_functions(self._database)
        self._database.set_authorizer(_only_reads)
        self._database.set_progress_handler(lambda: time.monotonic() > self._deadline, _STEPS)

    def _schema(self) -> dict[str, tuple[str, list[Row]]]:
        """Schema by lower-case table name: the name as it was created, and `DESCRIBE`'s rows."""
        try:
            rows = self._database.execute(f"SELECT * FROM {COLUMNS} ORDER BY rowid").fetchall()
        except sqlite3.Error as error:
            raise EnvironmentFailed(f"{self.name}: {error}: delete its folder to have it made again") from error
        tables: dict[str, tuple[str, list[Row]]] = {}
        for table, *column in rows:
            tables.setdefault(table.lower(), (table, []))[1].append(tuple(column))
        return tables

    @property
    def tables(self) -> dict[str, list[str]]:
        """Columns by table."""
        return {name: [row[0] for row in rows] for name, rows in self._tables.values()}

    def run(self, statement: str) -> QueryResult:
        """Run a query, `SHOW` or `DESCRIBE`; errors are part of the result."""
        statement = statement.strip().rstrip(";").strip()
        try:
            rows = self._answer_statement(statement)
            return QueryResult(self._query(translate(statement)) if rows is None else rows)
        except Rejected as error:
            return QueryResult(None, str(error))
        except sqlite3.Error as error:
            return QueryResult(None, mysql_message(error, self.name))
        except (OverflowError, MemoryError, UnicodeDecodeError) as error:
            return QueryResult(None, f"the result cannot be read: {type(error).__name__}")

    def plan(self, statement: str) -> str | None:
        """Why a query cannot run, by `EXPLAIN`, or None; `SHOW` and `DESCRIBE` always can."""
        statement = statement.strip().rstrip(";").strip()
        try:
            if self._answer_statement(statement) is None:
                self._query(f"EXPLAIN {translate(statement)}")
        except Rejected as error:
            return str(error)
        except sqlite3.Error as error:
            return mysql_message(error, self.name)
        return None

    def _query(self, sql: str) -> list[Row]:
        self._deadline = time.monotonic() + self._seconds
        cursor = self._database.execute(sql)
        rows = cursor.fetchmany(self._rows + 1)
        if len(rows) > self._rows:
            cursor.close()
            raise Rejected(f"more than {self._rows:,} rows: narrow the query down")
        return [tuple(_typed(value) for value in row) for row in rows]

    def _answer_statement(self, statement: str) -> list[Row] | None:
        """Rows of a `SHOW`, `DESCRIBE` or `USE` statement; None for a query."""
        for pattern, tell in _STATEMENTS:
            if match := pattern.fullmatch(statement):
                return tell(self, *match.groups())
        return None

    def _show_tables(self) -> list[Row]:
        return [(name,) for name in sorted(self._tables)]

    def _show_tables_like(self, pattern: str) -> list[Row]:
        wanted = linear_pattern(f"^{re.escape(pattern.lower()).replace('%', '.*').replace('_', '.')}$")
        return [(name,) for name in sorted(self._tables) if wanted is not None and wanted.search(name)]

    def _describe(self, name: str) -> list[Row]:
        _, _, bare = name.strip("`\"' ").rpartition(".")
        table = self._tables.get(bare.strip("`\"' ").lower())
        if table is None:
            raise Rejected(f"Table '{self.name}.{bare}' doesn't exist")
        return table[1]

    def _use(self, name: str) -> list[Row]:
        if name.strip("`\"' ").lower() != self.name.lower():
            raise Rejected(f"Access denied for user 'admin' to database '{name}'")
        return []

    def close(self) -> None:
        self._database.close()


def _only_reads(action: int, one: str | None, two: str | None, schema: str | None, view: str | None) -> int:
    hidden = one == COLUMNS and not (view or "").startswith(COLUMNS)
    if action == sqlite3.SQLITE_READ and (hidden or one in ("sqlite_master", "sqlite_schema")):
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and two == "load_extension":
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d)?")


def _typed(value: Any) -> Any:
    """Value with dates as MySQL's driver gives them; SQLite keeps them as text."""
    if isinstance(value, str) and (match := _MOMENT.fullmatch(value)):
        moment = functions.parse_datetime(value)
        return value if moment is None else moment if match[1] else moment.date()
    return value


def _says(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE)


_STATEMENTS: tuple[tuple[re.Pattern[str], Callable[..., list[Row]]], ...] = (
    (_says(r"SHOW(?: FULL)? TABLES(?: (?:FROM|IN) \S+)?"), ReadOnlyDatabase._show_tables),
    (_says(r"(?:DESCRIBE|DESC|SHOW(?: FULL)? (?:COLUMNS|FIELDS) (?:FROM|IN)) (\S+)"), ReadOnlyDatabase._describe),
    (_says(r"SHOW TABLES LIKE '([^']*)'"), ReadOnlyDatabase._show_tables_like),
    (_says(r"SHOW DATABASES"), lambda self: [(self.name,)]),
    (_says(r"USE (\S+)"), ReadOnlyDatabase._use),
)
