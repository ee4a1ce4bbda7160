"""Tier routers without training: what they choose, and that the heuristic spends less as λ grows."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.memory.types import State, TierRouter
from agentcascade.registry import construct
from agentcascade.routers.tier.baselines import (
    CostThreshold,
    FixedTiers,
    QuestionSignals,
    RandomTiers,
    question_signals,
)
from agentcascade.types import MODULES, TIERS, ModuleName


def state(question: str = "Where does Ann live?", match: float = 0.6) -> State:
    """A question whose retrieved chunks have the cosine `match` to it."""
    read = np.array([match, math.sqrt(1 - match * match), 0], dtype=np.float32)
    return State(question, np.array([1, 0, 0], dtype=np.float32), 0.7 * read)


def tier(router: TierRouter, module: ModuleName, seen: State, tradeoff: float = 0.0) -> int:
    """0, 1 or 2; the router must not doubt."""
    return router.probabilities(module, seen, tradeoff).index(1.0)


modules = st.sampled_from(MODULES)
asked = (
    "When did Ann move to Rome?",
    "How many paintings did Ann and Bob finish before the exhibition?",
    "Why would Caroline rather live in the city than in the mountains?",
    "What kinds of activities have Melanie and her family done together last summer?",
)
questions = st.sampled_from(asked) | st.text(max_size=200)
states = st.builds(state, questions, st.floats(-1, 1, width=32))
routers = st.one_of(
    st.builds(FixedTiers, st.sampled_from(TIERS) | st.dictionaries(modules, st.sampled_from(TIERS))),
    st.lists(st.floats(1e-3, 1), min_size=3, max_size=3).map(lambda w: RandomTiers([x / sum(w) for x in w])),
    st.lists(st.floats(0, 1), min_size=2, max_size=2).map(lambda t: CostThreshold(*sorted(t))),
)


@given(routers, modules, states, st.floats(0, 1))
@settings(deadline=None)
def test_probabilities_are_probabilities(router: TierRouter, module: ModuleName, seen: State, tradeoff: float) -> None:
    given = router.probabilities(module, seen, tradeoff)
    assert len(given) == 3
    assert all(0 <= p <= 1 for p in given)
    assert sum(given) == pytest.approx(1)
    assert given == router.probabilities(module, seen, tradeoff), "asked again, the same"


def test_fixed_tiers_are_one_for_all_or_one_for_each() -> None:
    assert {tier(FixedTiers("high"), m, state()) for m in MODULES} == {2}
    mixed = FixedTiers({"filter": "high", "topic": "mid"})
    assert [tier(mixed, m, state(), 1.0) for m in MODULES] == [2, 0, 0, 1, 0]
    assert mixed.tiers["summary"] == "low"


@pytest.mark.parametrize("question", asked)
def test_a_module_that_is_new_looks_as_hard_as_the_hardest(question: str) -> None:
    threshold, new = CostThreshold(), cast(ModuleName, "place")
    assert threshold.score(new, state(question)) == max(threshold.score(m, state(question)) for m in MODULES) > 0


def test_random_tiers_are_as_likely_as_they_were_told() -> None:
    assert RandomTiers().probabilities("topic", state()) == (1 / 3, 1 / 3, 1 / 3)
    assert RandomTiers([0.5, 0.25, 0.25]).probabilities("filter", state(), 0.9) == (0.5, 0.25, 0.25)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted), modules, states, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_price_of_cost_never_buys_a_higher_tier(
    thresholds: list[float], module: ModuleName, seen: State, one: float, other: float
) -> None:
    router = CostThreshold(*thresholds)
    cheap, dear = max(one, other), min(one, other)
    assert tier(router, module, seen, cheap) <= tier(router, module, seen, dear)
    assert tier(router, module, seen, 1.0) == 0
    assert 0 <= router.score(module, seen) <= 1


@given(modules, questions, st.floats(-1, 1, width=32), st.floats(-1, 1, width=32))
@settings(deadline=None)
def test_a_worse_match_of_retrieval_never_looks_easier(
    module: ModuleName, question: str, one: float, other: float
) -> None:
    router = CostThreshold()
    better, worse = (router.score(module, state(question, m)) for m in (max(one, other), min(one, other)))
    assert better <= worse + 1e-6


def test_the_heuristic_spends_where_the_question_is_hard() -> None:
    router = CostThreshold()

    def chosen(question: str, match: float = 0.5, tradeoff: float = 0.3) -> dict[str, int]:
        return {m: tier(router, m, state(question, match), tradeoff) for m in MODULES}

    assert set(chosen("Where does Ann live?").values()) == {0}
    dated = chosen("When did Ann move out, before or after May 2023?")
    assert dated["temporal"] == 2
    assert dated["temporal"] > dated["topic"]
    several = chosen("How many books have Ann, Bob and Carol all read?")
    assert several["entity"] == several["filter"] == 2
    assert several["temporal"] < 2
    open_ended = chosen("Why would Ann think about leaving her job, and how does she feel?")
    assert open_ended["topic"] == 2
    assert sum(chosen("Where does Ann live?", match=0.0, tradeoff=0.0).values()) > sum(
        chosen("Where does Ann live?", match=0.6, tradeoff=0.0).values()
    ), "what retrieval did not find is harder"


def test_a_module_with_nothing_to_read_is_low() -> None:
    nothing = State(asked[1], np.array([1, 0], dtype=np.float32), np.zeros(2, dtype=np.float32))
    assert {tier(CostThreshold(0, 0), m, nothing) for m in MODULES} == {0}


@pytest.mark.parametrize(
    ("question", "signal"),
    [
        ("How many dogs does she have?", "gathering"),
        ("What items did she buy?", "gathering"),
        ("Is Ann older than he is?", "comparing"),
        ("Who came the week before?", "time"),
        ("What happened on 7 May 2023?", "time"),
        ("What would she like?", "open"),
        ("Did Ann meet Bob and Carol?", "names"),
        ("Please tell me what it was that she once said to him there about it", "length"),
    ],
)
def test_words_that_make_a_question_hard(question: str, signal: str) -> None:
    assert getattr(question_signals(question), signal) > 0
    assert question_signals("Who is she?") == QuestionSignals(0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fixed", {"tiers": "hihg"}, "the tier 'hihg' is unknown: did you mean 'high'?"),
        ("fixed", {"tiers": {"fliter": "low"}}, "the module 'fliter' is unknown: did you mean 'filter'?"),
        ("fixed", {"tiers": {"filter": "medium"}}, "the tier 'medium' is unknown: known: high, low, mid."),
        ("fixed", {"tiers": {"filter": 2}}, "the tier 2 is unknown: known: high, low, mid."),
        ("fixed", {"tiers": 3}, "memory.router.name 'fixed' does not take {'tiers': 3}"),
        ("random", {"probabilities": [0.5, 0.5]}, r"probabilities is [0.5, 0.5]: give those of low, mid and high"),
        ("random", {"probabilities": [0.5, 0.6, -0.1]}, "three numbers from 0 that sum to 1"),
        ("random", {"probabilities": [math.nan, 0.5, 0.5]}, "three numbers from 0 that sum to 1"),
        ("random", {"probabilities": ["x", 0.5, 0.5]}, "three numbers from 0 that sum to 1"),
        ("threshold", {"mid": 0.6, "high": 0.4}, "mid is 0.6 and high is 0.4"),
        ("threshold", {"low": 0.6}, "does not take {'low': 0.6}"),
        ("treshold", {}, "memory.router.name 'treshold' is unknown: did you mean 'threshold'?"),
    ],
)
def test_what_cannot_be_configured_is_said(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        construct("tier_routers", name, "memory.router.name", options)
    assert message in str(error.value)


@pytest.mark.parametrize("tradeoff", [math.nan, -0.1, math.inf])
def test_a_tradeoff_that_is_no_weight_is_refused(tradeoff: float) -> None:
    with pytest.raises(InvalidRequest, match="λ is the weight of cost against quality"):
        CostThreshold().probabilities("filter", state(), tradeoff)


def test_routers_are_made_by_name() -> None:
    made = {
        name: construct("tier_routers", name, "memory.router.name", {}) for name in ("fixed", "random", "threshold")
    }
    assert {name: router.name for name, router in made.items()} == {name: name for name in made}
