"""MySQL dialect over SQLite: statements are translated, and errors worded as MySQL's."""

from __future__ import annotations

import re
import sqlite3
from functools import lru_cache

from agentcascade.actions.sql import parsed, parser
from agentcascade.envs.intercode_sql.dump import COLUMNS
from agentcascade.errors import InvalidAction

SYNTAX = "You have an error in your SQL syntax"
DENIED = "command denied to user 'admin': this database is read-only"


class Rejected(Exception):
    """Error message that MySQL answers instead of rows."""


@lru_cache(maxsize=4096)
def translate(statement: str) -> str:
    """Translate one MySQL query to SQLite. Raises `Rejected` for what does not parse or is no single query."""
    sqlglot, exp = parser()
    failures = sqlglot.errors.SqlglotError, RecursionError, ValueError, AttributeError, TypeError
    try:
        trees, _ = parsed(statement, "mysql")
    except InvalidAction as error:
        raise Rejected(f"{SYNTAX}: {_first_line(error.__cause__ or error)}") from error
    if len(trees) != 1:
        raise Rejected(f"{SYNTAX}: one statement at a time")
    if isinstance(trees[0], exp.Command):  # what the parser does not know
        raise Rejected(f"{SYNTAX} near '{statement[:60]}'")
    if not isinstance(trees[0], exp.Query):
        raise Rejected(f"{trees[0].key.upper()} {DENIED}")
    for table in trees[0].find_all(exp.Table):
        if table.db.lower() == "information_schema":
            view = exp.to_table(f"{COLUMNS}_{table.name.lower()}")
            table.replace(exp.alias_(view, table.alias_or_name, table=True))
    for node in list(trees[0].find_all(exp.TimestampDiff)):
        unit = exp.Literal.string(node.text("unit"))
        node.replace(exp.Anonymous(this="TIMESTAMPDIFF", expressions=[unit, node.expression, node.this]))
    try:
        return str(trees[0].sql(dialect="sqlite"))
    except failures as error:
        raise Rejected(f"{SYNTAX}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()[0][:200] if str(error) else type(error).__name__


_KNOWN = (
    (re.compile(r"no such table: (?:main\.)?(.+)"), "Table '{db}.{0}' doesn't exist"),
    (re.compile(r"no such column: (.+)"), "Unknown column '{0}' in 'field list'"),
    (re.compile(r"ambiguous column name: (.+)"), "Column '{0}' in field list is ambiguous"),
    (re.compile(r"no such function: (.+)"), "FUNCTION {db}.{0} does not exist"),
    (re.compile(r"misuse of aggregate(?: function)?:? ?(.*)"), "Invalid use of group function"),
    (re.compile(r'near "(.*)": syntax error'), SYNTAX + " near '{0}'"),
    (re.compile(r"interrupted"), "Query execution was interrupted, maximum statement execution time exceeded"),
    (re.compile(r"not authorized|access to .* is prohibited|readonly database"), DENIED),
    (re.compile(r"string or blob too big"), "Result of a function was larger than max_allowed_packet"),
)


def mysql_message(error: sqlite3.Error, database: str) -> str:
    """MySQL's message for a SQLite error, where it has one."""
    text = str(error)
    for pattern, words in _KNOWN:
        if match := pattern.search(text):
            return words.format(*match.groups(), db=database)
    return text
