"""Tuned routers at a step: the same score as offline, and a chain of students that are asked in turn."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade import build
from agentcascade.errors import ConfigError
from agentcascade.models.scripted import ScriptedModel
from agentcascade.protocols import Verdict
from agentcascade.routers.signals import SIGNALS, certainty, margin
from agentcascade.routers.step.scores import Grouped, ScoreRouter
from agentcascade.routers.tuning.columns import columns
from agentcascade.routers.tuning.families import Votes
from agentcascade.step.context import FurtherStudent
from agentcascade.steplog.jsonl import parse_line
from agentcascade.types import Situation, Step, Tally

HERE = Situation(goal="g")
MESSAGES = [{"role": "user", "content": "Task: go"}]


class Agreeing(ScriptedModel):
    """A further student, as a configuration names it."""

    def __init__(self) -> None:
        super().__init__(["c"], name="agreeing")


def tally(**counts: int) -> Tally:
    total = counts.pop("total", sum(counts.values()))
    return Tally(counts=counts, total=total)


def test_certainty_and_margin_by_hand() -> None:
    votes = np.array([[3.0, 0.0], [2.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    assert margin(votes, 3).tolist() == pytest.approx([1, 1 / 3, 1 / 3, 0])
    two_of_three = 1 - (-(2 / 3) * math.log(2 / 3) - 1 / 3 * math.log(1 / 3)) / math.log(3)
    assert certainty(votes, 3).tolist() == pytest.approx([1, two_of_three, two_of_three, 0])


def test_a_score_waits_for_all_samples_and_decides() -> None:
    router = ScoreRouter("margin", 0.5, n=4)
    assert router.samples(HERE) == 4
    assert router.judge(HERE, tally(a=3), 1) is None
    assert router.judge(HERE, tally(a=3, b=1), 0) is Verdict.ACCEPT
    assert router.judge(HERE, tally(a=2, b=1, c=1), 0) is Verdict.DEFER
    assert router.judge(HERE, tally(total=4), 0) is Verdict.DEFER
    assert ScoreRouter("logprob", -1.0).judge(HERE, tally(a=3), 0) is Verdict.DEFER  # none is known


MODEL = {"weights": [2.0, 1.0, -0.5, 0.3, -0.2, 0.7, 0.1, 0.4], "intercept": -1.0, "types": {"go": 0.8}}


@given(
    st.lists(st.sampled_from(["go a", "go b", "buy c", None]), min_size=3, max_size=3),
    st.sampled_from(["margin", "entropy", "learned"]),
    st.integers(0, 30),
)
def test_offline_and_online_scores_are_the_same(answers: list[str | None], score: str, step: int) -> None:
    log = columns([parse_line({"id": 1, "student": answers, "gold": "go a", "step": step, "episode": "e"})])
    offline = Votes(score, 3, MODEL if score == "learned" else None).of(log)[0]
    counts: dict[str, int] = {}
    for answer in answers:
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + 1
    if counts:
        situation = Situation(goal="g", history=(Step(observation="", action="x"),) * step)
        online = ScoreRouter(score, 0.5, 3, MODEL if score == "learned" else None)
        assert online.value(situation, Tally(counts=counts, total=3)) == pytest.approx(offline)


def test_types_have_thresholds_of_their_own() -> None:
    router = Grouped({"buy": 4, "go": 2}, default=3, n=3)
    assert router.judge(HERE, tally(**{"go x": 2, "go y": 1}), 0) is Verdict.ACCEPT
    assert router.judge(HERE, tally(**{"look": 2, "go y": 1}), 0) is Verdict.DEFER
    assert router.judge(HERE, tally(**{"buy x": 3}), 0) is Verdict.DEFER  # more than all: always the teacher
    by_goal = Grouped({"hard": 4}, default=2, n=3, by="category")
    assert by_goal.samples(Situation(goal="g", category="hard")) == 0  # then nothing is drawn for nothing
    assert by_goal.samples(Situation(goal="g", category="easy")) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScoreRouter("entropie", 0.5), "did you mean 'entropy'"),
        (lambda: ScoreRouter("margin", 0.5, n=0), "at least 1"),
        (lambda: ScoreRouter("learned", 0.5), "router.model needs weights"),
        (lambda: ScoreRouter("learned", 0.5, 3, {**MODEL, "weights": [1.0]}), f"{len(SIGNALS)} numbers"),
        (lambda: Grouped({}, 3, by="tools"), "did you mean 'tool'"),  # type: ignore[arg-type]
        (lambda: Grouped({"go": 0}, 3), "router.needed.go is 0"),
    ],
)
def test_impossible_routers_say_what_to_change(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


async def test_students_are_asked_in_turn(tmp_path: Path) -> None:
    """`students` of the configuration: the second is asked where the first disagrees, the teacher where both do."""
    small = ScriptedModel(["a", "b"] * 9, name="small")
    teacher = ScriptedModel(["t"], name="teacher")
    cascade = build(
        teacher=teacher,
        student=small,
        bank={"url": f"sqlite:///{tmp_path / 'b.db'}"},
        retrieval={"k": 0},
        router={"name": "unanimity", "options": {"n": 2}},
        students=[{"name": "test_scores:Agreeing", "router": {"name": "unanimity", "options": {"n": 2}}}],
    )
    async with cascade:
        answer = await cascade.episode("go").complete(MESSAGES)
        decision = answer.agentcascade
        assert answer.choices[0].message.content == "c"
        assert decision.answered_by == "student"
        assert [c.model for c in decision.calls] == ["small", "agreeing"]
        (second,) = cascade.context.students
        unsure = cascade.twin(students=(second._replace(model=ScriptedModel(["x", "y"] * 9)),))
        later = (await unsure.episode("go").complete(MESSAGES)).agentcascade
        assert later.answered_by == "teacher"
        assert [c.role for c in later.calls] == ["student", "student", "teacher"]


async def test_a_student_that_breaks_passes_the_step_on(tmp_path: Path) -> None:
    cascade = build(
        teacher=ScriptedModel(["t"]),
        student=ScriptedModel([RuntimeError("down")], name="small"),
        bank={"url": f"sqlite:///{tmp_path / 'b.db'}"},
        retrieval={"k": 0},
        router={"name": "unanimity", "options": {"n": 2}},
    )
    async with cascade:
        large = FurtherStudent(ScriptedModel(["c"], name="large"), cascade.context.router)
        answer = await cascade.twin(students=(large,)).episode("go").complete(MESSAGES)
        assert answer.choices[0].message.content == "c"
        assert any("RuntimeError" in f for f in answer.agentcascade.failures)
