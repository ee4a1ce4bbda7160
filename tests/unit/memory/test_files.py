"""Turns in files."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from agentcascade.errors import InvalidRequest
from agentcascade.memory.files import read_turns


def test_plain_lines_are_turns_called_by_file_and_number() -> None:
    turns = read_turns(["Rex is a dog.\n", "\n", "  It rained.  \n"], "said.txt")
    assert [(turn.id, turn.text) for turn in turns] == [("said.txt:1", "Rex is a dog."), ("said.txt:3", "It rained.")]
    assert all(turn.at is None and not turn.speaker for turn in turns)


def test_objects_keep_what_they_say_of_themselves() -> None:
    said = {"id": "a", "text": "Rex is a dog.", "speaker": "Ann", "session": "s", "at": "2023-05-08T13:56:00+02:00"}
    (turn,) = read_turns([json.dumps(said)], "said.jsonl")
    assert (turn.id, turn.speaker, turn.session) == ("a", "Ann", "s")
    assert turn.at == datetime(2023, 5, 8, 11, 56, tzinfo=UTC)


@pytest.mark.parametrize("at", ["8 May 2023", "1:56 pm on 8 May, 2023", "2023-05-08", "May 8th, 2023 9:00"])
def test_times_are_read_in_any_usual_form(at: str) -> None:
    problems: list[str] = []
    (turn,) = read_turns([json.dumps({"text": "x", "at": at})], "f", problems)
    assert turn.at is not None
    assert turn.at.date() == datetime(2023, 5, 8, tzinfo=UTC).date()
    assert turn.at.tzinfo is not None
    assert problems == []


@pytest.mark.parametrize("at", ["the day of days", {"day": 8}, "2023-99-99", "9" * 400])
def test_a_time_that_does_not_parse_is_left_open_and_told(at: object) -> None:
    problems: list[str] = []
    (turn,) = read_turns([json.dumps({"text": "x", "at": at})], "f", problems)
    assert turn.at is None
    (problem,) = problems
    assert problem.startswith("f line 1: the time ")
    assert len(problem) < 120


@pytest.mark.parametrize("at", [None, ""])
def test_no_time_is_no_problem(at: object) -> None:
    problems: list[str] = []
    assert read_turns([json.dumps({"text": "x", "at": at})], "f", problems)[0].at is None
    assert problems == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "f line 2 is no turn: it needs a 'text'"),
        ('{"text": 3}', "f line 2 is no turn: text: "),
        ('{"text": "x", "speaker": null}', "f line 2 is no turn: speaker: "),
        ('{"txt": "x"}', "f line 2 is no turn: the field 'txt' is unknown: did you mean 'text'?"),
        ('{"text": "x"', "f line 2 is not JSON"),
        ('{"text": "x"} {"text": "y"}', "f line 2 is not JSON"),
        ('{"text": ' + "[" * 200_000, "f line 2 is not JSON"),
    ],
)
def test_a_line_that_is_no_turn_is_named(line: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_turns(["fine", line], "f")
    assert str(raised.value).startswith(message)


def test_a_list_is_text_like_any_other() -> None:
    assert read_turns(['["x"]'], "f")[0].text == '["x"]'


def test_no_lines_are_no_turns() -> None:
    assert read_turns([], "f") == read_turns(["\n", "  \n"], "f") == []
