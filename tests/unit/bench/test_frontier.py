"""Quality against cost: the hull is what mixes of fixed policies reach, and intervals hold what they promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.bench.frontier import cluster_bootstrap, hull_score, percentile_interval, policy_point, upper_hull
from agentcascade.bench.memory.evaluation import combination_name, evaluate_router, greedy_combinations
from agentcascade.bench.memory.training import outcome_table, split_questions
from agentcascade.errors import ConfigError
from agentcascade.memory.types import State
from agentcascade.routers.tier.baselines import FixedTiers
from agentcascade.routers.tier.log import TierLog
from agentcascade.types import MODULES
from tests.tier_sweeps import D, make_sweep

values = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1, width=32)
policies = st.lists(st.tuples(values, values), min_size=1, max_size=12)


def apart(points: Sequence[tuple[float, float]]) -> tuple[Any, Any]:
    costs, scores = zip(*points)
    return np.array(costs, dtype=float), np.array(scores, dtype=float)


def best_mix(costs: Any, scores: Any, cost: float) -> float:
    """By brute force: the best score of a policy, or a random mix of two, that costs no more than `cost`."""
    found = [s for c, s in zip(costs, scores) if c <= cost]
    for c1, s1 in zip(costs, scores):
        for c2, s2 in zip(costs, scores):
            if c1 <= cost < c2:
                found.append(s1 + (s2 - s1) * (cost - c1) / (c2 - c1))
    return float(max(found))


@given(policies, st.floats(0, 1))
def test_the_hull_is_the_best_that_mixes_of_policies_reach(points: list[tuple[float, float]], share: float) -> None:
    costs, scores = apart(points)
    cost = float(costs.min() + share * (1.2 - costs.min()))
    assert hull_score(costs, scores, cost) == pytest.approx(best_mix(costs, scores, cost), abs=1e-6)


@given(policies)
def test_corners_rise_in_cost_and_score_and_no_mix_of_two_beats_one(points: list[tuple[float, float]]) -> None:
    costs, scores = apart(points)
    corners = upper_hull(costs, scores)
    assert (np.diff(costs[corners]) > 0).all()
    assert (np.diff(scores[corners]) > 0).all()
    assert costs[corners[0]] == costs.min()
    assert scores[corners[-1]] == scores.max()
    for corner in corners:
        others = [i for i in range(len(costs)) if i != corner]
        if min((costs[i] for i in others), default=2.0) <= costs[corner]:
            assert best_mix(costs[others], scores[others], costs[corner]) <= scores[corner] + 1e-9


def test_what_is_cheaper_than_all_is_held_against_the_cheapest() -> None:
    costs, scores = np.array([2.0, 4.0]), np.array([0.4, 0.8])
    assert [hull_score(costs, scores, c) for c in (1.0, 3.0, 9.0)] == pytest.approx([0.4, 0.6, 0.8])


def test_intervals_hold_the_true_mean_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(0), 0
    for repeat in range(150):
        score, cost = rng.beta(2, 3, 60), rng.exponential(2.0, 60)
        found = policy_point("x", score, cost, cluster_bootstrap(["one"] * 60, seed=repeat, resamples=300))
        assert found.score == score.mean()
        assert found.score_ci[0] < found.score < found.score_ci[1]
        held += (found.score_ci[0] <= 0.4 <= found.score_ci[1]) + (found.cost_ci[0] <= 2.0 <= found.cost_ci[1])
    assert 0.89 <= held / 300 <= 0.98


def test_intervals_of_groups_that_differ_hold_it_too_where_those_of_questions_would_not() -> None:
    rng = np.random.default_rng(1)
    groups = [f"g{i % 25}" for i in range(250)]
    held = {"groups": 0, "questions": 0}
    for repeat in range(80):
        score = 0.5 + 0.2 * rng.normal(size=25)[np.arange(250) % 25] + 0.05 * rng.normal(size=250)
        for name, of in (("groups", groups), ("questions", ["one"] * 250)):
            low, high = policy_point("x", score, score, cluster_bootstrap(of, seed=repeat, resamples=300)).score_ci
            held[name] += low <= 0.5 <= high
    assert held["groups"] / 80 > 0.85
    assert held["questions"] / 80 < 0.7


def test_draws_take_whole_groups_where_there_are_enough_of_them() -> None:
    groups = [f"g{i // 5}" for i in range(50)]
    draws = cluster_bootstrap(groups, resamples=50)
    assert draws.shape == (50, 50)
    for draw in draws:
        times = np.bincount(draw, minlength=50).reshape(10, 5)
        assert (times == times[:, :1]).all(), "groups of one size are drawn as they are"
    assert not (cluster_bootstrap(groups, seed=1, resamples=50) == draws).all()
    assert (cluster_bootstrap(groups, resamples=50) == draws).all()
    few = cluster_bootstrap(["a"] * 25 + ["b"] * 25, resamples=50)
    assert any(len(set(np.bincount(draw, minlength=50)[:25])) > 1 for draw in few), "two groups: questions are drawn"


def test_groups_of_unlike_size_leave_means_unbiased() -> None:
    groups = [f"g{g}" for g in range(12) for _ in range(1 + 3 * (g % 4))]
    score = np.arange(len(groups)) / len(groups)
    draws = cluster_bootstrap(groups, resamples=3000)
    assert draws.shape == (3000, len(groups))
    assert score[draws].mean() == pytest.approx(score.mean(), abs=0.02)
    assert (cluster_bootstrap(["a"], resamples=5) == 0).all()


def test_a_policy_above_the_hull_is_said_to_be_so_and_a_mix_is_not() -> None:
    rng = np.random.default_rng(0)
    n = 400
    hard = rng.random(n) < 0.5
    fixed_score = np.stack([np.where(hard, 0.1, 0.9), np.full(n, 0.9)], axis=1) + 0.05 * rng.normal(size=(n, 2))
    fixed_cost = np.stack([np.full(n, 1.0), np.full(n, 5.0)], axis=1)
    draws, rows = cluster_bootstrap(["one"] * n, resamples=500), np.arange(n)

    def measured(chosen: Any) -> Any:
        return policy_point("p", fixed_score[rows, chosen], fixed_cost[rows, chosen], draws, (fixed_score, fixed_cost))

    clever, blind = measured(hard.astype(int)), measured(rng.integers(0, 2, n))
    assert clever.above_hull == pytest.approx(0.2, abs=0.03)
    assert clever.above_hull_ci[0] > 0.1
    assert clever.above_hull_ci[0] < clever.above_hull < clever.above_hull_ci[1]
    assert blind.above_hull_ci[0] < 0 < blind.above_hull_ci[1]
    for place in (0, 1):
        alone = measured(np.full(n, place))
        assert alone.above_hull == pytest.approx(0)
        assert alone.above_hull_ci == pytest.approx((0, 0), abs=1e-9)
    assert policy_point("p", fixed_score[:, 0], fixed_cost[:, 0], draws).above_hull is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
@settings(deadline=None)
def test_an_interval_lies_within_what_was_drawn(drawn: list[float]) -> None:
    low, high = percentile_interval(np.array(drawn))
    assert min(drawn) <= low <= high <= max(drawn)


names = st.sampled_from([f"conversation {i}" for i in range(12)])


@given(st.lists(names, min_size=3, max_size=60), st.integers(0, 50))
@settings(deadline=None)
def test_a_split_shares_no_group_and_forgets_no_question(groups: list[str], seed: int) -> None:
    if len(set(groups)) < 3:
        with pytest.raises(ConfigError, match=rf"the log has {len(set(groups))} conversation\(s\): training, valid"):
            split_questions(groups, seed)
        return
    parts = split_questions(groups, seed)
    own = [{groups[i] for i in part} for part in (parts.train, parts.validation, parts.test)]
    assert all(own), "none is empty"
    assert sum(len(part) for part in own) == len(set(groups)), "no group is in two of them"
    assert sorted(np.concatenate([parts.train, parts.validation, parts.test]).tolist()) == list(range(len(groups)))
    again = split_questions(groups, seed)
    assert (again.train == parts.train).all()
    assert (again.test == parts.test).all()


def test_ten_conversations_are_split_as_the_benchmark_says() -> None:
    groups = [f"c{i}" for i in range(10)]
    found = [split_questions(groups, seed) for seed in range(3)]
    assert {(len(p.train), len(p.validation), len(p.test)) for p in found} == {(6, 1, 3)}
    assert len({tuple(p.test) for p in found}) > 1, "another seed, other conversations"


def test_the_table_of_a_shuffled_sweep_is_that_of_the_sorted_one() -> None:
    log = make_sweep(n=9)
    order = np.random.default_rng(0).permutation(len(log))
    one, other = outcome_table(log), outcome_table(log.rows(order))
    for name in one.__dataclass_fields__:
        assert (getattr(one, name) == getattr(other, name)).all(), name
    scores, costs = log.tables()
    assert (one.score == scores).all()
    assert (one.cost == costs).all()
    row = 4 * 243 + int("20112", 3)
    assert one.score[4, int("20112", 3)] == log.score[row]
    assert (one.retrieved[4] == log.vectors[log.reads[row, 0]]).all()
    assert (one.filtered[4, 2] == log.vectors[log.reads[row, 1]]).all()
    assert (one.extracted[4, int("2011", 3)] == log.vectors[log.reads[row, 2]]).all()


def test_a_sweep_without_vectors_is_a_table_of_zeros_and_an_incomplete_log_is_none() -> None:
    from dataclasses import replace

    log = make_sweep(n=3)
    bare = replace(log, reads=np.full_like(log.reads, -1), vectors=log.vectors[:0])
    assert not outcome_table(bare).extracted.any()
    partly = replace(log, reads=np.where(np.arange(3) == 2, -1, log.reads).astype(np.int32))
    assert not outcome_table(partly).extracted.any()
    assert (outcome_table(partly).filtered == outcome_table(log).filtered).all()
    with pytest.raises(ConfigError, match="does not hold all 243 combinations"):
        outcome_table(log.rows(np.arange(1, len(log))))


class Reader:
    """High where what is read leans one way, so that every stage matters."""

    name = "reader"

    def __init__(self) -> None:
        self.asked: list[State] = []

    def probabilities(self, module: Any, state: State, tradeoff: float = 0.0) -> tuple[float, float, float]:
        self.asked.append(state)
        place = int(np.digitize(float(state.read[MODULES.index(module)]), [-0.1, 0.1]))
        return tuple(float(i == place) for i in range(3))  # type: ignore[return-value]


def test_a_router_is_asked_before_what_its_own_choices_lead_to() -> None:
    log: TierLog = make_sweep(n=12)
    table, router = outcome_table(log), Reader()
    chosen = greedy_combinations(router, table, 0.3)
    for i, number in enumerate(chosen.tolist()):
        tiers = [number // 3**p % 3 for p in (4, 3, 2, 1, 0)]
        seen = [table.retrieved[i], *[table.filtered[i, tiers[0]]] * 3, table.extracted[i, number // 3]]
        assert all((router.asked[5 * i + m].read == seen[m]).all() for m in range(5))
        assert tiers == [int(np.digitize(float(seen[m][m]), [-0.1, 0.1])) for m in range(5)]
    assert len(set(chosen.tolist())) > 5
    assert (greedy_combinations(FixedTiers("mid"), table, 0.0) == 121).all()
    assert table.query.shape == (12, D)


def test_measuring_shows_the_fixed_policies_and_the_router_at_each_tradeoff() -> None:
    log = make_sweep(n=40)
    table = outcome_table(log)
    points, oracle = evaluate_router(table, log.groups, FixedTiers("mid"), grid=(0.0, 0.5))
    by_name = {p.name: p for p in points}
    assert {"all-low", "all-mid", "all-high", "random", "fixed λ=0", "fixed λ=0.5"} <= set(by_name)
    assert by_name["fixed λ=0"].score == by_name["all-mid"].score == pytest.approx(table.score[:, 121].mean())
    assert by_name["fixed λ=0"].cost == by_name["all-mid"].cost
    assert oracle == pytest.approx(table.score.max(axis=1).mean())
    assert oracle > max(p.score for p in points)
    for p in points:
        if "λ" not in p.name and p.name != "random":
            assert p.above_hull is not None
            assert p.above_hull <= 1e-9, "no fixed policy is above their hull"
    assert combination_name(0) == "all-low"
    assert combination_name(242) == "all-high"
    assert combination_name(int("00102", 3)) == "low-low-mid-low-high"
