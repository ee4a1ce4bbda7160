"""MySQL functions that SQLite lacks, as far as queries about the twenty databases use them."""

from __future__ import annotations

import datetime
import re
import sqlite3
from typing import Any

from agentcascade._util.bounds import linear_pattern

_FORMATS = {"%M": "%B", "%i": "%M", "%s": "%S", "%e": "%d", "%c": "%m", "%h": "%I", "%k": "%H", "%b": "%b", "%D": "%d"}


def add_mysql_functions(database: sqlite3.Connection) -> None:
    """Register the functions with a connection."""
    for name, arguments, function in (
        ("REGEXP", 2, _regexp),
        ("YEAR", 1, lambda value: _part(value, "year")),
        ("MONTH", 1, lambda value: _part(value, "month")),
        ("DAY", 1, lambda value: _part(value, "day")),
        ("TIMESTAMPDIFF", 3, _timestampdiff),
        ("STR_TO_DATE", 2, _str_to_date),
        ("NUMBER_TO_STR", 2, _number_to_str),
    ):
        database.create_function(name, arguments, function, deterministic=True)


def _regexp(pattern: Any, value: Any) -> Any:
    """`value REGEXP pattern`: found anywhere, in any case."""
    if pattern is None or value is None:
        return None
    compiled = linear_pattern(str(pattern), ignore_case=True)
    if compiled is None:
        raise ValueError("a regular expression that is too long, or with look-around or back references")
    return compiled.search(str(value)) is not None


def _number_to_str(value: Any, digits: Any) -> str | None:
    return None if value is None else f"{float(value):,.{min(max(int(digits), 0), 30)}f}"


def parse_datetime(value: Any) -> datetime.datetime | None:
    """Parse an ISO date or time; None where it is none."""
    try:
        return datetime.datetime.fromisoformat(str(value))
    except ValueError:
        return None


def _part(value: Any, name: str) -> int | None:
    parsed = parse_datetime(value)
    return None if parsed is None else int(getattr(parsed, name))


def _timestampdiff(unit: Any, start: Any, end: Any) -> int | None:
    one, other = parse_datetime(start), parse_datetime(end)
    if one is None or other is None:
        return None
    months = (other.year - one.year) * 12 + other.month - one.month
    months -= (other.day, other.time()) < (one.day, one.time())
    seconds = int((other - one).total_seconds())
    units = {"YEAR": months // 12, "MONTH": months, "DAY": seconds // 86400, "HOUR": seconds // 3600}
    return units.get(str(unit).upper(), seconds)


def _str_to_date(value: Any, pattern: Any) -> str | None:
    if value is None or pattern is None:
        return None
    translated = re.sub(r"%.", lambda match: _FORMATS.get(match[0], match[0]), str(pattern))
    try:
        return datetime.datetime.strptime(str(value)[:1_000], translated[:100]).isoformat(" ")
    except ValueError:
        return None
