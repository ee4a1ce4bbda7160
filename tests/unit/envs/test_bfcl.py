"""BFCL's world: tasks of both editions, recorded answers, prices, policies, and files that are not as they should."""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.envs.bfcl import keys, policies, prices, recorded, tasks
from agentcascade.envs.bfcl.check import check
from agentcascade.envs.recorded.policies import Played, against, auroc, likeness
from agentcascade.errors import ConfigError, EnvironmentFailed, UnknownPrice
from tests.bfcl_rows import (
    ALL,
    POSSIBLE,
    QUESTIONS,
    RECORDED,
    RIGHT,
    STUDENTS,
    TEACHER,
    WEATHER,
    Write,
    answers,
    data_folder,
    forget,
    said,
)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    yield from data_folder(tmp_path, monkeypatch)


def test_tasks_of_both_editions_are_one_list(data: Callable[..., Path]) -> None:
    found = tasks.tasks()

    assert list(found) == ["simple_python_0", "simple_python_1", "irrelevance_0", "parallel_3"]
    assert found["simple_python_1"].messages == ({"role": "user", "content": "In Oslo?"},)
    assert tasks.task("simple_0") is found["simple_python_0"]
    assert tasks.possible_answers()["irrelevance_0"] == ()
    assert [e.values["city"] for e in tasks.possible_answers()["parallel_3"]] == [["Rome"], ["Oslo"]]


def test_functions_become_tools_that_providers_take(data: Callable[..., Path]) -> None:
    (tool,) = tasks.task("simple_python_0").tools
    properties = tool["function"]["parameters"]["properties"]

    assert tool["function"]["name"] == "weather_get"
    assert tool["function"]["parameters"]["type"] == "object"
    assert properties["limits"] == {
        "type": "array",
        "items": {"type": "number", "format": "float", "description": "This is a float type value."},
    }
    assert properties["share"]["description"] == "How much. This is a float type value."
    assert WEATHER["parameters"]["type"] == "dict", "the task's own function stays as it was"


def test_arguments_of_java_are_strings_that_say_their_type() -> None:
    function = {
        "name": "List.sort",
        "parameters": {"properties": {"by": {"type": "ArrayList", "items": {"type": "String"}}, "up": {"type": "any"}}},
    }
    properties = tasks.tool(function, "Java")["function"]["parameters"]["properties"]

    assert {p["type"] for p in properties.values()} == {"string"}
    assert "type ArrayList of Java" in properties["by"]["description"]
    assert "elements are of type String" in properties["by"]["description"]


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("questions", [*QUESTIONS, QUESTIONS[0]], r"questions.jsonl.xz:5: task 'simple_python_0' is there twice"),
        ("questions", ["{"], r"questions.jsonl.xz:1: not JSON"),
        ("questions", ["[1]"], r":1: a row is an object"),
        ("questions", [QUESTIONS[0] | {"function": {"name": "f"}}], r"functions of 'simple_python_0' are no list"),
        ("questions", [QUESTIONS[0] | {"question": []}], r"question of 'simple_python_0' is neither text"),
        ("questions", [QUESTIONS[0] | {"id": "simple_x"}], r":1: 'simple_x' is not an id such as simple_python_7"),
        (
            "questions",
            [QUESTIONS[0] | {"function": [WEATHER, WEATHER | {"name": "weather_get"}]}],
            r"two functions of 'simple_python_0' are called 'weather_get' without dots",
        ),
        ("possible_answers", [POSSIBLE[0] | {"id": "simple_7"}], r"'simple_python_7', which is no task: did you mean"),
        ("possible_answers", [POSSIBLE[0], POSSIBLE[0]], r":2: possible answers of 'simple_python_0' are there twice"),
        ("possible_answers", [POSSIBLE[0] | {"ground_truth": []}], r"ground_truth is no call and no list of calls"),
        (
            "answers",
            [RECORDED[0] | {"id": "simple_9"}],
            r"answers.jsonl.xz:1: .* to 'simple_python_9', which is no task",
        ),
        ("answers", [RECORDED[0], RECORDED[0]], r":2: '.*' answers 'simple_python_0' twice"),
        ("answers", [RECORDED[0] | {"right": None}], r":1: 'right' is None, not true or false"),
        ("answers", [RECORDED[0] | {"output_tokens": -1}], r":1: output_tokens is -1, not a count"),
        ("answers", [RECORDED[0] | {"input_tokens": True}], r":1: input_tokens is True, not a count"),
        ("answers", [RECORDED[0] | {"answer": None}], r":1: an answer is a text or a list, not None"),
        ("answers", [{"x": "y" * 1_000_001}], r":1: 1,000,000 characters in a row"),
    ],
)
def test_a_bad_row_is_refused_by_file_and_line(
    data: Callable[..., Path], name: str, rows: list[Any], message: str
) -> None:
    data(**{name: rows})

    with pytest.raises(EnvironmentFailed, match=message):
        tasks.possible_answers(), recorded.answers(TEACHER)


def test_files_that_are_not_there_or_no_xz_say_what_to_do(
    data: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data()
    (folder / "questions.jsonl.xz").write_bytes(b"\xfd7zXZ\x00 not really")
    with pytest.raises(EnvironmentFailed, match=r"questions.jsonl.xz cannot be read"):
        tasks.tasks()
    (folder / "questions.jsonl.xz").unlink()
    with pytest.raises(EnvironmentFailed, match=r"holds no questions.jsonl.xz .* agentcascade.envs.bfcl.gather --help"):
        tasks.tasks()
    monkeypatch.delenv("BFCL_DATA")
    with pytest.raises(
        EnvironmentFailed, match=r"the answers of BFCL's models are not here: get https://github.com/Huan"
    ):
        recorded.models()


def test_questions_and_possible_answers_ship_and_are_not_mixed_with_others(
    data: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data()
    assert len(tasks.tasks()) == 4
    (folder / "possible_answers.jsonl.xz").unlink()
    with pytest.raises(EnvironmentFailed, match="holds no possible_answers"):
        tasks.possible_answers()
    (folder / "questions.jsonl.xz").unlink()
    forget()
    assert (len(tasks.tasks()), len(tasks.possible_answers())) == (1390, 1390)
    assert set(recorded.models()) == {*STUDENTS, TEACHER}, "answers are the folder's own"


def test_an_unknown_model_or_task_is_refused_with_the_nearest(data: Callable[..., Path]) -> None:
    with pytest.raises(
        ConfigError, match=r"no recorded answers of 'gpt-4o-mini': did you mean 'gpt-4o-mini-2024-07-18-FC'"
    ):
        recorded.answers("recorded/gpt-4o-mini")
    with pytest.raises(ConfigError, match=r"did you mean 'qwen2.5-coder-0.5b'"):
        recorded.samples("qwen2.5-coder-0.5")
    with pytest.raises(EnvironmentFailed, match=r"there is no task 'simple_python_12'"):
        tasks.task("simple_python_12")
    data(answers=RECORDED[1:])
    with pytest.raises(EnvironmentFailed, match=r"has no recorded answer to 1 tasks, 'simple_python_0' the first"):
        recorded.matrix([STUDENTS[0], TEACHER])
    with pytest.raises(EnvironmentFailed, match=r"no recorded answer of 'gpt-4o-mini-2024-07-18-FC' to 'simple_0'"):
        recorded.answer(STUDENTS[0], "simple_0")


def test_our_check_gives_the_verdicts_of_the_fixture(data: Callable[..., Path]) -> None:
    for model in recorded.models():
        for id, answer in recorded.answers(model).items():
            assert check(answer.calls, tasks.possible_answers()[id]).right is answer.right


def test_verdicts_that_nobody_gave_where_no_function_fits_are_not_believed(data: Callable[..., Path]) -> None:
    calling = answers(TEACHER, ALL | {"relevance_0": said("Rome")}, RIGHT)
    data(answers=calling)
    found = recorded.answer(TEACHER, "relevance_0")
    assert (found.right, found.contradicted) == (False, True)

    data(
        questions=[*QUESTIONS, QUESTIONS[2] | {"id": "relevance_1"}],
        answers=[*calling, *answers(TEACHER, {"relevance_1": said("Rome")}, {"relevance_1": False})],
    )
    found = recorded.answer(TEACHER, "relevance_0")
    assert (found.right, found.contradicted) == (True, False), "a file that was judged keeps its verdicts"


def test_votes_are_the_canonical_calls_in_whatever_order_and_spelling(data: Callable[..., Path]) -> None:
    tools = tasks.task("parallel_3").tools
    one = recorded.answer(TEACHER, "parallel_3")
    other = one._replace(calls=tuple(call._replace(name="weather.get") for call in reversed(one.calls or ())))

    assert keys.key(one, tools) == keys.key(other, tools)
    assert keys.key(one._replace(calls=one.calls[:1] if one.calls else None), tools) != keys.key(one, tools)
    unknown = one._replace(calls=tuple(call._replace(name="nothing") for call in one.calls or ()))
    assert keys.key(unknown, tools) is None, "a call of no tool votes for nothing"
    text = one._replace(calls=None, text="no")
    assert keys.key(text, tools) != keys.key(text._replace(text="No!"), tools)
    assert keys.key(text, tools, declined_alike=True) == keys.key(text._replace(text="No!"), declined_alike=True)


def test_policies_count_every_call_that_was_made(data: Callable[..., Path]) -> None:
    ids = ["simple_python_0", "simple_python_1", "parallel_3"]
    table = policies.Table([*STUDENTS, TEACHER], ids)
    mini, nemo, teacher = (100 * 0.15 + 10 * 0.6) / 1e6, (50 * 0.3 + 10 * 0.3) / 1e6, (100 * 10 + 10 * 30) / 1e6
    found = table.committee(STUDENTS, 2, TEACHER)

    assert found.right.tolist() == [1, 1, 1]
    assert found.teacher.tolist() == [1, 1, 0], "they agree on the third alone"
    assert found.dollars == pytest.approx([mini + nemo + teacher, mini + nemo + teacher, mini + nemo])
    assert found.seconds == pytest.approx([1.5, 1.5, 1.0])
    assert table.mixed(STUDENTS[0], TEACHER, 0.5).right.tolist() == [1, 0.5, 1]
    oracle = table.oracle(STUDENTS[0], TEACHER)
    assert oracle.right.tolist() == [1, 1, 1]
    assert oracle.dollars == pytest.approx([mini, mini + teacher, mini])


def test_a_committee_stops_asking_when_the_verdict_is_known(data: Callable[..., Path]) -> None:
    third = answers("claude-3-haiku-20240307-FC", ALL, RIGHT, tokens=1000)
    data(answers=[*RECORDED, *third])
    members = (*STUDENTS, "claude-3-haiku-20240307-FC")
    table = policies.Table([*members, TEACHER], ["simple_python_1", "parallel_3"])
    asked, spared = table.committee(members, 2, TEACHER).dollars
    _, dearer = table.committee(members, 3, TEACHER).dollars

    assert asked == pytest.approx(sum(table[m].dollars[0] for m in members)), "one is outvoted, so the third decides"
    assert spared == pytest.approx(sum(table[m].dollars[1] for m in STUDENTS)), "two agree, so the third is not asked"
    assert dearer == pytest.approx(spared + table[members[2]].dollars[1])
    unanimous = table.committee(members, 3, TEACHER)
    assert unanimous.teacher[0] == 1
    assert unanimous.dollars[0] == pytest.approx(sum(table[m].dollars[0] for m in (*STUDENTS, TEACHER))), (
        "two differ, so three cannot agree"
    )


@pytest.mark.parametrize(("members", "need"), [((), 2), (STUDENTS[:1], 1), (STUDENTS, 1), (STUDENTS, 3)])
def test_a_committee_that_cannot_vote_is_refused(
    data: Callable[..., Path], members: tuple[str, ...], need: int
) -> None:
    table = policies.Table([*STUDENTS, TEACHER], ["simple_python_0"])

    with pytest.raises(ConfigError, match="at least two"):
        table.committee(members, need, TEACHER)
    with pytest.raises(ConfigError, match="a member is there twice"):
        table.committee((STUDENTS[0], STUDENTS[0]), 2, TEACHER)


def test_a_model_without_a_price_is_not_compared_in_dollars(data: Callable[..., Path]) -> None:
    data(answers=[*RECORDED, *answers("somebody-FC", ALL, RIGHT)])
    ids = ["simple_python_0"]
    table = policies.Table(["somebody-FC", TEACHER], ids)
    with pytest.raises(UnknownPrice, match="NAME=INPUT,OUTPUT"):
        against(table.alone("somebody-FC"), table.alone(TEACHER))

    table = policies.Table(["somebody-FC", TEACHER], ids, prices.table(["somebody=1,2"]))
    assert against(table.alone("somebody-FC"), table.alone(TEACHER)).per_thousand == pytest.approx(0.12)


def test_prices_name_their_source_and_the_users_go_first() -> None:
    assert all(price.source for price in prices.table().values())
    found = prices.price("recorded/mistral-large-2407-FC-Auto")
    assert found is not None
    assert (found.input, found.output) == (Decimal(3), Decimal(9))
    assert found.dollars(1_000_000, 2_000_000) == 21
    assert prices.price("somebody") is None
    own = prices.table(["mistral-large-2407=2,6"])
    assert prices.price("mistral-large-2407-FC-Auto", own) == (Decimal(2), Decimal(6), "given by the user")


@pytest.mark.parametrize("text", ["", "x", "x=", "x=1", "x=1,2,3", "x=-1,2", "x=nan,1", "x=inf,1", "=1,2", "x=1,1e99"])
def test_a_price_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write NAME=INPUT,OUTPUT in dollars per million tokens"):
        prices.table([text])


def test_bootstrap_is_paired() -> None:
    right = np.array([1.0, 0.0] * 50)
    cost = np.linspace(1, 2, 100)
    one = Played(right, cost, cost, cost)
    found = against(one._replace(dollars=cost / 2), one)

    assert found.difference_interval == (0, 0)
    assert found.ratio_interval == pytest.approx((0.5, 0.5))
    assert found.right_interval[0] < 0.5 < found.right_interval[1]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=30))
def test_auroc_is_the_chance_that_right_outscores_wrong(rows: list[tuple[int, bool]]) -> None:
    scores, right = np.array([float(s) for s, _ in rows]), np.array([float(r) for _, r in rows])
    pairs = [(a > b) + (a == b) / 2 for a, r in rows if r for b, q in rows if not q]
    found = auroc(scores, right)

    assert found == pytest.approx(np.mean(pairs)) if pairs else np.isnan(found)


def test_likeness_is_one_for_a_voter_and_itself_and_zero_beyond_chance_for_independent_ones() -> None:
    votes = list("aabbccdd")
    a = np.array([1.0, 1, 1, 1, 0, 0, 0, 0])
    b = np.array([1.0, 0, 1, 0, 1, 0, 1, 0])

    itself = likeness(a, a, votes, votes)
    assert (itself.kappa, itself.same_answer, itself.agree, itself.right_when_agreed) == (1, 1, 1, 0.5)
    assert itself.agreed_and_wrong == 0.5
    apart = likeness(a, b, votes, [None] * 8)
    assert (apart.kappa, apart.both_wrong, apart.by_chance, apart.agree) == (0, 0.25, 0.25, 0)


def test_official_files_are_gathered_with_the_verdicts_of_their_scores(tmp_path: Path) -> None:
    categories = ["simple", "java", "javascript", "multiple_function", "parallel_function", "relevance"]
    categories.append("parallel_multiple_function")
    gorilla, results = tmp_path / "gorilla", tmp_path / "day"
    for folder in (gorilla / "data" / "possible_answer", results / "result" / TEACHER, results / "score" / TEACHER):
        folder.mkdir(parents=True)

    def put(path: Path, *rows: dict[str, Any]) -> None:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    for name in categories:
        file = f"gorilla_openfunctions_v1_test_{name}"
        ids = [f"{name}_{i}" for i in range(2)]
        put(gorilla / "data" / f"{file}.json", *(QUESTIONS[0] | {"id": id} for id in ids))
        if name != "relevance":
            put(gorilla / "data" / "possible_answer" / f"{file}.json", *(POSSIBLE[0] | {"id": id} for id in ids))
        given = [{"id": id, "result": said("Rome"), "input_token_count": 7, "latency": 0.1} for id in ids]
        put(results / "result" / TEACHER / f"{file}_result.json", *given)
        wrong = {"id": 2, "valid": False, "error": []}
        put(results / "score" / TEACHER / f"{name}_score.json", {"accuracy": 0.5, "total_count": 2}, wrong)
    run = [sys.executable, "-m", "agentcascade.envs.bfcl.gather", "--gorilla", str(gorilla), "--results", str(results)]
    done = subprocess.run([*run, "--to", str(tmp_path / "to")], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["14 questions", "12 possible answers", "14 recorded answers"]
    with lzma.open(tmp_path / "to" / "answers.jsonl.xz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    assert [(r["id"], r["right"]) for r in rows if "java_" in r["id"]] == [
        ("simple_java_0", True),
        ("simple_java_1", False),
    ]
    refused = subprocess.run([*run, "--to", str(tmp_path), "--models", "gpt-5"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "holds no results of 'gpt-5': known: gpt-4-1106-preview-FC" in refused.stderr


def test_our_own_samples_are_read(data: Callable[..., Path]) -> None:
    found = recorded.samples("recorded/qwen2.5-coder-1.5b")
    strict = sum(bool(a.calls) for s in found.values() for a in s.answers)
    lenient = sum(bool(a.calls) for s in recorded.samples("qwen2.5-coder-1.5b", True).values() for a in s.answers)

    assert len(found) == 1390
    assert all(len(s.answers) == 10 and s.prompt_tokens > 0 for s in found.values())
    assert strict < lenient, "it often writes a call in a fence, where the engine's parser does not look"
    assert found["multiple_0"].answers[0].calls[0].name == "triangle_properties_get"  # type: ignore[index]


@pytest.mark.skipif("BFCL_DATA" not in os.environ, reason="BFCL_DATA names no folder with BFCL's data")
def test_the_official_verdicts_are_reproduced_on_the_real_answers() -> None:
    forget()
    try:
        known = tasks.possible_answers()
    except EnvironmentFailed as error:
        pytest.skip(str(error))
    models = [m for m in recorded.models() if m.startswith(("gpt-4-1106", "claude-3-haiku", "Salesforce_xLAM-7b"))]
    found = [
        check(a.calls, known[id], tasks.task(id).language, dots=a.dots).right is a.right
        for m in models
        for id, a in recorded.answers(m).items()
    ]
    forget()

    assert models
    assert np.mean(found) > 0.985, "0.986 where the questions are of a later edition than the verdicts"
