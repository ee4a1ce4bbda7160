"""Logs of steps as files: what goes in comes out, and what is wrong is named by line and field."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentcascade.errors import InvalidRequest
from agentcascade.models.pricing import Price, TokenRates
from agentcascade.steplog import jsonl, parquet
from agentcascade.steplog.files import read_log, write_log
from agentcascade.steplog.types import LoggedStep, StudentSamples, action_type
from agentcascade.types import LoggedSample, Usage

texts = st.text(st.characters(codec="utf-8"), max_size=12)
keys = st.none() | texts.filter(bool)
usages = st.none() | st.builds(
    Usage, input=st.integers(0, 9999), cached_input=st.integers(0, 99), output=st.integers(0, 99)
)
dollars = st.decimals(0, 100, places=4)
prices = st.none() | st.builds(
    Price,
    input=dollars,
    output=dollars,
    cached_input=st.none() | dollars,
    long_context=st.lists(
        st.tuples(st.integers(1, 9), st.builds(TokenRates, input=dollars, output=dollars)), max_size=1
    ).map(tuple),
)
samples = st.builds(
    LoggedSample,
    action=keys,
    text=texts,
    invalid=st.none() | texts,
    logprob=st.none() | st.floats(-9, 0),
    tokens=st.none() | st.integers(0, 99),
)
drawn = st.builds(
    StudentSamples,
    model=texts,
    samples=st.lists(samples, max_size=4).map(tuple),
    n=st.none() | st.integers(0, 9),
    temperature=st.none() | st.floats(0, 2),
    k=st.none() | st.integers(0, 9),
    demonstrations=st.lists(texts, max_size=2).map(tuple),
    prompt=usages,
    price=prices,
)
steps = st.builds(
    LoggedStep,
    id=texts.filter(bool),
    episode=texts,
    step=st.integers(0, 99),
    goal=texts,
    students=st.lists(drawn, max_size=2).map(tuple),
    teacher=keys,
    teacher_usage=usages,
    teacher_price=prices,
    gold=keys,
    success=st.none() | st.booleans(),
    propensity=st.floats(0.01, 1),
    created_at=st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@given(made=st.lists(steps, min_size=1, max_size=4, unique_by=lambda s: s.id))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_goes_in_comes_out(ending: str, tmp_path: Path, made: list[LoggedStep]) -> None:
    path = tmp_path / f"log.{ending}"
    assert write_log(path, made) == len(made)
    assert read_log(path) == made


def test_the_plain_form() -> None:
    line = {
        "id": 7, "gold": 18, "student": ["18", 18, 18.5, True, None, " x ", {"action": "y", "logprob": -0.5}],
        "teacher": "18", "question": "how many?", "episode": 3, "success": False,
    }  # fmt: skip
    step = jsonl.parse_line(line)
    assert [s.action for s in step.student.samples] == ["18", "18", "18.5", "true", None, "x", "y"]
    assert (step.id, step.gold, step.goal, step.episode, step.success) == ("7", "18", "how many?", "3", False)
    assert step.student.samples[-1].logprob == -0.5
    named = jsonl.parse_line({"id": 1, "student": {"small": ["a"], "large": ["b"]}, "teacher": "a"})
    assert [d.model for d in named.students] == ["small", "large"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "a step is an object"),
        ('{"id": 1, "teacher": "a"}', "field 'student' is missing"),
        ('{"student": ["a"], "teacher": "a"}', "field 'id' is missing"),
        ('{"id": 1, "student": ["a"]}', "neither teacher nor gold"),
        ('{"id": 1, "student": "a", "teacher": "a"}', "student is a list of answers, not str"),
        ('{"id": 1, "student": [["a"]], "teacher": "a"}', r"student\.0 is a list"),
        ('{"id": 1, "student": ["a"], "teachr": "a"}', "did you mean 'teacher'"),
        ('{"id": 1, "student": ["a"], "teacher": "a", "propensity": 0}', "propensity: "),
        ('{"id": 1, "student": [{"action": "a", "logprob": 1}], "teacher": "a"}', "logprob: "),
        ('{"id": "1", "students": [{"modell": "x"}]}', r"students\.0\.modell: "),
    ],
)
def test_a_bad_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"id": 0, "student": ["a"], "teacher": "a"}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match=rf"line 3: .*{message}"):
        read_log(path)


def test_ids_are_unique_and_a_log_is_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    line = json.dumps({"id": 5, "student": ["a"], "teacher": "a"})
    path.write_text(f"\ufeff{line}\n{line}\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="line 2: id '5' is in line 1 already"):
        read_log(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="holds no steps"):
        read_log(path)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_log(tmp_path / "none.jsonl")


def test_a_huge_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"id": 1, "student": ["a" * 5_000_000], "teacher": "a"}), encoding="utf-8")
    assert len(read_log(path)[0].student.samples[0].action or "") == 5_000_000


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_new_log_is_its_owners_alone_to_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"log.{ending}"
    before = os.umask(0)
    try:
        write_log(path, [])
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o640)
        write_log(path, [])
        assert path.stat().st_mode & 0o777 == 0o640, "a file that is there keeps its mode"
    finally:
        os.umask(before)


def test_a_foreign_or_broken_parquet_file_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(InvalidRequest, match="no log of steps"):
        read_log(path)
    write_log(path, [jsonl.parse_line({"id": i, "student": ["a"], "teacher": "a"}) for i in range(50)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InvalidRequest, match="cannot be read as a log"):
        read_log(path)


def test_columns_can_be_queried_by_others(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    price = Price(input=Decimal("0.4"), output=Decimal("1.6"))
    students = (StudentSamples(model="s", samples=(LoggedSample(action="a", tokens=4),), price=price),)
    write_log(tmp_path / "x.parquet", [LoggedStep(id="1", students=students, teacher="a")])
    (row,) = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert row["students"][0]["samples"][0]["tokens"] == 4
    assert row["students"][0]["price"]["input"] == Decimal("0.4")
    assert next(iter(parquet.iterate_parquet(tmp_path / "x.parquet")))[0].student.model == "s"


@pytest.mark.parametrize(
    ("key", "kind"),
    [("go to fridge 1", "go"), ('book({"a":1})', "book"), ('a({}); b({"x":"y z"})', "a"), ("answer:yes no", "answer"),
     ("", ""), (None, ""), ("   ", "")],
)  # fmt: skip
def test_types_of_actions(key: Any, kind: str) -> None:
    assert action_type(key) == kind
