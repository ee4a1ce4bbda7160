"""SQL that means the same has one key; SQL that may not, has not."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.actions.formats import make_format
from agentcascade.actions.sql import canonical_sql, statement_of
from agentcascade.errors import ConfigError, InvalidAction

SAME = [
    ("SELECT a FROM t", "select A from `t` ;"),
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
    ("SELECT a FROM t", "SELECT a FROM T"),
    ("SELECT a FROM t WHERE b = 'Bob'", "SELECT a FROM t WHERE b = 'bob'"),
    ("SELECT a FROM t WHERE b = 'x  y'", "SELECT a FROM t WHERE b = 'x y'"),
    ("INSERT INTO t VALUES ('Bob')", "INSERT INTO t VALUES ('bob')"),
    ("DELETE FROM t WHERE a = 'x.'", "DELETE FROM t WHERE a = 'x'"),
    ("SHOW TABLES LIKE 'A%'", "SHOW TABLES LIKE 'a%'"),
    ("SELECT 1 /*! UNION SELECT 2 */", "SELECT 1"),
    ("SELECT 1--1", "SELECT 1"),
    ("SELECT (NOT a) = 0 FROM t", "SELECT NOT a = 0 FROM t"),
    ("SELECT `t.b` FROM t", "SELECT t.b FROM t"),
    ("SELECT `count(*)` FROM t", "SELECT COUNT(*) FROM t"),
    ("SELECT a FROM t LIMIT 5", "SELECT a FROM t LIMIT 6"),
    ("SELECT a FROM t LIMIT 5", "SELECT a FROM t LIMIT 5 OFFSET 1"),
    ("SELECT a FROM t ORDER BY a, b", "SELECT a FROM t ORDER BY b, a"),
    ("SELECT a FROM t WHERE a = b COLLATE utf8_bin", "SELECT a FROM t WHERE a = b"),
    ("SELECT a FROM t WHERE a LIKE 'x'", "SELECT a FROM t WHERE a LIKE BINARY 'x'"),
    ("SELECT a <=> b FROM t", "SELECT a = b FROM t"),
    ("SELECT a FROM t UNION SELECT b FROM u", "SELECT a FROM t UNION ALL SELECT b FROM u"),
    ("SELECT LOWER(n) AS name, COUNT(*) FROM t GROUP BY name", "SELECT LOWER(n), COUNT(*) FROM t GROUP BY LOWER(n)"),
    ("SELECT -a AS a FROM t ORDER BY a + 1", "SELECT -a FROM t ORDER BY -a + 1"),
    ("SELECT x.a FROM t x JOIN t y JOIN t1 ON x.i=y.i", "SELECT t1.a FROM t x JOIN t y JOIN t1 ON x.i=y.i"),
    (
        "SELECT (SELECT MAX(x.a) FROM (SELECT 1 AS a) AS x) FROM t AS x",
        "SELECT (SELECT MAX(t.a) FROM (SELECT 1 AS a) AS x) FROM t",
    ),
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


@pytest.mark.parametrize(
    ("dialect", "one", "other", "same"),
    [
        ("postgres", 'SELECT a FROM "T"', "SELECT a FROM T", False),
        ("postgres", "SELECT A FROM T", "SELECT a FROM t", True),
        ("postgres", 'SELECT "a" FROM t', "SELECT a FROM t", True),
        ("sqlite", 'SELECT A FROM "T"', "SELECT a FROM t", True),
        ("sqlite", 'SELECT a FROM t WHERE b = "Ann"', 'SELECT a FROM t WHERE b = "ann"', False),
        ("sqlite", 'SELECT a FROM t WHERE b = "Ann"', "SELECT a FROM t WHERE b = Ann", False),
        ("sqlite", 'SELECT a "X", b "Y" FROM t ORDER BY "X"', 'SELECT a "Y", b "X" FROM t ORDER BY "X"', False),
        ("sqlite", 'SELECT a "X", b "Y" FROM t ORDER BY "X"', "SELECT a x, b y FROM t ORDER BY x", True),
        ("postgres", "SELECT 1 FROM t WHERE a > b > c", "SELECT 1 FROM t WHERE c < b < a", False),
        ("mysql", "SELECT a = b = c FROM t", "SELECT c = a = b FROM t", False),
        ("mysql", "SELECT A FROM t", "SELECT a FROM t", True),
        ("snowflake", 'SELECT "a" FROM t', "SELECT a FROM t", False),
    ],
)
def test_case_of_names_is_what_the_dialect_makes_of_it(dialect: str, one: str, other: str, same: bool) -> None:
    assert (canonical_sql(one, dialect) == canonical_sql(other, dialect)) == same


def test_where_a_world_folds_names_their_case_is_nothing_and_that_of_texts_is_kept() -> None:
    formats = make_format("sql", fold=True)
    keys = [
        formats.parse({"role": "assistant", "content": f"Action: execute[{statement}]"}).key
        for statement in (
            "SELECT X.a FROM T AS X",
            "select a from `t`",
            "DESC T",
            "describe t",
            "SELECT 'A'",
            "SELECT 'a'",
        )
    ]
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert keys[4] != keys[5]


HOSTILE = [
    "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    "SELECT " + "((DATE " * 16 + "1" + ")" * 32,
    "SELECT * FROM " + "((SELECT a) LIMIT (" * 16 + "1" + ")" * 16,
    "SELECT * FROM t WHERE " + " OR ".join(f"a={k}" for k in range(20_000)),
    "SELECT " + "NOT " * 6000 + "1",
    "SELECT " + ",".join(f"c{k}" for k in range(3_000)) + " FROM t",
    "SELECT 1;" * 2_000,
    "'" * 9_999,
    "/*" * 9_000,
    "SELECT 9" + "9" * 5_000,
    "SELECT '\ud800'",
    "SELECT " + "CASE WHEN 1 THEN " * 200 + "1" + " ELSE 2 END" * 200,
    "DESC " + "`" * 5_000,
    "SELECT a FROM t\x00",
]


@pytest.mark.parametrize("statement", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_statement_is_read_within_its_advances_or_invalid(statement: str) -> None:
    """Some of these took from ten seconds to longer than anybody waited."""
    try:
        said = make_format("sql").parse({"role": "assistant", "content": statement}).key
    except InvalidAction as error:
        said = str(error)[:500]
    assert 0 < len(said.encode()) < 1_000 + len(statement)


def test_an_unknown_dialect_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="'myqsl' is no dialect"):
        canonical_sql("SELECT 1", "myqsl")


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


@given(query=queries())
def test_queries_of_one_key_give_one_answer(database: Any, query: str) -> None:
    """Also the key itself, as a query: normalising changes no meaning."""
    key = canonical_sql(query, "sqlite")
    rows = database.execute(query).fetchall()
    assert database.execute(key).fetchall() == rows
    first = seen.setdefault(key, (query, rows))
    assert first[1] == rows, (first[0], query)
    assert canonical_sql(key, "sqlite") == key
