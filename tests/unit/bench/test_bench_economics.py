"""What a benchmark says of a cascade's dollars: early, by its first episodes, and afterwards, by its bills."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from agentcascade.bench.economics import EarlyOutlook, needed_acceptance, step_costs
from agentcascade.bench.records import EpisodeRecord
from agentcascade.config.load import CascadeConfig
from agentcascade.economics.outlook import Outlook
from agentcascade.types import Call, Decision, Step, Trajectory, Usage

MODELS = {"teacher": "offline/expert", "student": "offline/imitator"}
PRICES = {"teacher": {"input": 3, "output": 15}, "student": {"input": "0.40", "output": "1.60"}}
CONFIG = CascadeConfig(
    teacher={"name": MODELS["teacher"], "price": PRICES["teacher"]},
    student={"name": MODELS["student"], "price": PRICES["student"]},
    retrieval={"k": 2, "embedder": "hashing:64"},
)


def decision(*roles: str, step: int = 0, shown: int = 0, episode: str = "e", dollars: str = "0.01") -> Decision:
    """A step that these roles were asked at, the last of which answered; each demonstration has 100 tokens."""
    calls = tuple(
        Call(
            role=role,
            purpose="act" if role == "teacher" else "sample",
            model=MODELS[role],
            usage=Usage(input=800 + 50 * step + (100 * shown if role == "student" else 0), output=40),
            dollars=Decimal(dollars),
        )
        for role in roles
    )
    mode = "cascade" if "student" in roles else "collect"
    return Decision(
        episode=episode, step=step, mode=mode, answered_by=roles[-1], reason="", calls=calls, samples=1,
        demonstrations=tuple(f"t{i}:0-3" for i in range(shown)), dollars=sum(c.dollars for c in calls if c.dollars),
    )  # fmt: skip


def played(policy: str, index: int, *decisions: Decision, banked: bool = False) -> EpisodeRecord:
    steps = tuple(Step(observation="You see a mug.", action="take mug 1") for _ in range(5))
    return EpisodeRecord(
        policy=policy, seed=0, index=index, task=f"task {index}", success=True, steps=len(decisions),
        teacher_steps=sum(d.answered_by == "teacher" for d in decisions),
        dollars=sum((d.dollars or Decimal(0) for d in decisions), Decimal(0)), seconds=1.0, decisions=decisions,
        trajectory=Trajectory(goal="g", steps=steps, success=True) if banked else None,
    )  # fmt: skip


def early(records: list[EpisodeRecord], **changed: Any) -> list[Outlook]:
    told: list[Outlook] = []
    outlook = EarlyOutlook(CONFIG.model_copy(update=changed), True, told.append)
    for record in records:
        outlook.add(record)
    return told


DEMOS = [
    played("demos", i, *(decision("teacher", step=s, episode=f"d{i}") for s in range(6)), banked=True) for i in range(5)
]


def test_it_is_told_once_after_the_demonstrations_by_tokens_that_were_measured() -> None:
    student = [
        played("student+demos", i, *(decision("student", step=s, shown=2, episode=f"s{i}") for s in range(6)))
        for i in range(3)
    ]
    assert early(DEMOS) == early([*student, *DEMOS[:3]]) == []
    (told,) = early([*DEMOS, *student, *DEMOS])
    assert told.tokens.prompt == 800 + 50 * 2.5
    assert (told.tokens.new, told.tokens.teacher_answer, told.tokens.answer) == (50, 40, 40)
    assert all(source.measured for source in told.sources)
    assert told.lines()[0].startswith("the cascade saves where more than 0.")
    assert "assumed" not in told.lines()[-1]


def test_with_a_student_as_dear_as_the_teacher_it_says_at_once_that_it_cannot_save() -> None:
    assert CONFIG.student is not None
    dear = CONFIG.student.model_copy(update={"price": PRICES["teacher"]})
    (told,) = early([*DEMOS, played("cascade", 0, *(decision("student", shown=2) for _ in range(6)))], student=dear)
    assert told.lines()[0].startswith("the cascade cannot save, whatever its students get right")
    assert told.lines()[1].startswith("helps most: ")


def test_bills_say_which_acceptance_was_needed() -> None:
    teacher = played("teacher", 0, *(decision("teacher", dollars="1") for _ in range(4)))
    accepted = [decision("student", dollars="0.25") for _ in range(5)]
    deferred = [decision("student", "teacher", dollars="0.8")]
    records = [teacher, played("cascade", 0, *accepted, *deferred)]
    measured = step_costs(records)
    assert measured is not None
    costs, acceptance = measured
    assert (costs.accepted, costs.deferred, costs.teacher) == (Decimal("0.25"), Decimal("1.6"), Decimal(1))
    assert (costs.steps_ratio, acceptance) == pytest.approx((1.5, 5 / 6))
    theirs, ours = records[0].dollars, records[1].dollars
    assert theirs is not None
    assert ours is not None
    spent = ours / theirs
    assert 1 - costs.saving(acceptance) == pytest.approx(float(spent))
    needed = (1.6 - 1 / 1.5) / (1.6 - 0.25)
    assert needed_acceptance(records) == (
        "cascade: an accepted step cost 0.25 and a deferred one 1.60 of a step of the teacher's, in episodes 1.50 "
        f"times as long: it pays off from {needed:.1%} accepted, and 83.3% were"
    )


@pytest.mark.parametrize("unpriced", ["teacher", "cascade"])
def test_where_a_price_or_a_policy_is_missing_nothing_is_said(unpriced: str) -> None:
    teacher = played("teacher", 0, decision("teacher"))
    cascade = played("cascade", 0, decision("student"), decision("student", "teacher"))
    assert needed_acceptance([teacher, cascade])
    assert needed_acceptance([cascade]) == needed_acceptance([teacher]) == ""
    free = [c.model_copy(update={"dollars": None}) for c in cascade.decisions[0].calls]
    unknown = cascade.decisions[0].model_copy(update={"calls": tuple(free)})
    records = {
        "teacher": [teacher.model_copy(update={"dollars": None}), cascade],
        "cascade": [teacher, cascade.model_copy(update={"decisions": (unknown, cascade.decisions[1])})],
    }
    assert needed_acceptance(records[unpriced]) == ""
