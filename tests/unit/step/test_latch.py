"""The latch: the teacher stays with an episode while its cache is warm and the student would be deferred again."""

from __future__ import annotations

import pytest

from agentcascade.config.load import CascadeConfig
from agentcascade.errors import ConfigError
from agentcascade.models.pricing import Price
from agentcascade.step.latch import MOST
from agentcascade.types import Decision
from tests.cached_walks import Walk
from tests.cascades import known

DEAR_TO_ASK = Price(input="1", cached_input="0.25", output="4")
BURSTS = [True] * 3 + [False] * 9
SEPARATE = [True, True, False] * 4


async def play(
    latch: str, accepts: list[bool], *, pause: float = 2.0, student: Price = DEAR_TO_ASK, episodes: int = 12
) -> list[Decision]:
    walk = Walk(accepts, router={"latch": latch}, student=student)
    decisions: list[Decision] = []
    for i in range(episodes):
        decisions += await walk.run([pause] * len(accepts), episode=f"ep{i}")
    return decisions


def dollars(decisions: list[Decision]) -> float:
    return float(sum(known(d.dollars) for d in decisions))


def latched(decisions: list[Decision]) -> list[int]:
    return [d.step for d in decisions if d.reason.startswith("latched")]


async def test_it_saves_where_deferrals_come_in_runs() -> None:
    never, auto = await play("never", BURSTS), await play("auto", BURSTS)
    assert not latched(never)
    steps = latched(auto)
    assert len(steps) > 30
    assert min(steps) > 3, "only after a deferral"
    assert dollars(auto) < 0.9 * dollars(never)
    held = [d for d in auto if d.reason.startswith("latched")]
    assert {d.answered_by for d in held} == {"teacher"}
    assert not [c for d in held for c in d.calls if c.role == "student"]


async def test_a_student_that_would_act_again_is_asked() -> None:
    never, auto = await play("never", SEPARATE), await play("auto", SEPARATE)
    assert len(latched(auto)) <= 0.1 * len(auto), "no more than it takes to learn that the next step is its own"
    assert dollars(auto) <= 1.02 * dollars(never)


@pytest.mark.parametrize(
    ("pause", "student"),
    [(700.0, DEAR_TO_ASK), (2.0, Price(input="0.01", output="0.04"))],
    ids=["the cache has expired", "asking costs next to nothing"],
)
async def test_it_holds_for_nothing_that_is_not_saved(pause: float, student: Price) -> None:
    assert not latched(await play("auto", [True] * 3 + [False, True, False] * 3, pause=pause, student=student))


async def test_the_student_is_asked_again_after_some_steps() -> None:
    decisions = await play("auto", [True] + [False] * 30, episodes=3)
    row = longest = 0
    for decision in decisions:
        row = row + 1 if decision.reason.startswith("latched") else 0
        longest = max(longest, row)
    assert 3 <= longest <= MOST


def test_the_word_off_is_a_setting_too() -> None:
    for said, meant in ((False, "never"), (True, "auto")):  # as YAML reads off and on
        assert CascadeConfig.load(router={"latch": said}).router.latch == meant  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"memory.router.*latch is the step router's"):
        CascadeConfig.load(memory={"router": {"name": "fixed", "latch": "auto"}})
