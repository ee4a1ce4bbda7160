"""What is read off a question or a line without a model."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.memory.dates import named_periods, parse_timestamp, resolve_expression, time_expressions
from agentcascade.memory.tokenization import content_phrases, proper_names, term_overlap, terms

SAID = datetime(2023, 5, 8, 13, 56, tzinfo=UTC)  # a Monday


def test_terms_are_stems_of_words_that_mean_something() -> None:
    assert terms("When did Caroline's group visit the support groups?") == (
        *("carolin", "group", "visit", "support", "group"),
    )
    assert terms("Who was it, and why?") == ()


def test_names_are_capitalised_words_that_are_no_common_words() -> None:
    assert proper_names("When did Caroline go to New York?") == {"caroline", "new", "york"}
    assert proper_names("what is it") == frozenset()


def test_phrases_of_a_question() -> None:
    assert content_phrases("When did Caroline go to the LGBTQ support group?") == ["Caroline go", "LGBTQ support group"]


@given(st.text(max_size=80), st.text(max_size=80))
def test_overlap_is_a_share(question: str, text: str) -> None:
    assert 0 <= term_overlap(terms(question), terms(text)) <= 1
    assert term_overlap(terms(question), terms(question)) == (1.0 if terms(question) else 0.0)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("yesterday", datetime(2023, 5, 7)),
        ("last Friday", datetime(2023, 5, 5)),
        ("two weeks ago", datetime(2023, 4, 24)),
        ("last night", datetime(2023, 5, 7)),
        ("next month", datetime(2023, 6, 8)),
        ("on Monday", datetime(2023, 5, 1)),
    ],
)
def test_relative_expressions_mean_a_day(text: str, day: datetime) -> None:
    (found,) = time_expressions(f"I did it {text}, you know")
    resolved = resolve_expression(found, SAID)
    assert resolved is not None
    assert resolved.date() == day.date()


def test_without_the_day_it_was_said_yesterday_means_nothing() -> None:
    assert resolve_expression("yesterday", None) is None
    assert resolve_expression("last Friday", None) is None
    found = resolve_expression("8 May 2023", None)
    assert found is not None
    assert found.date() == SAID.date()


@pytest.mark.parametrize("text", ["", "someday", "32 of Nonsense", "99:99", "last \x00 week"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert resolve_expression(text, SAID) is None
    assert parse_timestamp("garbage " + text) is None


@given(st.text(max_size=60))
def test_reading_times_never_fails(text: str) -> None:
    for found in time_expressions(text):
        resolve_expression(found, SAID)
    named_periods(text)


def test_timestamps_in_their_usual_forms() -> None:
    assert parse_timestamp("1:56 pm on 8 May, 2023") == SAID
    assert parse_timestamp("2023-05-08T13:56:00") == SAID
    assert parse_timestamp("2023/05/20 (Sat) 02:21") == datetime(2023, 5, 20, 2, 21, tzinfo=UTC)


def test_periods_that_a_question_names() -> None:
    month, day, year = named_periods("What did Ann do in May 2023, on 3 June, 2022 and in 2021?")
    assert (month.start.date().isoformat(), month.end.day) == ("2023-05-01", 31)
    assert day.start.date() == day.end.date() == datetime(2022, 6, 3).date()
    assert (year.start.year, year.start.month, year.end.month) == (2021, 1, 12)
    assert month.distance(SAID) == 0.0
    assert day.distance(datetime(2022, 6, 5, tzinfo=UTC)) == pytest.approx(1.0, abs=0.01)
    assert named_periods("on the 31st of June 2022") == []
