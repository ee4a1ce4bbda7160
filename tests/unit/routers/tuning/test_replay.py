"""Rules on small logs that can be computed by hand: what is accepted, what is wrong, what it costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from agentcascade.errors import InvalidRequest
from agentcascade.models.pricing import Price
from agentcascade.routers.tuning.columns import Arm, arms, chain, columns
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.risks import Risk, losses
from agentcascade.routers.tuning.rules import Chain, Grouped, RandomMix, TeacherAlone, Threshold
from agentcascade.steplog.jsonl import parse_line
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import LoggedSample, Usage


def step(id: Any, student: Any, teacher: Any = "a", gold: Any = "a", **more: Any) -> LoggedStep:
    return parse_line({"id": id, "student": student, "teacher": teacher, "gold": gold, **more})


THREE = [
    step(1, ["a", "a", "a"]),  # right
    step(2, ["b", "b", "b"]),  # unanimously wrong
    step(3, ["a", "b", None], teacher="b"),  # disagrees; the teacher is wrong
]


def test_unanimity_by_hand() -> None:
    row = replay(columns(THREE), Threshold(3, 3))
    assert row.acceptance == pytest.approx(2 / 3)
    assert row.risks["wrong"] == pytest.approx(1 / 3)
    assert row.risks["selective wrong"] == pytest.approx(1 / 2)
    assert row.risks["teacher-disagreement"] == pytest.approx(1 / 3)
    assert row.risks["total"] == pytest.approx(2 / 3)
    assert row.accuracy == pytest.approx(1 / 3)


def test_a_majority_of_two_of_three_is_averaged_over_the_orders() -> None:
    row = replay(columns(THREE), Threshold(2, 1))
    # step 3: {a,b} is won by the first, {a,None} by a, {b,None} by b: a half of it each
    assert row.acceptance == pytest.approx(1)
    assert row.risks["wrong"] == pytest.approx((0 + 1 + 0.5) / 3)


def test_costs_without_prices_are_teacher_answers() -> None:
    row = replay(columns(THREE), Threshold(3, 3), [Bill(sample_cost=0.1)])
    assert row.unit == "teacher answers"
    assert row.cost == pytest.approx(0.3 + 1 / 3)
    assert replay(columns(THREE), TeacherAlone()).cost == 1
    staged = replay(columns(THREE), Threshold(3, 3), [Bill("staged", sample_cost=0.1)])
    assert staged.cost == pytest.approx((0.3 + 0.3 + 0.2) / 3 + 1 / 3)  # step 3: never two alike


def priced(tokens: int = 2000, samples: tuple[str | None, ...] = ("a", "a", "b")) -> LoggedStep:
    drawn = StudentSamples(
        model="s",
        samples=tuple(LoggedSample(action=a, tokens=50) for a in samples),
        prompt=Usage(input=tokens),
        price=Price(input=Decimal("0.4"), output=Decimal("1.6"), cached_input=Decimal("0.1")),
    )
    return LoggedStep(
        id="1",
        students=(drawn,),
        teacher="a",
        teacher_usage=Usage(input=1000, cached_input=1000, output=100),
        teacher_price=Price(input=3, output=15, cached_input=Decimal("0.3")),
    )


def test_dollars_to_the_last_digit() -> None:
    log = columns([priced()])
    one, staged, separate = (Bill(s) for s in ("one-call", "staged", "separate"))
    rule = Threshold(3, 3)  # never accepted
    teacher = (1000 * 3 + 1000 * 0.3 + 100 * 15) / 1e6
    assert replay(log, rule, [one]).cost == pytest.approx((2000 * 0.4 + 3 * 50 * 1.6) / 1e6 + teacher)
    assert replay(log, rule, [separate]).cost == pytest.approx(3 * (2000 * 0.4 + 50 * 1.6) / 1e6 + teacher)
    # in stages: two samples; where they are alike (1 of 3 pairs) a third, whose prompt is read from the cache
    expected = (2000 * 0.4 + (2 + 1 / 3) * 50 * 1.6 + 1 / 3 * 2000 * 0.1) / 1e6 + teacher
    assert replay(log, rule, [staged]).cost == pytest.approx(expected)
    full = (2000 * 3 + 100 * 15) / 1e6
    assert replay(log, rule, [Bill(discounts=False)]).cost == pytest.approx((2000 * 0.4 + 240) / 1e6 + full, rel=1e-2)
    assert replay(log, TeacherAlone(), [one]).saving.value == 0
    assert replay(columns([priced(500)]), rule, [staged]).cost == pytest.approx(
        (500 * 0.4 + (2 + 1 / 3) * 80 + 1 / 3 * 500 * 0.4) / 1e6 + teacher  # too short for a cache
    )


def test_unknown_prices_stay_unknown() -> None:
    without = priced().model_copy(update={"teacher_price": None})
    assert replay(columns([without]), Threshold(3, 3)).unit == "teacher answers"


def test_episodes_count_alike_or_steps_do() -> None:
    steps = [step(i, ["b"], episode="long", step=i) for i in range(3)] + [step(9, ["a"], episode="short")]
    log = columns(steps)
    rule = Threshold(1, 1)
    assert losses(log, rule.on(log), Risk(weigh="episodes")).risk == pytest.approx(1 / 2)
    assert losses(log, rule.on(log), Risk()).risk == pytest.approx(3 / 4)
    assert losses(log, rule.on(log), Risk("episode-loss")).risk == pytest.approx(1 / 2)


def test_an_episode_that_the_teacher_lost_is_not_lost_by_the_cascade() -> None:
    steps = [
        step(1, ["b"], gold=None, episode="x", success=False),
        step(2, ["b"], gold=None, episode="y", success=True),
        step(3, ["a"], gold=None, episode="z", success=True),
        step(4, ["b"], gold=None, episode="u"),  # not known: counted as lost
    ]
    log = columns(steps)
    found = losses(log, Threshold(1, 1).on(log), Risk("episode-loss"))
    assert found.drawn_loss.tolist() == [0, 1, 0, 1]
    assert found.risk == pytest.approx(1 / 2)


def test_a_teacher_without_an_action_is_disagreed_with() -> None:
    log = columns([step(1, ["a"], teacher=None), step(2, ["a"])])
    assert replay(log, Threshold(1, 1)).risks["teacher-disagreement"] == pytest.approx(1 / 2)


def test_a_chain_asks_the_second_student_where_the_first_disagrees() -> None:
    steps = [
        step(1, {"small": ["a", "a"], "large": ["b", "b"]}),
        step(2, {"small": ["a", "b"], "large": ["a", "a"]}),
        step(3, {"small": ["a", "b"], "large": ["a", "c"]}),
    ]
    row = replay(chain(steps), Chain((Threshold(2, 2), Threshold(2, 2))), [Bill(sample_cost=0.1)])
    assert row.acceptance == pytest.approx(2 / 3)
    assert row.risks["wrong"] == 0
    assert row.cost == pytest.approx(0.2 + 0.2 * 2 / 3 + 1 / 3)
    with pytest.raises(InvalidRequest, match="two students"):
        chain(THREE)


def test_thresholds_by_type_of_action() -> None:
    steps = [step(1, ["go x", "go x"], gold="go x"), step(2, ["buy x", "buy x"], gold="buy y")]
    log = columns(steps)
    rule = Grouped("tool", 2, {"go": 2, "buy": 3}, 3)
    assert rule.on(log).taken.tolist() == [True, False]
    assert rule.router["options"]["needed"] == {"go": 2, "buy": 3}
    by = columns([step(1, ["a", "a"], category="easy"), step(2, ["a", "a"], category="hard")])
    assert Grouped("category", 2, {"easy": 2}, 3).on(by).taken.tolist() == [True, False]


def test_the_random_mix_saves_and_errs_in_proportion() -> None:
    log = columns(THREE)
    alone, half = replay(log, Threshold(1, 1)), replay(log, RandomMix(0.5))
    assert half.acceptance == pytest.approx(alone.acceptance / 2)
    assert half.risks["wrong"] == pytest.approx((alone.risks["wrong"] or 0) / 2)


def test_settings_are_told_apart() -> None:
    cold = LoggedStep(
        id="1", students=(StudentSamples(model="s", temperature=0.1, samples=(LoggedSample(action="a"),)),)
    )
    warm = LoggedStep(
        id="2", students=(StudentSamples(model="s", temperature=0.7, samples=(LoggedSample(action="a"),)),)
    )
    assert arms([cold, warm, warm.model_copy(update={"id": "3"})]) == [Arm("s", 0.7), Arm("s", 0.1)]
    assert len(columns([cold, warm], arm=Arm("s", 0.1))) == 1


def test_first_samples_decide_ties_as_the_cascade_does() -> None:
    draw = columns([step(1, ["b", "a", "a", "b"])]).draw(4)
    assert draw.top.tolist() == [0]
    assert draw.votes.tolist() == [2]


def test_taking_rows_keeps_clusters_together() -> None:
    steps = [step(i, ["a"], episode=str(i // 2), step=i % 2) for i in range(6)]
    part = columns(steps).take(np.array([0, 1, 4, 5]))
    assert part.cluster.tolist() == [0, 0, 1, 1]
    assert part.clusters == 2


def test_a_shadow_that_failed_spoils_neither_arms_nor_chains() -> None:
    good = [step(i, {"one": ["a", "a"], "two": ["a", "b"]}) for i in range(4)]
    lost = good[0].model_copy(
        update={"id": "lost", "students": (StudentSamples(n=0, temperature=0.1), good[0].students[1])}
    )
    late = good[0].model_copy(update={"id": "late", "students": (good[0].students[0], StudentSamples(n=0))})
    log = [*good, lost, late]
    assert [a.student for a in arms(log)] == ["one"]
    assert (len(columns(log)), len(columns(log, 1)), len(chain(log))) == (5, 5, 4)
    assert replay(columns(log), Threshold(2, 2)).acceptance == 1.0
    with pytest.raises(InvalidRequest, match="every shadow failed"):
        arms([lost])


def test_prompts_that_differ_between_samples_are_each_paid() -> None:
    same = priced(samples=("a", "a", "a"))
    (student,) = same.students
    varied = same.model_copy(update={"students": (student.model_copy(update={"vary": "order"}),)})
    bills = (same, Bill("one-call")), (varied, Bill("one-call")), (same, Bill("separate"))
    once, each, apart = (replay(columns([of], arm=arms([of])[0]), Threshold(3, 3), [bill]).cost for of, bill in bills)
    assert once < each == pytest.approx(apart)
    assert arms([varied])[0].vary == "order"
