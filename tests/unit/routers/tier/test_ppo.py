"""Training a tier router: what it learns, and that a training that is interrupted is none the worse for it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agentcascade.errors import ConfigError
from agentcascade.memory.combinations import COMBINATIONS, PLACES
from agentcascade.routers.tier.outcome_table import OutcomeTable, PlayedBatch, Reward
from agentcascade.routers.tier.policy import PolicyRouter
from agentcascade.routers.tier.ppo import Recipe, Trainer, TrainingResult, train_policy
from agentcascade.types import MODULES

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")  # not imported by every worker

D = 8
TIERS_OF = np.arange(COMBINATIONS)[:, None] // PLACES % 3
QUICK = Recipe(passes=12, noise=0.05, learning_rate=1e-3, batch=32, rollouts=8)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def world(n: int = 60, seed: int = 0) -> OutcomeTable:
    """The first component of a question says whether the filter and the summary are better low or high.

    Higher tiers of the other modules are a little better for all questions.
    """
    rng = np.random.default_rng(seed)
    query = rng.normal(size=(n, D))
    query[:, 0] = np.where(np.arange(n) % 2, 1.5, -1.5)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    wanted = np.where(query[:, 0] > 0, 2, 0)[:, None]
    right = (TIERS_OF[:, [0, 4]] == wanted[:, :, None]).mean(axis=2)
    reads = rng.normal(size=(n, 3, D)) * 0.1
    return OutcomeTable(
        query=query.astype(np.float32),
        retrieved=(query + 0.1 * rng.normal(size=(n, D))).astype(np.float32),
        filtered=reads.astype(np.float16),
        extracted=(rng.normal(size=(n, 81, D)) * 0.1).astype(np.float16),
        score=0.1 + 0.5 * right + 0.02 * TIERS_OF[:, 1:4].sum(axis=1) + 0.02 * rng.normal(size=(n, COMBINATIONS)),
        cost=np.tile(1.0 + TIERS_OF.sum(axis=1), (n, 1)),
    )


def trainer(
    recipe: Recipe = QUICK, learn: OutcomeTable | None = None, validation: OutcomeTable | None = None
) -> Trainer:
    learn = world() if learn is None else learn
    descriptions = np.random.default_rng(5).normal(size=(5, D)).astype(np.float32)
    descriptions /= np.linalg.norm(descriptions, axis=1, keepdims=True)
    held_out = world(20, 1) if validation is None else validation
    return Trainer(learn, held_out, Reward.of(learn.score, learn.cost), descriptions, recipe)


def same(one: TrainingResult, other: TrainingResult) -> bool:
    """Bit for bit."""
    return one.history == other.history and all(
        one.weights[name].tobytes() == other.weights[name].tobytes() for name in one.weights
    )


def test_it_learns_what_a_question_needs_and_what_that_costs() -> None:
    made = trainer(replace(QUICK, passes=20))
    trained = train_policy(made)
    made.network.load(trained.weights)
    unseen = world(40, 2)
    score, cost = made.greedy(unseen, 0.0)
    fixed = unseen.score.mean(axis=0)
    assert score.mean() > fixed.max() + 0.15, "no fixed combination suits both kinds of questions"
    dear_score, dear_cost = made.greedy(unseen, 0.9)
    assert dear_cost.mean() < cost.mean() - 1
    assert dear_score.mean() > fixed.max() + 0.1, "what the question needs is still chosen"
    validation = [p.validation for p in trained.history]
    assert [p.number for p in trained.history] == [*range(1, len(validation) + 1)]
    assert max(validation) == next(p.validation for p in reversed(trained.history) if p.best)
    assert trained.history[-1].entropy < trained.history[0].entropy < np.log(3) + 1e-6
    assert np.isfinite([p.value_loss for p in trained.history]).all()


def test_a_high_price_of_cost_alone_makes_it_cheap() -> None:
    made = trainer(replace(QUICK, tradeoff=20.0, passes=8))
    made.network.load(train_policy(made).weights)
    assert made.greedy(world(40, 2), 20.0)[1].mean() < 1.5
    assert not made.network.weights["tradeoff.weight"].any(), "one λ: there is nothing to tell the network"


def test_the_router_plays_as_the_network_did() -> None:
    from agentcascade.bench.memory.evaluation import greedy_combinations

    made = trainer(replace(QUICK, passes=4))
    made.network.load(train_policy(made).weights)
    unseen = world(40, 2)
    router = PolicyRouter.of(made.network.arrays(), {})
    for tradeoff in (0.0, 0.3, 0.9):
        rows, chosen = np.arange(40), greedy_combinations(router, unseen, tradeoff)
        score, cost = made.greedy(unseen, tradeoff)
        assert (unseen.score[rows, chosen] == score).all()
        assert (unseen.cost[rows, chosen] == cost).all()


def test_the_same_seed_gives_the_same_bits_and_another_others() -> None:
    recipe, learn = replace(QUICK, passes=2), world(30)
    first = train_policy(trainer(recipe, learn))
    assert same(first, train_policy(trainer(recipe, learn)))
    assert not same(first, train_policy(trainer(replace(recipe, seed=1), learn)))


@pytest.mark.parametrize("noise", [0.0, 0.15])
def test_an_interrupted_training_goes_on_bit_for_bit(noise: float, tmp_path: Path) -> None:
    recipe, path, learn = replace(QUICK, passes=4, noise=noise), tmp_path / "training.pt", world(30)
    whole = train_policy(trainer(recipe, learn))
    halves = trainer(recipe, learn)
    for progress in halves.run():
        if progress.number == 2:
            halves.save(path)
            break
    resumed = trainer(recipe, learn)
    resumed.restore(path)
    assert len(resumed.history) == 2
    numbers: list[int] = []
    rest = train_policy(resumed, on_pass=lambda p: numbers.append(p.number), keep=path)
    assert numbers == [3, 4]
    assert same(whole, rest)
    ended = trainer(recipe, learn)
    ended.restore(path)
    assert ended.done
    assert same(whole, train_policy(ended)), "what has ended stays ended"
    assert [p.name for p in tmp_path.iterdir()] == ["training.pt"]


def test_a_training_goes_on_with_the_recipe_it_began_with_only(tmp_path: Path) -> None:
    made, path = trainer(replace(QUICK, passes=1)), tmp_path / "training.pt"
    train_policy(made, keep=path)
    with pytest.raises(ConfigError, match="begun with another seed, clip: resume with the same, or start anew"):
        trainer(replace(QUICK, passes=1, seed=1, clip=0.1)).restore(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"is no state of a training .*: start anew"):
        trainer(replace(QUICK, passes=1)).restore(path)


@pytest.mark.parametrize("spoiled", ["score", "cost"])
def test_a_reward_that_is_no_number_is_refused(spoiled: str) -> None:
    learn = world()
    getattr(learn, spoiled)[7] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigError, match="a reward is no number"):
            train_policy(trainer(replace(QUICK, passes=1), learn))


def test_nothing_to_train_or_validate_on_is_refused() -> None:
    nothing = world().select(np.arange(0))
    with pytest.raises(ConfigError, match="questions to train on and others to validate on"):
        trainer(validation=nothing)
    with pytest.raises(ConfigError, match="give a larger log or split"):
        Trainer(nothing, world(), Reward(0, 1, 1), np.ones((5, D), np.float32), QUICK)


def test_it_stops_when_validation_gets_no_better() -> None:
    """Nothing can be gained here, so the first pass stays the best."""
    flat = world(20)
    flat.score[:], flat.cost[:] = 0.5, 1.0
    made = trainer(replace(QUICK, passes=50, patience=3), flat, flat)
    trained = train_policy(made)
    assert len(trained.history) == 4
    assert [p.best for p in trained.history] == [True, False, False, False]
    assert trained.stopped_early
    assert not train_policy(trainer(replace(QUICK, passes=2), flat, flat)).stopped_early


def test_the_best_pass_is_kept_not_the_last() -> None:
    made = trainer(replace(QUICK, passes=3, patience=3))
    kept = {}
    for progress in made.run():
        kept[progress.number] = made.network.arrays()
    best = max(made.history, key=lambda p: p.validation).number
    assert all((made.result().weights[name] == weight).all() for name, weight in kept[best].items())


@pytest.mark.parametrize(("n", "rollouts", "batch"), [(5, 1, 4), (1, 1, 32), (5, 2, 4), (1, 8, 1)])
def test_batches_of_any_size_leave_the_weights_numbers(n: int, rollouts: int, batch: int) -> None:
    recipe = replace(QUICK, passes=2, rollouts=rollouts, batch=batch)
    trained = train_policy(trainer(recipe, world(n), world(3, 1)))
    assert all(np.isfinite(weight).all() for weight in trained.weights.values())


@given(st.lists(st.lists(st.integers(0, 2), min_size=5, max_size=5), min_size=1, max_size=8), st.integers(0, 10_000))
@settings(deadline=None, max_examples=50)
def test_a_table_plays_the_tiers_it_is_told(tiers: list[list[int]], seed: int) -> None:
    """And shows each stage what its tiers before would have made."""
    table, told = TABLE, np.array(tiers)
    questions = np.random.default_rng(seed).integers(0, len(table), len(told))
    given: dict[int, Any] = {}

    def policy(module: int, query: Any, read: Any, tradeoff: Any) -> Any:
        given[module] = read
        assert (query == table.query[questions]).all()
        return told[:, module]

    played: PlayedBatch = table.play(questions, policy, np.zeros(len(told), np.float32))
    combination = np.array([int("".join(map(str, row)), 3) for row in tiers])
    assert (played.tiers == told).all()
    assert (played.score == table.score[questions, combination]).all()
    assert (played.cost == table.cost[questions, combination]).all()
    assert (given[0] == table.retrieved[questions]).all()
    assert all((given[m] == table.filtered[questions, told[:, 0]]).all() for m in (1, 2, 3))
    assert (given[4] == table.extracted[questions, combination // 3]).all()
    assert all((played.reads[:, stage] == given[module]).all() for stage, module in ((0, 0), (1, 2), (2, 4)))
    assert len(MODULES) == 5


TABLE = world(12)

costs = arrays.arrays(np.float64, st.integers(2, 60), elements=st.floats(0, 1e6))


@given(costs, st.floats(0, 1), st.integers(0, 1000))
@settings(deadline=None)
def test_a_reward_weighs_scores_and_costs_of_like_spread(cost: Any, tradeoff: float, seed: int) -> None:
    score = np.random.default_rng(seed).random(len(cost))
    reward = Reward.of(score, cost)
    efficiency = reward.efficiency(cost)
    assert ((efficiency >= 0) & (efficiency <= 1)).all()
    assert (np.diff(efficiency[np.argsort(cost)]) <= 0).all(), "what costs more is not more efficient"
    if reward.dear > reward.cheap:
        assert (efficiency[cost <= np.percentile(cost, 5)] == 1).all()
        assert (efficiency[cost >= np.percentile(cost, 95)] == 0).all()
    if efficiency.std() > 1e-9:
        assert (reward.scale * efficiency).std() == pytest.approx(score.std())
    assert reward(score, cost, tradeoff) == pytest.approx(score + tradeoff * reward.scale * efficiency)
    assert (reward(score, cost, 0.0) == score).all()


def test_where_all_costs_the_same_only_the_score_counts() -> None:
    score, cost = np.array([0.1, 0.9, 0.4]), np.full(3, 7.0)
    reward = Reward.of(score, cost)
    assert np.diff(reward(score, cost, 0.9) - score).tolist() == pytest.approx([0, 0])
    assert np.isfinite(reward(score, cost, 0.9)).all()
