"""The value router: it recovers a linear world, from all combinations or a few, and serves every λ."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentcascade.bench.memory.evaluation import greedy_combinations
from agentcascade.memory.combinations import COMBINATIONS, PLACES
from agentcascade.memory.types import State
from agentcascade.routers.tier.log import TierLog
from agentcascade.routers.tier.outcome_table import OutcomeTable, Reward
from agentcascade.routers.tier.values import ValueRouter, fit_log, fit_table
from agentcascade.types import MODULES

D = 10
TIERS_OF = np.arange(COMBINATIONS)[:, None] // PLACES % 3
PRICES = np.array([[0.0, 1, 3], [0, 1, 2], [0, 2, 4], [0, 1, 2], [0, 2, 5]])


class Linear:
    """What a tier adds to the score depends linearly on the question and on no other tier; prices do not depend."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.slopes, self.constants = 0.1 * rng.normal(size=(5, 3, D)), 0.03 * np.arange(3) * np.ones((5, 1))
        self.costs = 1 + PRICES[np.arange(5), TIERS_OF].sum(axis=1)

    def worth(self, query: Any) -> Any:
        """True scores (n, 243)."""
        parts = query @ self.slopes.transpose(0, 2, 1) + self.constants[:, None]
        whole = sum(parts[place][:, TIERS_OF[:, place]] for place in range(5))
        return 0.35 + whole

    def table(self, n: int, seed: int = 0, noise: float = 0.0) -> OutcomeTable:
        rng = np.random.default_rng([seed, 3])
        query = rng.normal(size=(n, D))
        query /= np.linalg.norm(query, axis=1, keepdims=True)
        score = self.worth(query) + noise * rng.normal(size=(n, COMBINATIONS))
        empty = np.zeros((n, 81, D), dtype=np.float16)
        cost = np.tile(self.costs, (n, 1))
        return OutcomeTable(query.astype(np.float32), empty[:, 0].astype(np.float32), empty[:, :3], empty, score, cost)


WORLD = Linear()


def logged(table: OutcomeTable, each: int = 1, seed: int = 0) -> TierLog:
    """`each` random rows of every question."""
    rng, n = np.random.default_rng(seed), len(table)
    question, number = np.repeat(np.arange(n), each), rng.integers(0, COMBINATIONS, n * each)
    return TierLog(
        questions=[f"q{i}" for i in range(n)],
        groups=[f"g{i % 10}" for i in range(n)],
        query=table.query,
        question=question.astype(np.int32),
        tiers=TIERS_OF[number].astype(np.int8),
        propensity=np.full(n * each, 1 / COMBINATIONS),
        score=np.clip(table.score[question, number], 0, 1),
        cost=table.cost[question, number],
        reads=np.full((n * each, 3), -1, dtype=np.int32),
        vectors=np.zeros((0, D), dtype=np.float16),
    )


def regret(router: ValueRouter, table: OutcomeTable, tradeoff: float, reward: Reward) -> float:
    """What it earns less than a router that knows the world, as a share of what that earns more than chance."""
    earned = reward(WORLD.worth(table.query), table.cost, tradeoff)
    chosen = router.worth(table.query, tradeoff).argmax(axis=1)
    best, usual = earned.max(axis=1).mean(), earned.mean()
    return float((best - earned[np.arange(len(table)), chosen].mean()) / (best - usual))


def test_a_linear_world_is_recovered() -> None:
    table = WORLD.table(200)
    reward = Reward.of(table.score, table.cost)
    fitted = fit_table(table, [f"g{i % 5}" for i in range(200)], reward, {}, strengths=(1e-3,))
    unseen = WORLD.table(100, seed=1)
    assert np.abs(fitted.router.worth(unseen.query, 0.0) - WORLD.worth(unseen.query)).max() < 0.05
    for tradeoff in (0.0, 0.1, 0.5, 0.9):
        assert regret(fitted.router, unseen, tradeoff, reward) < 0.02
    fixed = unseen.score.mean(axis=0).max()
    chosen = fitted.router.worth(unseen.query, 0.0).argmax(axis=1)
    assert unseen.score[np.arange(100), chosen].mean() > fixed + 0.1


def test_the_router_answers_by_module_what_its_best_combination_says() -> None:
    table = WORLD.table(60)
    router = fit_table(table, ["g"] * 60, Reward.of(table.score, table.cost), {}).router
    for tradeoff in (0.0, 0.4):
        best = router.worth(table.query, tradeoff).argmax(axis=1)
        assert (greedy_combinations(router, table, tradeoff) == best).all()
        assert len(set(best.tolist())) > 10
        state = State("", np.ascontiguousarray(table.query[0]), table.retrieved[0])
        alone = [router.probabilities(m, state, tradeoff) for m in reversed(MODULES)]
        assert [p.index(1.0) for p in alone] == TIERS_OF[best[0]][::-1].tolist()


@pytest.mark.parametrize("partial", [False, True])
def test_a_higher_price_of_cost_never_costs_more(partial: bool) -> None:
    table, unseen = WORLD.table(150, noise=0.1), WORLD.table(80, seed=1)
    reward = Reward.of(table.score, table.cost)
    if partial:
        router = fit_log(logged(table), reward, {}).router
    else:
        router = fit_table(table, [f"g{i % 5}" for i in range(150)], reward, {}).router
    predicted, rows = router.worth(unseen.query, 1e6), np.arange(80)
    chosen = [router.worth(unseen.query, t).argmax(axis=1) for t in np.linspace(0, 6, 31).tolist()]
    efficiency = np.array([predicted[rows, c] for c in chosen]) / 1e6
    assert (np.diff(efficiency, axis=0) >= -1e-4).all(), "of each question, as it is predicted"
    first, last = (float(unseen.cost[rows, c].mean()) for c in (chosen[0], chosen[-1]))
    assert last < reward.cheap + 0.5 < first - 3, "cheaper than the cheapest twentieth is no more efficient"


def test_of_the_whole_frontier_the_true_cost_falls_with_the_tradeoff() -> None:
    table, unseen = WORLD.table(150, noise=0.1), WORLD.table(80, seed=1)
    router = fit_table(table, [f"g{i % 5}" for i in range(150)], Reward.of(table.score, table.cost), {}).router
    rows = np.arange(80)
    grid = (0.0, 0.1, 0.3, 0.6, 1.0, 2.0)
    chosen = [router.worth(unseen.query, t).argmax(axis=1) for t in grid]
    costs = [unseen.cost[rows, c].mean() for c in chosen]
    scores = [unseen.score[rows, c].mean() for c in chosen]
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) == len(grid)
    assert scores[0] > scores[3] > scores[-1]


def test_one_random_combination_a_question_tells_what_tiers_add() -> None:
    table, unseen = WORLD.table(600, noise=0.05), WORLD.table(100, seed=1)
    log = logged(table)
    reward = Reward.of(log.score, log.cost)
    fitted = fit_log(log, reward, {"seed": 4}, strength=3.0)
    assert (fitted.router.card["strength"], fitted.router.card["seed"]) == (3.0, 4)
    truth = WORLD.worth(unseen.query)
    wrong = fitted.router.worth(unseen.query, 0.0) - truth
    assert np.sqrt((wrong**2).mean()) < 0.35 * truth.std()
    for tradeoff in (0.0, 0.3, 0.9):
        assert regret(fitted.router, unseen, tradeoff, reward) < 0.15


def test_more_logged_rows_are_worth_more() -> None:
    table, unseen = WORLD.table(300, noise=0.05), WORLD.table(100, seed=1)
    reward = Reward.of(table.score, table.cost)
    lost = [regret(fit_log(logged(table, each), reward, {}).router, unseen, 0.1, reward) for each in (1, 4, 40)]
    assert lost[0] > lost[1] > lost[2]
    assert lost[2] < 0.05


def test_the_strength_is_the_one_that_earns_most_in_groups_left_out() -> None:
    table = WORLD.table(60, noise=0.5)
    reward, strengths = Reward.of(table.score, table.cost), (1e-3, 10.0, 1e6)
    groups = [f"g{i % 6}" for i in range(60)]
    fitted = fit_table(table, groups, reward, {}, strengths)
    assert set(fitted.validation) == set(strengths)
    assert fitted.strength == max(strengths, key=lambda s: fitted.validation[s]) == fitted.router.card["strength"]
    by_hand = 0.0
    own = np.array(groups)
    for name in set(groups):
        rest, left = np.flatnonzero(own != name), np.flatnonzero(own == name)
        router = fit_table(table.select(rest), ["one"] * len(rest), reward, {}, (10.0,)).router
        for tradeoff in (0.0, 0.02, 0.05, 0.1, 0.3, 0.9):
            best = router.worth(table.query[left], tradeoff).argmax(axis=1)
            earned = reward(table.score[left, best], table.cost[left, best], tradeoff)
            by_hand += float(earned.mean()) * len(left) / 60 / 6
    assert fitted.validation[10.0] == pytest.approx(by_hand)


def test_questions_that_give_their_own_group_away_do_not_choose_the_strength() -> None:
    """Each conversation's questions are alike and wrong in one way: only what is left out shows that."""
    rng = np.random.default_rng(0)
    table = WORLD.table(60)
    own = np.arange(60) % 6
    query = np.eye(D, dtype=np.float32)[own] + 0.01 * rng.normal(size=(60, D)).astype(np.float32)
    score = 0.5 + 0.3 * rng.normal(size=(6, COMBINATIONS))[own] + 0.02 * TIERS_OF.sum(axis=1)
    peculiar = OutcomeTable(query, table.retrieved, table.filtered, table.extracted, score, table.cost)
    reward, strengths = Reward.of(score, table.cost), (1e-3, 1e6)
    by_groups = fit_table(peculiar, [f"g{g}" for g in own], reward, {}, strengths)
    one_by_one = fit_table(peculiar, [f"g{i}" for i in range(60)], reward, {}, strengths)
    assert one_by_one.strength == 1e-3
    assert one_by_one.validation[1e-3] > by_groups.validation[1e-3] + 0.3


def test_it_fits_where_every_cost_or_every_score_is_the_same(tmp_path: Path) -> None:
    table = WORLD.table(30)
    table.cost[:] = 4.0
    groups = [f"g{i % 3}" for i in range(30)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = fit_table(table, groups, Reward.of(table.score, table.cost), {}).router
        assert (one.worth(table.query, 0.9).argmax(axis=1) == one.worth(table.query, 0.0).argmax(axis=1)).all()
        table.score[:] = 0.0
        nothing = fit_table(table, groups, Reward.of(table.score, table.cost), {}).router
    assert np.isfinite(nothing.worth(table.query, 0.9)).all()
    path = tmp_path / "r.safetensors"
    one.save(path, note="x")
    assert ValueRouter(path).worth(table.query, 0.3).tobytes() == one.worth(table.query, 0.3).tobytes()
    assert ValueRouter(path).card["note"] == "x"
