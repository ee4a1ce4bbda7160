"""Recorded answers to InterCode-SQL's questions: what ships, one's own files, verdicts, prompts, what is refused."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentcascade.assembly.components import make_model
from agentcascade.bench.suites.intercode_sql import IntercodeSqlSuite
from agentcascade.config.sections import ModelConfig
from agentcascade.envs.intercode_sql import answers, schema, shipped, tasks
from agentcascade.envs.intercode_sql.one_query import OneQueryEnvironment, play
from agentcascade.envs.intercode_sql.results import databases
from agentcascade.errors import AgentCascadeError, ConfigError, EnvironmentFailed, UnknownPrice
from agentcascade.models.tokens import count_messages, token_counter
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import Action, Completion, LoggedSample, Message, Situation
from tests.intercode_data import QUESTIONS, clear_caches, data_folder, recorded_run

PUBLISHED = {"gpt-4": 762, "gpt-3.5-turbo": 740, "gpt-3.5-turbo-retry": 703, "text-bison": 635, "chat-bison": 509}
"""Tasks that InterCode's files call solved, of 1,034"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """InterCode's data of our own zoo; `recorded/mine` has two answers to a task."""
    yield data_folder(tmp_path, monkeypatch)
    clear_caches()


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data but what ships."""
    monkeypatch.delenv("INTERCODE_DATA", raising=False)
    clear_caches()


def own(folder: Path, *rows: dict[str, Any], name: str = "mine") -> None:
    (folder / "answers").mkdir(exist_ok=True)
    lines = [json.dumps({"prompt_tokens": 50, **row}) for row in rows]
    (folder / "answers" / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    answers._own.cache_clear()


def said(*texts: str) -> list[dict[str, Any]]:
    return [{"text": text, "tokens": 7} for text in texts]


def model(name: str, world: OneQueryEnvironment, **settings: Any) -> Any:
    made = make_model(ModelConfig(name=f"recorded/{name}", **settings), token_counter())
    made.bind(world)  # type: ignore[attr-defined]
    return made


def ask(made: Any, n: int = 1) -> Completion:
    return asyncio.run(made.complete([{"role": "user", "content": "whatever"}], n=n))  # type: ignore[no-any-return]


def test_what_ships_has_the_published_verdicts_and_nobodys_texts(nothing: None) -> None:
    right = Counter[str]()
    for task in range(1034):
        for name in PUBLISHED:
            (answer,) = answers.answers(name, task).answers
            right[name] += answer.right
            assert (answer.rows is None) == bool(answer.error)
            assert answer.text.startswith("SELECT '"), "its result, not its query"
    assert right == PUBLISHED
    samples = answers.answers("qwen2.5-coder-1.5b", 0)
    assert len(samples.answers) == shipped.SAMPLES
    assert "poker_player" in samples.answers[0].text, "our own samples are whole"


def test_equal_results_are_one_vote_and_have_one_verdict_where_it_is_not_recorded(nothing: None) -> None:
    for task in range(0, 1034, 40):
        verdicts: dict[str, set[bool]] = {}
        for name in answers.SAMPLED:
            for answer in answers.answers(name, task).answers:
                if answer.rows is not None:
                    verdicts.setdefault(answer.rows, set()).add(answer.right)
        assert all(len(given) == 1 for given in verdicts.values())


def test_samples_are_drawn_without_replacement_and_a_plurality_shares_none(nothing: None) -> None:
    world = OneQueryEnvironment()
    student, teacher = model("qwen2.5-coder-1.5b", world), model("qwen2.5-coder-1.5b*7", world)
    world.reset("5")
    drawn = [message["content"] for n in (1, 2) for message in ask(student, n).messages]
    every = Counter(answer.text for answer in answers.answers("qwen2.5-coder-1.5b", 5).answers)
    assert not Counter(drawn) - every
    voted = ask(teacher)
    total = sum(answer.output_tokens or 0 for answer in answers.answers("qwen2.5-coder-1.5b", 5).answers)
    world.reset("5")
    assert [message["content"] for message in ask(student, 3).messages] == drawn, "the same whenever it is played"
    world.reset("5")
    assert voted.usage.output == total - ask(student, 3).usage.output
    with pytest.raises(ConfigError, match=r"10 recorded samples of a task, and 13 were asked for"):
        ask(student, 10)


def test_a_large_model_costs_what_it_read_and_wrote(nothing: None) -> None:
    world = OneQueryEnvironment()
    teacher, member = model("gpt-4", world), model("text-bison", world)
    world.reset("0")
    entry = shipped.rows()[0].models
    dear, cheap = ask(teacher), ask(member)
    assert dear.usage.input == entry["gpt-4"].input_tokens, "of all its turns"
    assert dear.usage.input > 4 * cheap.usage.input
    assert dear.dollars == (30 * dear.usage.input + 60 * dear.usage.output) / token_price()
    with pytest.raises(ConfigError, match="one recorded answer of a task, and 2 were asked for"):
        ask(teacher)
    priced = model("gpt-4", world, price={"input": "1", "output": "1"})
    world.reset("0")
    assert ask(priced).dollars == (dear.usage.input + dear.usage.output) / token_price()


def token_price() -> Any:
    from decimal import Decimal

    return Decimal(1_000_000)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("gpt4", ConfigError, "no recorded answers of 'gpt4': did you mean 'gpt-4'"),
        ("bison", ConfigError, "did you mean 'text-bison' or 'chat-bison'"),
        ("gpt-4*3", ConfigError, "only models with samples can vote with themselves: qwen2.5-coder-1.5b, "),
        ("qwen2.5-coder-0.5b*11", ConfigError, r"there are 10 samples of each task, so \*10 is the most"),
        ("mine", UnknownPrice, "recorded/mine has no price of its time"),
    ],
)
def test_models_that_cannot_play_are_refused(data: Path, name: str, error: type[Exception], says: str) -> None:
    own(data, {"task": 0, "samples": said("SELECT 1")})
    with pytest.raises(error, match=says):
        model(name, OneQueryEnvironment())


def test_turns_are_of_those_who_took_them() -> None:
    from agentcascade.envs.intercode_sql.environment import IntercodeSqlEnvironment

    made: Any = make_model(ModelConfig(name="recorded/text-bison"), token_counter())
    with pytest.raises(ConfigError, match="no recorded runs of 'recorded/text-bison'"):
        made.bind(IntercodeSqlEnvironment())
    with pytest.raises(ConfigError, match="only in `agentcascade bench intercode-sql`"):
        asyncio.run(make_model(ModelConfig(name="recorded/gpt-4"), token_counter()).complete([]))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"task": 4, "samples": said("x")}], r"mine.jsonl:1: an answer of 'mine' to task 4: ids are 0 to 3"),
        ([{"task": "0", "samples": said("x")}], r"mine.jsonl:1: an answer of 'mine' to task '0'"),
        ([{"task": 0, "samples": said("x")}] * 2, "mine.jsonl:2: 'mine' answers task 0 twice"),
        ([{"task": 0, "samples": []}], "'mine' has no answer to task 0: leave the row out"),
        ([{"task": 0, "samples": [{"text": None}]}], "mine.jsonl:1: not a row of answers: text is None"),
        ([{"task": 0, "samples": [{"text": "x", "tokens": -1}]}], "-1 is no count of tokens"),
        ([{"task": 0}], "not a row of answers: 'samples'"),
    ],
)  # fmt: skip
def test_a_file_of_ones_own_answers_is_refused_by_line(data: Path, rows: list[dict[str, Any]], says: str) -> None:
    own(data, *rows)
    with pytest.raises(EnvironmentFailed, match=says):
        answers.answers("mine", 0)


def test_a_name_that_is_taken_and_a_task_that_lacks_are_told(data: Path) -> None:
    own(
        data, {"task": 0, "samples": said("SELECT 1", "SELECT 2")}, {"task": 1, "samples": said("SELECT 1", "SELECT 2")}
    )
    assert answers.LIBRARY.sampled()["mine"] == 2
    with pytest.raises(EnvironmentFailed, match="no recorded answer of 'mine' to task 2"):
        answers.answers("mine", 2)
    own(data, {"task": 0, "samples": said("SELECT 1")}, name="gpt-4")
    with pytest.raises(ConfigError, match=r"gpt-4.jsonl: there are recorded answers of 'gpt-4' already"):
        answers.answers("mine", 0)


def test_an_answer_has_its_own_verdict_a_sample_that_of_the_same_rows(data: Path) -> None:
    names = "SELECT name FROM animal"
    wrong = ("gpt-3.5-turbo", "gpt-3.5-turbo-retry", "text-bison")
    for model_, right in (*((name, 0.0) for name in wrong), ("chat-bison", 1.0)):
        path = data / tasks.FILES[f"schema {model_}"][0]
        path.write_text(json.dumps({"0": recorded_run(QUESTIONS[0]["query"], [names], final=right)}), encoding="utf-8")
    own(data, {"task": 0, "samples": said("SELECT a.Name FROM Animal a", "SELECT ID FROM Animal", "SELECT nowhere")})
    assert [answers.answers(name, 0).answers[0].right for name in ("text-bison", "chat-bison")] == [False, True]
    same, other, broken = answers.answers("mine", 0).answers
    assert same.rows == answers.answers("chat-bison", 0).answers[0].rows
    assert not same.right, "most recorded verdicts on these rows, though our database would call them right"
    assert (other.right, broken.rows, broken.right) == (False, None, False)
    assert "Unknown column 'nowhere'" in broken.error


def test_the_prompt_holds_the_schema_and_a_row_of_each_table(data: Path) -> None:
    system, user = schema.messages(0)
    assert str(system["content"]).endswith(
        "Schema of `zoo`:\n"
        "CREATE TABLE Animal (ID INT, Name VARCHAR(20), Weight_(kg) DOUBLE, Born DATE, PRIMARY KEY (ID));\n"
        "-- e.g. (1, 'Leo', 190.0, '2010-05-01')"
    )
    assert user["content"] == "Your task is to: Names by id?\nThe MySQL database is `zoo`."
    assert str(schema.messages(3)[0]["content"]).endswith("CREATE TABLE nothing (x INT);"), "a table without rows"
    with pytest.raises(EnvironmentFailed, match="ids are 0 to 3"):
        schema.messages(4)
    read = answers._intercode("gpt-4")[0]
    assert read.prompt_tokens is not None
    assert read.prompt_tokens > count_messages([{"role": "system", "content": ""}, user], token_counter())


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("SELECT Name FROM Animal ORDER BY ID", True),
        ("```sql\nselect name from animal order by id;\n```", True),
        ("Action: execute[SELECT a.Name FROM Animal AS a ORDER BY a.ID]", True),
        ("SELECT Name FROM Animal ORDER BY ID DESC", False),
        ("DROP TABLE Animal", False),
        ("submit", False),
        ("I cannot tell", False),
        ("", False),
    ],
)
def test_a_live_answer_is_judged_by_the_database(data: Path, answer: str, right: bool) -> None:
    async def complete(messages: list[Message]) -> str:
        assert "CREATE TABLE Animal" in str(messages[0]["content"])
        return answer

    world = OneQueryEnvironment()
    assert asyncio.run(play(world, "0", complete)).success is right
    action = Action(key=answer, text=f"execute[{answers.statement(answer)}]")
    assert (world.impossible(action, Situation(goal="")) is None) == (world.dry_run(action) is not None)


def test_without_data_a_live_model_cannot_be_asked(nothing: None) -> None:
    world = OneQueryEnvironment()
    world.reset("3")
    with pytest.raises(EnvironmentFailed, match="git clone"):
        world.step("SELECT 1")
    with pytest.raises(EnvironmentFailed, match="ids are 0 to 1033"):
        world.reset("1034")
    with pytest.raises(EnvironmentFailed, match="no task is running"):
        OneQueryEnvironment().step("SELECT 1")


def logged(*samples: tuple[str, list[str]], teacher: str) -> LoggedStep:
    students = [
        StudentSamples(model=name, samples=tuple(LoggedSample(action=text.lower(), text=text) for text in texts))
        for name, texts in samples
    ]
    return LoggedStep(id="de_1", students=tuple(students), teacher=teacher, teacher_model="live/teacher")


def test_a_log_by_rows_joins_what_returns_the_same_and_knows_what_is_right(data: Path) -> None:
    good, alike, bad = "SELECT Name FROM Animal ORDER BY ID", "SELECT a.Name FROM Animal a ORDER BY a.ID", "SELECT 1"
    step = logged(("live/a", [good]), ("live/b", [alike, bad, "SELECT nowhere"]), teacher=bad)
    by_rows = IntercodeSqlSuite(schema=True).label(step, "all/0")
    (one,), (two, three, four) = ([s.action for s in student.samples] for student in by_rows.students)
    assert one == two == by_rows.gold != three == by_rows.teacher
    assert four is None
    by_text = IntercodeSqlSuite(schema=True, votes="text").label(step, "all/0")
    assert by_text.gold in (good.lower(), alike.lower())
    assert [s.action for s in by_text.students[1].samples] == [alike.lower(), bad.lower(), "select nowhere"]

    nobody = IntercodeSqlSuite(schema=True).label(logged(("live/a", [bad]), teacher=bad), "all/0")
    assert nobody.gold == str(databases().gold(0).rows), "the gold query's rows, where no answer is right"


def test_the_suite_says_what_it_plays(nothing: None) -> None:
    suite = IntercodeSqlSuite(schema=True)
    assert suite.actions["dry_run"]
    assert not IntercodeSqlSuite(schema=True, votes="text").actions["dry_run"]
    assert suite.price("recorded/gpt-4") == {"input": "30", "output": "60"}
    assert IntercodeSqlSuite().price("recorded/gpt-4") is None, "turn by turn at today's list price"
    suite.check()
    for other in (IntercodeSqlSuite(), IntercodeSqlSuite(schema=True, votes="text")):
        with pytest.raises(EnvironmentFailed, match="git clone"):
            other.check()
    with pytest.raises(AgentCascadeError, match="did you mean 'rows'"):
        IntercodeSqlSuite(schema=True, votes="row")
    found, _ = suite.tasks("all", 2000, 0, workers=1, on_progress=lambda done, of: None)
    assert sorted(int(task.path) for task in found) == list(range(1034))


def test_tasks_to_learn_from_are_known_as_such(data: Path) -> None:
    suite = IntercodeSqlSuite(schema=True)

    def ids(split: str) -> set[str]:
        return {task.id for task in suite.tasks(split, 99, 0, workers=1, on_progress=lambda done, of: None)[0]}

    assert ids("train")
    assert ids("train") < ids("all"), "so that a run which shows them refuses to play them"


def test_rows_that_were_right_of_one_model_and_wrong_of_another_are_no_gold(nothing: None) -> None:
    """The same rows here were in another order where they were judged."""
    names = ("gpt-3.5-turbo", "text-bison")
    both = [
        (task, rows)
        for task in range(1034)
        for one, other in [[answers.answers(name, task).answers[0] for name in names]]
        if (rows := one.rows) is not None and rows == other.rows and one.right != other.right
    ]
    assert both
    for task, rows in both:
        texts = [answers.answers(name, task).answers[0].text for name in names]
        step = logged(*((f"recorded/{name}", [text]) for name, text in zip(names, texts)), teacher="nothing")
        told = IntercodeSqlSuite(schema=True).label(step, f"all/{task}")
        assert {sample.action for student in told.students for sample in student.samples} == {rows}
        assert told.gold != rows
