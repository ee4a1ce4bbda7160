"""Step bandits: they find the better way, never try for more than their budget, and remember what they learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.protocols import Verdict
from agentcascade.routers.step.bandits import StepLinUCB, StepThompson
from agentcascade.types import Situation, Step, Tally

BANDITS = [StepLinUCB, StepThompson]


def situation(episode: int, step: int = 0, category: str = "") -> Situation:
    history = (Step(observation="", action="a"),) * step
    return Situation(goal="g", episode=str(episode), history=history, observation="o" * 50, category=category)


def votes(*counts: int) -> Tally:
    return Tally(counts={f"action {i}": c for i, c in enumerate(counts)}, total=3)


@pytest.mark.parametrize("make", BANDITS)
@given(budget=st.sampled_from([0.0, 0.01, 0.1, 0.5]), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_trying_never_costs_more_than_its_budget(make: Any, budget: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    router = make(budget=budget, seed=seed)
    for i in range(300):
        here = situation(i, int(rng.integers(5)))
        router.way(here)
        assert router.charged <= budget * router.steps + 1e-9
        router.update(here, votes(2, 1), "action 0" if rng.random() < 0.7 else "other")
    if not budget:
        assert router.tried == 0


@pytest.mark.parametrize("make", BANDITS)
def test_the_bold_way_is_taken_where_it_is_right_and_left_where_it_is_wrong(make: Any) -> None:
    router = make(price=0.5, budget=0.1)
    for i in range(400):
        right, wrong = situation(i, category="easy"), situation(i, category="hard")
        router.update(right, votes(2, 1), "action 0")
        router.update(wrong, votes(2, 1), "action 1")
    first = {"easy": 1000, "hard": 2000}
    ways = {k: [router.way(situation(start + i, category=k)) for i in range(100)] for k, start in first.items()}
    assert ways["easy"].count("bold") > 90
    assert ways["hard"].count("bold") < 10


@pytest.mark.parametrize("make", BANDITS)
def test_a_step_is_taken_one_way_however_often_it_is_asked(make: Any) -> None:
    router = make(budget=1.0)
    here = situation(7)
    first = router.way(here)
    assert {router.way(here) for _ in range(5)} == {first}
    assert router.steps == 1
    assert router.samples(here) == (0 if first == "teacher" else 3)
    assert router.judge(here, votes(3), 0) is Verdict.ACCEPT


def test_strict_and_bold_are_learned_from_the_same_samples() -> None:
    router = StepLinUCB(threshold=0.6)
    for i in range(50):
        router.update(situation(i), votes(2, 1), "action 0")
    worth, _ = router._arms.predict(np.r_[np.zeros(8), 1.0], router.price, 0.0)
    assert worth[2] > worth[1]  # strict would have paid the teacher for nothing
    router.update(situation(99), Tally(counts={}, total=3), "a")  # no valid sample teaches nothing


@pytest.mark.parametrize("make", BANDITS)
def test_what_was_learned_and_spent_survives(make: Any, tmp_path: Path) -> None:
    router = make(budget=0.2)
    for i in range(100):
        router.way(situation(i))
        router.update(situation(i), votes(3), "action 0")
    router.rewarded(situation(5), 1.0, 0.2)
    router.save(tmp_path / "b.json")
    again = make(budget=0.2, path=tmp_path / "b.json")
    assert (again.steps, again.tried, again.charged) == (router.steps, router.tried, router.charged)
    ways = [[r.way(situation(500 + i)) for i in range(50)] for r in (router, again)]
    assert ways[0] == ways[1]


def test_impossible_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"router\.budget is -1"):
        StepLinUCB(budget=-1)
    with pytest.raises(ConfigError, match="is no saved step router"):
        StepLinUCB(path=tmp_path / "none.json")
    StepLinUCB().save(tmp_path / "b.json")
    with pytest.raises(ConfigError, match="was learned with n = 3"):
        StepLinUCB(n=5, path=tmp_path / "b.json")
    with pytest.raises(InvalidRequest, match="cannot be learned from"):
        StepLinUCB().rewarded(situation(1), float("nan"), 0.0)
