"""Functions that a model's SQL brings its own patterns and numbers to."""

from __future__ import annotations

import sqlite3

import pytest

from agentcascade.envs.intercode_sql import functions


@pytest.fixture
def database() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:")
    functions.add_mysql_functions(made)
    return made


def test_a_pattern_that_backtracks_takes_linear_time(database: sqlite3.Connection) -> None:
    """A query's deadline cannot stop it: it is looked at between rows, and in them all is Python's."""
    assert database.execute("SELECT ? REGEXP '^(a+)+$'", ("a" * 5_000 + "!",)).fetchone() == (0,)
    assert database.execute("SELECT 'Ann' REGEXP '^a.n$', NULL REGEXP 'a', 'x' REGEXP 'y|X'").fetchone() == (1, None, 1)


@pytest.mark.parametrize(
    "query", ["SELECT 'a' REGEXP '(?=a)a'", "SELECT 'a' REGEXP '('", "SELECT 'a' REGEXP 'a{9999}'"]
)
def test_a_pattern_that_cannot_be_matched_so_is_an_error_of_the_query(database: sqlite3.Connection, query: str) -> None:
    with pytest.raises(sqlite3.Error):
        database.execute(query).fetchone()


def test_digits_without_end_are_cut(database: sqlite3.Connection) -> None:
    (written,) = database.execute("SELECT NUMBER_TO_STR(1234.5, 1000000000)").fetchone()
    assert written.startswith("1,234.5")
    assert len(written) < 50
