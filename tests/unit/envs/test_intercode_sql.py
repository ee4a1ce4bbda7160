"""InterCode-SQL on a database of our own: what becomes of a dump, what queries may do, what they earn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.envs.intercode_sql import agent, runs, tasks
from agentcascade.envs.intercode_sql.dump import convert_dump
from agentcascade.envs.intercode_sql.environment import IntercodeSqlEnvironment
from agentcascade.envs.intercode_sql.readonly_database import ReadOnlyDatabase
from agentcascade.envs.intercode_sql.rewards import rows_reward
from agentcascade.errors import ConfigError, EnvironmentFailed
from agentcascade.types import Action, Message, Situation, Usage
from tests.intercode_data import DUMP, QUESTIONS, data_folder, recorded_run


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for function in (tasks.load_tasks, runs.recorded_runs):
        function.cache_clear()
    yield data_folder(tmp_path, monkeypatch)
    for function in (tasks.load_tasks, runs.recorded_runs):
        function.cache_clear()


@pytest.fixture
def zoo(tmp_path: Path) -> ReadOnlyDatabase:
    (tmp_path / "dump.sql").write_text(DUMP, encoding="utf-8")
    assert convert_dump(tmp_path / "dump.sql", tmp_path / "made") == ["zoo", "empty_one"]
    return ReadOnlyDatabase(tmp_path / "made" / "zoo.sqlite", seconds=0.3, rows=1000)


def test_a_dump_becomes_databases_with_what_mysql_says_of_them(zoo: ReadOnlyDatabase) -> None:
    import datetime

    assert zoo.run("SHOW TABLES;").rows == [("animal",)]
    assert zoo.run("show  tables like 'an%'").rows == [("animal",)]
    described = [
        ("ID", "int", "NO", "PRI", None, "auto_increment"),
        ("Name", "varchar(20)", "YES", "MUL", None, ""),
        ("Weight_(kg)", "double", "YES", "", "0", ""),
        ("Born", "date", "YES", "", None, ""),
    ]
    for statement in ("DESC animal", "describe `Animal`", "SHOW COLUMNS FROM zoo.animal", "SHOW FULL FIELDS IN animal"):
        assert zoo.run(statement).rows == described
    assert zoo.run("SELECT * FROM Animal").rows == [
        (1, "Leo", 190.0, datetime.date(2010, 5, 1)),
        (2, "O'Hara; the 'cat'", 4.0, datetime.date(2019, 1, 31)),
        (3, "leo", 5.5, None),
    ]
    assert zoo.run("SELECT id FROM animal WHERE name = 'LEO'").rows == [(1,), (3,)]  # MySQL's collations
    columns = zoo.run("SELECT COLUMN_NAME FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = 'Animal'")
    assert columns.rows == [(name,) for name, *_ in described]


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("SELECT `Weight_(kg)` / 2 FROM animal WHERE id = 1", [(95.0,)]),
        ('SELECT count(*) FROM animal WHERE name = "leo"', [(2,)]),
        ("SELECT YEAR(Born) FROM animal WHERE id = 1", [(2010,)]),
        ("SELECT name FROM animal WHERE name REGEXP '^o'", [("O'Hara; the 'cat'",)]),
        ("SELECT TIMESTAMPDIFF(YEAR, Born, '2020-01-30') FROM animal WHERE id < 3", [(9,), (0,)]),
        ("SELECT FORMAT(1234.5, 1)", [("1,234.5",)]),
        ("SELECT STR_TO_DATE('March5,2008', '%M%d,%Y') > '2008-03-04'", [(1,)]),
        ("WITH t AS (SELECT 1 AS a) SELECT a FROM t", [(1,)]),
        ("SELECT name FROM animal LIMIT 0", []),
    ],
)
def test_mysqls_queries_run(zoo: ReadOnlyDatabase, statement: str, rows: list[Any]) -> None:
    assert zoo.run(statement).rows == rows


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT a FROM nowhere", "Table 'zoo.nowhere' doesn't exist"),
        ("DESC nowhere", "Table 'zoo.nowhere' doesn't exist"),
        ("SELECT nme FROM animal", "Unknown column 'nme' in 'field list'"),
        ("SELECT FROM WHERE", "You have an error in your SQL syntax"),
        ("Which tables are there?", "You have an error in your SQL syntax"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("SELECT NOFUNC(name) FROM animal", "FUNCTION zoo.NOFUNC does not exist"),
        ("USE mysql", "Access denied"),
        ("SELECT * FROM agentcascade_columns", "read-only"),
        ("SELECT * FROM sqlite_master", "read-only"),
        ("SELECT load_extension('x')", "FUNCTION zoo.load_extension does not exist|not authorized|read-only"),
        ("", "SQL syntax"),
    ],
)
def test_what_cannot_run_is_told_in_mysqls_words(zoo: ReadOnlyDatabase, statement: str, said: str) -> None:
    import re

    answer = zoo.run(statement)
    assert answer.rows is None
    assert re.search(said, answer.error), answer.error
    assert answer.text.startswith("Error executing query: ")
    assert zoo.plan(statement) == answer.error


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE animal",
        "DELETE FROM animal",
        "UPDATE animal SET name = 'x'",
        "INSERT INTO animal (name) VALUES ('x')",
        "CREATE TABLE t (a int)",
        "ALTER TABLE animal ADD COLUMN x INT",
        "ATTACH DATABASE '/tmp/x' AS y",
        "PRAGMA query_only = 0",
        "TRUNCATE animal",
        "SET sql_mode = ''",
        "WITH x AS (SELECT 1) DELETE FROM animal",
        "EXPLAIN DELETE FROM animal",
    ],
)
def test_nothing_is_ever_written(zoo: ReadOnlyDatabase, statement: str) -> None:
    before = zoo.run("SELECT * FROM animal").rows
    assert zoo.run(statement).rows is None
    assert zoo.run("SELECT * FROM animal").rows == before


def test_a_query_that_would_never_end_ends(zoo: ReadOnlyDatabase) -> None:
    endless = "WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    assert "maximum statement execution time" in zoo.run(endless).error
    joined = "SELECT count(*) FROM " + ", ".join(f"animal a{i}" for i in range(25))
    assert "maximum statement execution time" in zoo.run(joined).error
    assert zoo.run("SELECT 1").rows == [(1,)]


def test_answers_are_bounded(zoo: ReadOnlyDatabase) -> None:
    many = "WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n LIMIT 1001) SELECT x FROM n"
    assert "more than 1,000 rows" in zoo.run(many).error
    answer = zoo.run("SELECT HEX(ZEROBLOB(900000))")
    assert answer.rows is None
    assert "max_allowed_packet" in answer.error


@pytest.mark.parametrize("text", ["", "CREATE DATABASE IF NOT EXISTS ;", "hello"])
def test_a_file_that_is_no_dump_is_an_error_that_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "dump.sql").write_text(text, encoding="utf-8")
    with pytest.raises(EnvironmentFailed, match="no MySQL dump"):
        convert_dump(tmp_path / "dump.sql", tmp_path / "made")


def test_a_dump_that_breaks_off_leaves_no_half_database(tmp_path: Path) -> None:
    (tmp_path / "dump.sql").write_text(DUMP.replace("'2010-05-01')", "'2010-05-01','more')"), encoding="utf-8")
    with pytest.raises(EnvironmentFailed, match="zoo cannot be converted"):
        convert_dump(tmp_path / "dump.sql", tmp_path / "made")
    assert not (tmp_path / "made" / "zoo.sqlite").exists()


rows = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), max_size=6)


@given(rows, rows)
def test_a_reward_is_one_for_the_same_rows_and_never_for_others(one: list[Any], other: list[Any]) -> None:
    assert rows_reward(one, one) == 1.0
    found = rows_reward(one, other)
    assert -1 <= found <= 1
    if sorted(one) != sorted(other):
        assert found < 1


def test_rewards_are_intercodes() -> None:
    """By hand: shared rows over all rows, times Kendall's τ of the shared ones, as InterCode's own tests have it."""
    assert rows_reward([], []) == 1.0
    assert rows_reward([(1,)], []) == 0.0
    assert rows_reward(None, [(1,)]) == 0.0
    assert rows_reward([(1,), (2,)], [(1,), (2,), (3,)]) == pytest.approx(round(2 / 3, 2))
    assert rows_reward([(1,), (1,)], [(1,)]) == 0.5
    assert rows_reward([(3,), (2,), (1,)], [(1,), (2,), (3,)]) == -1.0
    assert rows_reward([(1,), (3,), (2,)], [(1,), (2,), (3,)]) == pytest.approx(round(1 / 3, 2))
    assert rows_reward([(1, "a")], [(1, "a")]) == 1.0  # one row has no order
    assert not math.isnan(rows_reward([(1,), (1,)], [(1,), (1,)]))


async def test_a_task_is_played_and_judged_by_the_last_answer(data: Path) -> None:
    environment = IntercodeSqlEnvironment()
    said = iter(
        [
            "Thought: Look first.\nAction: execute[SHOW TABLES]",
            "Thought: Now.\nAction: execute[\nSELECT Name FROM Animal\nORDER BY id\n]",
            "Action: submit",
        ]
    )

    async def complete(messages: list[Message]) -> str:
        assert agent.goal(messages) == "Names by id?"
        return next(said)

    result = await agent.play(environment, "0", complete)
    assert result.success
    assert result.trace[0] == ("execute[SHOW TABLES]", "[('animal',)]")
    assert result.steps == 3

    async def stubborn(messages: list[Message]) -> str:
        return "I do not know"

    lost = await agent.play(environment, "1", stubborn)
    assert (lost.success, lost.steps) == (False, 10)
    assert all("SQL syntax" in observation for _, observation in lost.trace)
    for task in ("9", "-1", "x"):
        with pytest.raises(EnvironmentFailed, match="ids are 0 to 3"):
            environment.reset(task)


def test_samples_that_cannot_run_are_impossible_and_reading_ones_can_be_tried(data: Path) -> None:
    environment = IntercodeSqlEnvironment()
    environment.reset("0")
    nowhere = Situation(goal="")

    def act(text: str) -> Action:
        return Action(key=text, text=f"execute[{text}]")

    assert environment.impossible(act("SELECT name FROM animals"), nowhere) == "Table 'zoo.animals' doesn't exist"
    assert environment.impossible(act("SELECT name FROM animal"), nowhere) is None
    assert environment.impossible(Action(key="submit", text="submit"), nowhere) is None
    assert environment.dry_run(act("SELECT id FROM animal")) == environment.dry_run(act("SELECT a.ID FROM animal a"))
    assert environment.dry_run(act("SELECT idd FROM animal")) is None


def test_paraphrases_of_a_question_are_never_apart(data: Path) -> None:
    many = [tasks.SqlTask(db=f"d{i % 8}", query=str(i), gold=f"SELECT {i // 2}") for i in range(400)]
    for seed in range(5):
        found = tasks.split_tasks(many, seed)
        assert sorted(i for ids in found.values() for i in ids) == list(range(400))
        answers = {split: {(many[i].db, many[i].gold) for i in ids} for split, ids in found.items()}
        assert not answers["train"] & answers["test"]
        held = {many[i].db for i in found["unseen_databases"]}
        assert len(held) == 2
        assert held.isdisjoint({many[i].db for i in found["train"]})
    assert tasks.split_tasks(many, 1) == tasks.split_tasks(many, 1) != tasks.split_tasks(many, 2)
    together = next(ids for ids in tasks.split_tasks(tasks.load_tasks(), 0).values() if 1 in ids)
    assert 2 in together  # the same gold, written otherwise


class World:
    task = 0


async def test_a_recorded_run_is_played_from_wherever_it_is(data: Path) -> None:
    model = runs.RunModel("recorded/gpt-4", lambda text: len(text.split()), lambda usage: None)
    with pytest.raises(ConfigError, match="bench intercode-sql"):
        await model.complete([])
    model.bind(World())
    messages: list[Message] = [{"role": "user", "content": "q"}]
    said = []
    for _ in range(4):
        completion = await model.complete(messages, n=2)
        assert completion.messages[0] == completion.messages[1]
        said.append(str(completion.messages[0]["content"]))
        messages += [completion.messages[0], {"role": "user", "content": "o"}]
    assert said == [
        "Action: execute[SHOW TABLES]",
        f"Action: execute[{QUESTIONS[0]['gold']}]",
        "Action: submit",
        "Action: submit",
    ]
    assert completion.usage == Usage(input=completion.usage.input, output=4)
    other: Message = {"role": "assistant", "content": "Action: execute[SELECT 1]"}
    between = [messages[0], other, {"role": "user", "content": "o"}]
    assert (await model.complete(between)).messages[0]["content"] == said[0]
    student = runs.RunModel("recorded/gpt-3.5-turbo", lambda text: 1, lambda usage: None)
    student.bind(World())
    assert (await student.complete(messages[:1])).messages[0][
        "content"
    ] == "Thought: thought 0\nAction: execute[DESC animal]"
    World.task = 3
    try:
        with pytest.raises(EnvironmentFailed, match="no recorded run of task 3"):
            await model.complete(messages)
    finally:
        World.task = 0
    with pytest.raises(ConfigError, match="did you mean 'recorded/gpt-4'"):
        runs.RunModel("recorded/gpt4", lambda text: 1, lambda usage: None)


def test_a_run_of_another_question_is_found_out(data: Path) -> None:
    path = data / "ic_sql_react_10_turns.json"
    path.write_text(json.dumps({"0": recorded_run("Another question?", ["submit"])}), encoding="utf-8")
    with pytest.raises(EnvironmentFailed, match="run '0' is not of the question of task 0"):
        runs.recorded_runs("gpt-3.5-turbo")


def test_missing_data_say_where_to_get_them(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks.check_data()
    (data / "ic_spider_dev.json").write_text('[{"query": "no database"}]', encoding="utf-8")
    tasks.load_tasks.cache_clear()
    with pytest.raises(EnvironmentFailed, match=r"not InterCode's list of tasks: 0.db"):
        tasks.check_data()
    monkeypatch.setenv("INTERCODE_DATA", str(data / "nowhere"))
    with pytest.raises(EnvironmentFailed, match="holds neither"):
        tasks.data_file("dump")
    monkeypatch.delenv("INTERCODE_DATA")
    with pytest.raises(EnvironmentFailed, match="git clone"):
        tasks.data_file("dump")
