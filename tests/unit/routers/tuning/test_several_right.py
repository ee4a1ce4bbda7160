"""Steps at which several answers are right: no rule and no teacher is called wrong for giving another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.actions.voting import Seat
from agentcascade.routers.tuning.columns import columns
from agentcascade.routers.tuning.committees import Committee, committee
from agentcascade.routers.tuning.families import grouped
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.rules import Rule, Threshold
from agentcascade.steplog.files import read_log, write_log
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample

KEYS = ["a()", "b()", "c()", None]


def step(number: int, drawn: list[list[str | None]], teacher: str | None, right: list[str]) -> LoggedStep:
    students = tuple(
        StudentSamples(model=f"m{i}", samples=tuple(LoggedSample(action=key) for key in keys), n=len(keys))
        for i, keys in enumerate(drawn)
    )
    return LoggedStep(id=str(number), students=students, teacher=teacher, gold=right[0], also_right=tuple(right[1:]))


steps = st.lists(
    st.tuples(
        st.lists(st.lists(st.sampled_from(KEYS), min_size=2, max_size=2), min_size=2, max_size=2),
        st.sampled_from(KEYS),
        st.lists(st.sampled_from([*KEYS[:3], "d()"]), min_size=1, max_size=3, unique=True),
    ),
    min_size=1,
    max_size=6,
)


@given(steps)
def test_what_is_right_is_the_sum_over_the_right_answers(drawn: list[Any]) -> None:
    """Of every rule: a step has one action, and each right one is a case of its own."""
    log = [step(i, *one) for i, one in enumerate(drawn)]
    most = max(len(one.right) for one in log)
    alone = [
        [
            one.model_copy(
                update={
                    "gold": ([*sorted(one.right), "nothing"] * most)[i] if i < len(one.right) else "nothing",
                    "also_right": (),
                }
            )
            for one in log
        ]
        for i in range(most)
    ]
    voted = Committee(("m1", "m0"), (Seat(2), Seat(1, 2)), Threshold(4, 2))
    for make, rules in ((columns, [Threshold(2, 1), Threshold(2, 2)]), (committee, [voted])):
        both, apart = make(log), [make(one) for one in alone]
        every: list[Rule] = [*rules, *(grouped(both, "tool", 2, "wrong") if make is columns else [])]
        for rule in every:
            outcome, others = rule.on(both), [rule.on(one) for one in apart]
            np.testing.assert_allclose(outcome.right["gold"], sum(other.right["gold"] for other in others))
            assert (outcome.fine["gold"] == np.any([other.fine["gold"] for other in others], axis=0)).all()
        assert list(both.teacher_right) == [one.teacher in one.right for one in log] or all(
            s.teacher is None for s in log
        )


def test_a_teachers_other_right_answer_is_not_counted_as_wrong() -> None:
    log = [step(i, [["a()"], ["b()"]], "b()", ["a()", "b()"]) for i in range(4)]
    row = replay(committee(log), Committee(("m0", "m1"), (Seat(), Seat()), Threshold(2, 2)))
    assert (row.acceptance, row.risks["total"], row.accuracy) == (0, 0, 1)
    row = replay(committee(log), Committee(("m1",), (Seat(),), Threshold(1, 1)))
    assert (row.acceptance, row.risks["wrong"], row.risks["total"], row.accuracy) == (1, 0, 0, 1)


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_right_answers_are_kept_in_files(name: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    log = [step(0, [["a()"], ["b()"]], "b()", ["a()", "b()"]), step(1, [["a()"], [None]], None, ["a()"])]
    write_log(tmp_path / name, log)
    assert read_log(tmp_path / name) == log


def test_a_plain_line_may_list_them(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text(json.dumps({"id": 1, "gold": ["18", "18.0"], "student": ["18.0"], "teacher": "18"}) + "\n")
    (one,) = read_log(path)
    assert (one.gold, one.also_right) == ("18", ("18.0",))
    assert replay(columns([one]), Threshold(1, 1)).risks["wrong"] == 0
