"""SQL that means the same has one key; SQL that may not, has not."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.actions import make_format
from agentcascade.errors import InvalidAction
from agentcascade.sql_keys import canonical_sql, statement_of

SAME = [
    ("SELECT a FROM t", "select A from `T` ;"),
    ("SELECT t1.a FROM t AS t1", "SELECT a FROM t"),
    ("SELECT x.a, y.b FROM t x JOIN u y ON x.id=y.id", "SELECT t.a,u.b FROM t INNER JOIN u ON u.id = t.id"),
    ("SELECT COUNT(*) FROM t", "SELECT COUNT(1) AS n FROM t"),
    ("SELECT a FROM t WHERE x=1 AND y='b'", "SELECT a FROM t WHERE y='b' AND x = 1 -- why"),
    ("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a ASC"),
    (
        "SELECT a, COUNT(*) AS n FROM t GROUP BY a HAVING n > 1 ORDER BY n DESC",
        "SELECT a, COUNT(*) FROM t GROUP BY a HAVING COUNT(*) > 1 ORDER BY COUNT(*) DESC",
    ),
    ("SELECT a FROM t WHERE x <> 3", "select a from t where x != 3"),
    ("SELECT a FROM t WHERE 3 < x", "SELECT a FROM t WHERE x > 3"),
    ("DESC t", "DESCRIBE `t`"),
    ("SHOW COLUMNS FROM t", "describe t"),
    ("show  tables", "SHOW TABLES;"),
    ('SELECT a FROM `t` WHERE b = "x"', "SELECT a FROM t WHERE b = 'x'"),
    (
        "SELECT p.n FROM p JOIN q ON p.i=q.i WHERE p.a=1 OR q.b=2 OR p.c=3",
        "SELECT p.n FROM p JOIN q ON q.i=p.i WHERE q.b=2 OR p.c=3 OR p.a=1",
    ),
    (
        "SELECT x.a FROM t x WHERE x.b IN (SELECT x.c FROM u x)",
        "SELECT t.a FROM t WHERE t.b IN (SELECT u.c FROM u)",
    ),
    (
        "SELECT a FROM t x WHERE EXISTS (SELECT 1 FROM t y WHERE y.p=x.p)",
        "SELECT a FROM t p WHERE EXISTS (SELECT 1 FROM t q WHERE p.p=q.p)",
    ),
]
DIFFERENT = [
    ("SELECT a FROM t WHERE b='X'", "SELECT a FROM t WHERE b='x'"),
    ("SELECT a,b FROM t", "SELECT b,a FROM t"),
    ("SELECT a FROM t WHERE x>3", "SELECT a FROM t WHERE x>=3"),
    ("SELECT a FROM t WHERE x>y", "SELECT a FROM t WHERE y>x"),
    ("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a DESC"),
    ("SELECT a FROM t", "SELECT DISTINCT a FROM t"),
    ("SELECT a FROM t WHERE x=1 AND y=2 OR z=3", "SELECT a FROM t WHERE x=1 AND (y=2 OR z=3)"),
    ("SELECT COUNT(a) FROM t", "SELECT COUNT(*) FROM t"),
    ("SELECT COUNT(DISTINCT a) FROM t", "SELECT COUNT(a) FROM t"),
    ("SELECT t.a FROM t JOIN t u ON t.i=u.j", "SELECT u.a FROM t JOIN t u ON t.i=u.j"),
    ("SELECT a FROM t LEFT JOIN u ON t.i=u.i", "SELECT a FROM t JOIN u ON t.i=u.i"),
    ("SELECT a-b FROM t", "SELECT b-a FROM t"),
    ("SELECT (a-b)-c FROM t", "SELECT a-(b-c) FROM t"),
    (
        "SELECT a FROM t x WHERE EXISTS (SELECT 1 FROM t y WHERE y.p=x.p)",
        "SELECT a FROM t x WHERE EXISTS (SELECT 1 FROM t y WHERE y.p=y.p)",
    ),
    ("SELECT b.a FROM a AS b JOIN b AS a ON a.i=b.i", "SELECT a.a FROM a AS b JOIN b AS a ON a.i=b.i"),
    (
        "SELECT a AS n, b FROM t UNION SELECT a, b FROM u ORDER BY n",
        "SELECT a, b AS n FROM t UNION SELECT a,b FROM u ORDER BY n",
    ),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_is_only_written_otherwise_is_the_same(one: str, other: str) -> None:
    assert canonical_sql(one) == canonical_sql(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_may_give_other_rows_is_not(one: str, other: str) -> None:
    assert canonical_sql(one) != canonical_sql(other)


@pytest.mark.parametrize("statement", ["Which tables are there?", "SELECT FROM", "", ";", "(((" * 50])
def test_what_is_not_sql_votes_for_nothing(statement: str) -> None:
    with pytest.raises(InvalidAction):
        canonical_sql(statement)


@pytest.mark.parametrize(
    ("text", "key", "reasoning"),
    [
        ("Thought: I look.\nAction: execute[SHOW TABLES]", "show tables", "I look."),
        ("**Thought**: x\n**Action:** execute[SELECT a\nFROM t]", "SELECT a FROM t", "x"),
        ("Action: ```sql\nSELECT a FROM t;\n```", "SELECT a FROM t", ""),
        ("SELECT a FROM t", "SELECT a FROM t", ""),
        ("Thought: done\nAction: submit", "submit", "done"),
        ("Action 1: execute[SELECT 1]\nAction 2: Submit.", "submit", "Action 1: execute[SELECT 1]"),
    ],
)
def test_a_statement_is_found_in_what_a_model_says(text: str, key: str, reasoning: str) -> None:
    action = make_format("sql").parse({"role": "assistant", "content": text})
    assert (action.key, action.reasoning) == (key, reasoning)
    if key != "submit":
        assert canonical_sql(statement_of(action.text)) == key


columns, tables = st.sampled_from(["a", "b", "c"]), st.sampled_from(["t", "u"])
conditions = st.recursive(
    st.builds("{} {} {}".format, columns, st.sampled_from(["=", "<", ">", "<=", ">=", "<>"]), st.integers(0, 3)),
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["AND", "OR"]), inner),
    max_leaves=5,
)


@st.composite
def queries(draw: Any) -> str:
    table = draw(tables)
    alias = draw(st.sampled_from(["", "x", "t", "u"]))
    prefix = f"{alias}." if alias and draw(st.booleans()) else ""
    order = draw(st.sampled_from(["", " ORDER BY a", " ORDER BY b DESC, a", " ORDER BY a ASC, b, c"]))
    shown = draw(st.sampled_from(["a", "a, b", "a AS n", "COUNT(*)", "COUNT(1)", "DISTINCT b", "b - a AS a"]))
    where = draw(conditions)
    if draw(st.booleans()):
        other = draw(tables)
        inner = draw(conditions)
        where += f" AND {draw(columns)} IN (SELECT {draw(columns)} FROM {other} {draw(st.sampled_from(['', 'x', 'y']))}"
        where += f" WHERE {inner})"
    column = draw(columns)
    return f"SELECT {shown} FROM {table} {alias} WHERE {prefix}{column} >= 1 AND ({where}){order}"


@pytest.fixture(scope="module")
def database() -> Any:
    import random

    rng = random.Random(1)
    made = sqlite3.connect(":memory:")
    for table in "tu":
        made.execute(f"CREATE TABLE {table} (a int, b int, c int)")
        values = [(rng.randrange(4), rng.randrange(4), rng.randrange(4)) for _ in range(25)]
        made.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", values)
    return made


seen: dict[str, tuple[str, list[Any]]] = {}


@settings(max_examples=400, deadline=None)
@given(query=queries())
def test_queries_of_one_key_give_one_answer(database: Any, query: str) -> None:
    """Also the key itself, as a query: normalising changes no meaning."""
    key = canonical_sql(query, "sqlite")
    rows = database.execute(query).fetchall()
    assert database.execute(key).fetchall() == rows
    first = seen.setdefault(key, (query, rows))
    assert first[1] == rows, (first[0], query)
    assert canonical_sql(key, "sqlite") == key
