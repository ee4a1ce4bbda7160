"""Risks by hand: what each is a share of, how an episode is lost, and what a report calls it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agentcascade.errors import InvalidRequest
from agentcascade.routers.tuning.columns import Columns, columns
from agentcascade.routers.tuning.risks import KINDS, Risk, labelled, losses
from agentcascade.routers.tuning.rules import Threshold
from agentcascade.steplog.jsonl import parse_line


def log(*steps: dict[str, Any]) -> Columns:
    """Steps whose teacher and gold are "a" where nothing else is said; ... leaves a field out."""
    lines = [{"id": i, "teacher": "a", "gold": "a", **step} for i, step in enumerate(steps)]
    return columns([parse_line({k: v for k, v in line.items() if v is not ...}) for line in lines])


@pytest.mark.parametrize(
    ("risk", "said"),
    [
        (Risk(), "steps that the student takes and gets wrong, as a share of all steps"),
        (Risk(count="selective"), "…wrong, as a share of the steps that the student takes"),
        (Risk(count="total"), "steps that go wrong, whoever takes them, as a share of all steps"),
        (
            Risk("teacher-disagreement"),
            "steps that the student takes and does not do what the teacher does, as a share of all steps",
        ),
        (Risk("episode-loss"), "episodes that an action of the student may lose, as a share of all episodes"),
        (Risk("episode-loss", "selective", "episodes"), "…lose, as a share of the episodes that the student takes"),
        (Risk(weigh="episodes"), "…wrong, as a share of an episode's steps, averaged over episodes"),
        (
            Risk(count="selective", weigh="episodes"),
            "…wrong, as a share of those of its steps that the student takes, averaged over episodes",
        ),
    ],
)
def test_a_risk_says_of_what_it_is_a_share(risk: Risk, said: str) -> None:
    assert str(risk).endswith(said.removeprefix("…"))
    assert said.startswith("…") or str(risk) == said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "wrng"}, "risk 'wrng' is unknown: did you mean 'wrong'"),
        ({"count": "totl"}, "count 'totl' is unknown: did you mean 'total'"),
        ({"weigh": "step"}, "weigh 'step' is unknown: did you mean 'steps'"),
        ({"weigh": "episode"}, "weigh 'episode' is unknown: did you mean 'episodes'"),
        ({"longest": 0}, "longest is 0: an episode has at least 1 step"),
        ({"kind": "episode-loss", "count": "total"}, "count 'total' is of risk 'wrong' alone, not of 'episode-loss'"),
    ],
)
def test_a_risk_that_is_none_names_itself(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Risk(**options)
    Risk(longest=1)


def test_an_episode_is_lost_by_any_of_its_steps() -> None:
    """Of two samples "a" and "b" one is taken: each step is bad with probability 1/2, two of them lose 3/4."""
    found = log(
        {"student": ["a", "b"], "episode": "x", "step": 0},
        {"student": ["b", "a"], "episode": "x", "step": 1},
        {"student": ["b", "b"], "episode": "y"},
        {"student": ["a", "a"], "episode": "z"},
        {"student": ["b", "b"], "episode": "u", "success": False},
    )
    with np.errstate(all="raise"):
        lost = losses(found, Threshold(1, 1).on(found), Risk("episode-loss"))
    assert lost.loss == pytest.approx([0.75, 1, 0, 0])
    assert lost.drawn_loss.tolist() == [1, 1, 0, 0]
    assert lost.base.tolist() == lost.drawn_base.tolist() == [1, 1, 1, 1]
    assert lost.risk == pytest.approx(1.75 / 4)


def test_of_episodes_that_the_student_takes_are_those_with_a_step_of_its() -> None:
    """Two alike of the first two of three samples: taken with probability 1/3, twice in an episode 5/9."""
    found = log(
        {"student": ["a", "a", "b"], "episode": "x", "step": 0},
        {"student": ["a", "b", "a"], "episode": "x", "step": 1},
        {"student": ["b", "b", "b"], "episode": "y"},
        {"student": ["a", "b", "c"], "episode": "z"},
    )
    with np.errstate(all="raise"):
        lost = losses(found, Threshold(2, 2).on(found), Risk("episode-loss", "selective"))
    assert lost.base == pytest.approx([5 / 9, 1, 0])
    assert lost.drawn_base.tolist() == [1, 1, 0]
    assert lost.loss == pytest.approx([0, 1, 0])
    assert lost.drawn_loss.tolist() == [0, 1, 0]
    assert lost.risk == pytest.approx(1 / (1 + 5 / 9))


def test_shares_of_steps_by_hand() -> None:
    found = log(
        {"student": ["b", "b"], "episode": "x", "step": 0},
        {"student": ["a", "b"], "episode": "x", "step": 1, "teacher": "b"},
        {"student": ["a", "a"], "episode": "y"},
    )
    rule = Threshold(2, 2)  # takes the first and the third; the second is the teacher's, who is wrong
    expected: dict[tuple[str, str, str], tuple[list[float], list[float]]] = {
        ("wrong", "marginal", "steps"): ([1 / 2, 0], [1, 1 / 2]),
        ("wrong", "selective", "steps"): ([1 / 2, 0], [1 / 2, 1 / 2]),
        ("wrong", "total", "steps"): ([1, 0], [1, 1 / 2]),
        ("wrong", "marginal", "episodes"): ([1 / 2, 0], [1, 1]),
        ("wrong", "selective", "episodes"): ([1 / 2, 0], [1 / 2, 1]),
        ("teacher-disagreement", "marginal", "steps"): ([1 / 2, 0], [1, 1 / 2]),
    }
    for (kind, count, weigh), (loss, base) in expected.items():
        made = losses(found, rule.on(found), Risk(kind, count, weigh))  # type: ignore[arg-type]
        assert made.loss.tolist() == made.drawn_loss.tolist() == loss, (kind, count, weigh)
        assert made.base.tolist() == made.drawn_base.tolist() == base, (kind, count, weigh)
    others = log(
        {"student": ["b", "b"], "teacher": "b", "episode": "x", "step": 0},  # taken: as the teacher, and both are wrong
        {"student": ["a", "a"], "teacher": "b", "episode": "x", "step": 1},  # taken, and right where the teacher is not
        {"student": ["a", "b"], "episode": "y"},  # the teacher's, who is right
    )
    by_risk: tuple[tuple[Risk, list[float]], ...] = (
        (Risk("teacher-disagreement"), [1 / 2, 0]),
        (Risk(), [1 / 2, 0]),
        (Risk(count="total"), [1 / 2, 0]),
        (Risk("episode-loss"), [1, 0]),
    )
    for risk, loss in by_risk:
        made = losses(others, rule.on(others), risk)
        assert made.loss == pytest.approx(loss), risk
        assert made.drawn_loss.tolist() == loss, risk
    alone = others.take(np.array([0]))
    assert losses(alone, rule.on(alone), Risk("teacher-disagreement")).loss.tolist() == [0]
    assert losses(alone, rule.on(alone), Risk(longest=4)).base.tolist() == [1], "no episode: a step is all there is"
    longest = losses(found, rule.on(found), Risk(longest=4))
    assert (longest.loss.tolist(), longest.base.tolist()) == ([1 / 4, 0], [1 / 2, 1 / 4])
    assert losses(found, rule.on(found), Risk(longest=2)).base.tolist() == [1, 1 / 2]
    with pytest.raises(InvalidRequest, match="an episode of 2 steps, longer than longest 1"):
        losses(found, rule.on(found), Risk(longest=1))
    nothing = losses(found, Threshold(2, 3).on(found), Risk(count="selective"))
    assert (nothing.risk, nothing.base.sum()) == (0.0, 0)


def test_steps_that_were_seldom_logged_weigh_more() -> None:
    found = log({"student": ["b"], "propensity": 0.25}, {"student": ["a"], "propensity": 1.0})
    made = losses(found, Threshold(1, 1).on(found), Risk())
    assert made.loss.tolist() == made.drawn_loss.tolist() == [1, 0]
    assert made.base.tolist() == made.drawn_base.tolist() == [1, 1 / 4]
    assert made.risk == pytest.approx(4 / 5)


def test_a_loss_is_known_where_its_reference_is() -> None:
    taught = log({"student": ["b"]}, {"student": ["b"], "gold": ...}, {"student": ["b"], "teacher": None})
    assert labelled(taught, "wrong").tolist() == [True, False, True]
    for kind in KINDS:
        assert labelled(log({"student": ["a"]}), kind).tolist() == [True], "it said what is right"
    assert labelled(log({"student": ["a"], "gold": ...}), "episode-loss").tolist() == [True]
    assert labelled(log({"student": ["a"], "teacher": ...}), "episode-loss").tolist() == [True]
    assert labelled(taught, "teacher-disagreement").tolist() == [True, True, True], "that it had no answer is known"
    untaught = log(
        {"student": ["b"], "teacher": ...}, {"student": ["b"], "teacher": ..., "gold": ..., "success": False}
    )
    assert labelled(untaught, "teacher-disagreement").tolist() == [False, False]
    assert labelled(untaught, "episode-loss").tolist() == [True, False]
    by_teacher = log({"student": ["b"], "gold": ...}, {"student": ["b"], "gold": "b"}, {"student": ["a"], "gold": ...})
    lost = losses(by_teacher, Threshold(1, 1).on(by_teacher), Risk("episode-loss"))
    assert lost.loss == pytest.approx([1, 0, 0])
    assert lost.drawn_loss.tolist() == [1, 0, 0]
