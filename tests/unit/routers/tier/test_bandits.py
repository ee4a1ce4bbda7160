"""Bandit routers: the arithmetic, what they lose while they learn, λ at choice time, checkpoints, bad input."""

from __future__ import annotations

import json
import math
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.memory.types import State
from agentcascade.registry import construct
from agentcascade.routers.ridge import RIDGE, RewardSpread, TierRegressions, best_probabilities
from agentcascade.routers.tier import policy
from agentcascade.routers.tier.bandits import BanditRow, LinearThompson, LinUCB
from agentcascade.types import MODULES, TIERS

Bandit = LinUCB | LinearThompson
BANDITS: list[type[Bandit]] = [LinUCB, LinearThompson]
WIDTH = 6


def unit(rng: np.random.Generator, width: int = WIDTH) -> NDArray[np.float32]:
    drawn = rng.standard_normal(width)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def a_state(rng: np.random.Generator, width: int = WIDTH) -> State:
    return State("?", unit(rng, width), unit(rng, width) * np.float32(0.7))


def rows(count: int, seed: int = 0, width: int = WIDTH) -> list[BanditRow]:
    """Tiers tried at random: what they gave and what they cost."""
    rng, draws = np.random.default_rng(seed), random.Random(seed)
    found: list[BanditRow] = []
    for i in range(count):
        place = draws.randrange(3)
        reward = min(1.0, max(0.0, 0.3 + 0.1 * place + draws.gauss(0, 0.1)))
        found.append((MODULES[i % 5], a_state(rng, width), TIERS[place], reward, 0.001 * (1 + place)))
    return found


class World(NamedTuple):
    """Rewards that are linear in what is seen, another function for every tier."""

    weights: NDArray[np.float64]

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> World:
        return cls(rng.standard_normal((3, 2 * WIDTH)))

    def rewards(self, state: State) -> NDArray[np.float64]:
        return np.asarray(0.5 + 0.2 * self.weights @ np.concatenate([state.query, state.read]))

    def regrets(self, bandit: Bandit, rng: np.random.Generator, rounds: int) -> tuple[float, float, float]:
        """Lost in all against knowing every reward: by the bandit, by the best fixed tier, by chance."""
        all_rewards, lost = [], 0.0
        for _ in range(rounds):
            state = a_state(rng)
            rewards = self.rewards(state)
            tier = int(rng.choice(3, p=bandit.probabilities("topic", state)))
            bandit.update("topic", state, TIERS[tier], float(rewards[tier] + rng.normal(0, 0.1)))
            lost += rewards.max() - rewards[tier]
            all_rewards.append(rewards)
        table = np.array(all_rewards)
        ideal = table.max(axis=1).sum()
        return lost, float(ideal - table.sum(axis=0).max()), float(ideal - table.mean(axis=1).sum())


@pytest.mark.parametrize("kind", BANDITS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_learning_loses_far_less_than_any_fixed_tier_and_than_chance(kind: type[Bandit], seed: int) -> None:
    rng = np.random.default_rng(seed)
    lost, fixed, chance = World.drawn(rng).regrets(kind(), rng, 1200)
    assert lost < 0.12 * fixed
    assert lost < 0.12 * chance


@pytest.mark.parametrize("kind", BANDITS)
def test_what_was_learned_of_one_module_says_nothing_of_another(kind: type[Bandit]) -> None:
    bandit, fresh = kind(), kind()
    bandit.fit(("filter", state, tier, reward) for _, state, tier, reward, *_ in rows(60))
    seen = a_state(np.random.default_rng(9))
    assert bandit.probabilities("entity", seen) == fresh.probabilities("entity", seen)
    assert bandit.predict("filter", seen) != fresh.predict("filter", seen)


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(-2, 2), st.floats(0, 5)), max_size=60), st.integers(0, 99))
@settings(deadline=None)
def test_examples_one_by_one_give_the_regression_on_all_of_them(
    examples: list[tuple[int, float, float]], seed: int
) -> None:
    rng, p = np.random.default_rng(seed), 5
    arms = TierRegressions.fresh(p)
    xs = rng.standard_normal((len(examples), p))
    for x, (tier, reward, cost) in zip(xs, examples):
        arms.learn(tier, x, reward, cost)
    off = np.zeros(3)
    for tier in range(3):
        own = [i for i, example in enumerate(examples) if example[0] == tier]
        x, y = xs[own], np.array([examples[i][1:] for i in own]).reshape(-1, 2)
        covariance = RIDGE * np.eye(p) + x.T @ x
        solved = np.linalg.solve(covariance, x.T @ y)
        np.testing.assert_allclose(arms.weights[tier], solved.T, atol=1e-9)
        np.testing.assert_allclose(arms.inverse[tier], np.linalg.inv(covariance), atol=1e-9)
        wrong = y - x @ solved
        squares = wrong.T @ wrong + RIDGE * solved.T @ solved
        off += (squares[0, 0], squares[0, 1], squares[1, 1])
    np.testing.assert_allclose(arms.noise, [len(examples), *off], atol=1e-8)


def test_what_is_not_known_is_taken_to_be_as_usual() -> None:
    """As if every reward had been learned less 0.6 and every cost less 3, and those given back."""
    rng, arms, less = np.random.default_rng(0), TierRegressions.fresh(4), TierRegressions.fresh(4)
    for i in range(30):
        x, reward, cost = np.append(rng.standard_normal(3), 1.0), rng.random(), 5 * rng.random()
        arms.learn(i % 2, x, reward, cost)
        less.learn(i % 2, x, reward - 0.6, cost - 3)
    asked, weight = np.append(rng.standard_normal(3), 1.0), 0.05
    usual = 0.6 - weight * 3
    worth, _ = arms.predict(asked, weight, usual)
    bare, _ = less.predict(asked, weight, 0.0)
    assert worth == pytest.approx([w + usual for w in bare])
    assert worth[2] == pytest.approx(usual), "never tried"


def test_doubt_is_the_noise_of_the_worth_and_how_little_was_seen() -> None:
    rng, arms, weight = np.random.default_rng(0), TierRegressions.fresh(3), 0.4
    xs, ys = rng.standard_normal((40, 3)), rng.random((40, 2))
    for x, (reward, cost) in zip(xs, ys):
        arms.learn(1, x, reward, cost)
    covariance = RIDGE * np.eye(3) + xs.T @ xs
    worths = ys @ (1, -weight)
    solved = np.linalg.solve(covariance, xs.T @ worths)
    noise = (1 + ((worths - xs @ solved) ** 2).sum() + RIDGE * solved @ solved) / (1 + 40)
    asked = rng.standard_normal(3)
    expected = [asked @ asked / RIDGE, asked @ np.linalg.inv(covariance) @ asked, asked @ asked / RIDGE]
    assert arms.predict(asked, weight, 0.0)[1] == pytest.approx(np.sqrt(noise * np.array(expected)))


def test_a_higher_scale_makes_thompson_less_sure() -> None:
    state = a_state(np.random.default_rng(1))
    sure = []
    for scale in (0.1, 1.0, 10.0):
        bandit = LinearThompson(scale=scale)
        bandit.fit(rows(300))
        sure.append(max(bandit.probabilities("topic", state)))
    assert sure[0] > 0.95 > sure[1] > sure[2] > 1 / 3


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 9)), min_size=2, max_size=50))
def test_the_spread_is_that_of_all_rewards_and_costs(seen: list[tuple[float, float]]) -> None:
    spread = RewardSpread()
    for reward, cost in seen:
        spread = spread.add(reward, cost)
    deviations = np.array(seen).std(axis=0)
    np.testing.assert_allclose(
        np.sqrt([spread.reward_squares / len(seen), spread.cost_squares / len(seen)]), deviations, atol=1e-7
    )
    if min(deviations) > 1e-6:
        assert spread.weight == pytest.approx(deviations[0] / deviations[1], rel=1e-4)


means = st.lists(st.floats(-3, 3), min_size=3, max_size=3)
deviations = st.lists(st.floats(0.05, 4), min_size=3, max_size=3)


@given(means, deviations)
@settings(deadline=None)
def test_the_chance_of_being_best_is_exact(mean: list[float], deviation: list[float]) -> None:
    grid = np.linspace(-9, 9, 2001)
    below = np.frompyfunc(lambda a: 0.5 * math.erfc(-a / math.sqrt(2)), 1, 1)
    found = best_probabilities(mean, deviation)
    for k in range(3):
        density = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
        for other in {0, 1, 2} - {k}:
            density = density * below((mean[k] - mean[other] + deviation[k] * grid) / deviation[other]).astype(float)
        assert found[k] == pytest.approx(density.sum() * (grid[1] - grid[0]), abs=1e-6)


@given(means, st.lists(st.floats(1e-12, 1e6), min_size=3, max_size=3))
@settings(deadline=None)
def test_chances_are_probabilities_however_unlike_the_doubts(mean: list[float], deviation: list[float]) -> None:
    found = best_probabilities([1e3 * m for m in mean], deviation)
    assert all(0 <= p <= 1 + 1e-12 for p in found)
    assert sum(found) == pytest.approx(1)


def test_equal_tiers_are_equally_likely_and_a_sure_one_is_sure() -> None:
    assert best_probabilities([1, 1, 1], [2, 2, 2]) == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=1e-12)
    assert best_probabilities([0, 5, 0], [0.1, 0.1, 0.1]) == pytest.approx((0, 1, 0), abs=1e-12)
    assert best_probabilities([0, 0, -9], [1, 1, 1e-9]) == pytest.approx((0.5, 0.5, 0), abs=1e-9)


@pytest.mark.parametrize("kind", BANDITS)
def test_nothing_known_yet(kind: type[Bandit]) -> None:
    given = kind().probabilities("filter", a_state(np.random.default_rng(0)))
    assert given == ((1, 0, 0) if kind is LinUCB else pytest.approx((1 / 3, 1 / 3, 1 / 3)))


def test_a_bandit_without_alpha_takes_what_seems_best_and_one_with_it_tries_what_it_does_not_know() -> None:
    seen = a_state(np.random.default_rng(0))
    sure, curious = LinUCB(alpha=0), LinUCB(alpha=5)
    for bandit in (sure, curious):
        bandit.fit([("filter", seen, "low", 0.5)] * 10)
    assert sure.probabilities("filter", seen) == (1, 0, 0)
    assert curious.probabilities("filter", seen) == (0, 1, 0)


@pytest.mark.parametrize("unit_of_cost", [1e-5, 1.0, 1e4])
@pytest.mark.parametrize("make", [lambda: LinUCB(alpha=0), LinearThompson])
def test_the_tradeoff_is_chosen_at_the_call_whatever_the_unit_of_cost(
    make: Callable[[], Bandit], unit_of_cost: float
) -> None:
    """Low, mid and high give 0.3, 0.45 and 0.5 and cost 1, 2 and 8."""
    bandit, rng, draws = make(), np.random.default_rng(0), random.Random(0)
    for i in range(900):
        reward = (0.3, 0.45, 0.5)[i % 3] + draws.gauss(0, 0.02)
        bandit.update("summary", a_state(rng), TIERS[i % 3], reward, unit_of_cost * (1, 2, 8)[i % 3])
    tried = [a_state(rng) for _ in range(50)]

    def likeliest(tradeoff: float) -> set[int]:
        return {int(np.argmax(bandit.probabilities("summary", state, tradeoff))) for state in tried}

    assert (likeliest(0.0), likeliest(0.6), likeliest(10.0)) == ({2}, {1}, {0})


@pytest.mark.parametrize("kind", BANDITS)
def test_rows_without_a_cost_and_costs_that_are_all_the_same_leave_nothing_to_weigh(kind: type[Bandit]) -> None:
    bandit, same = kind(), kind()
    bandit.fit(row[:4] for row in rows(300))
    same.fit((*row[:4], 0.1) for row in rows(300))
    assert RewardSpread().add(0.5, 0.1).add(0.7, 0.1).add(0.9, 0.1).weight == 1, "not a spread of rounding errors"
    seen = a_state(np.random.default_rng(5))
    assert bandit.probabilities("topic", seen, 0.0) == bandit.probabilities("topic", seen, 1.0)
    assert np.argmax(same.probabilities("topic", seen, 0.0)) == np.argmax(same.probabilities("topic", seen, 1.0))


@given(st.sampled_from(BANDITS), st.sampled_from(MODULES), st.floats(0, 1), st.integers(0, 60), st.floats(0, 10))
def test_probabilities_are_probabilities(
    kind: type[Bandit], module: Any, tradeoff: float, learned: int, knob: float
) -> None:
    options: dict[str, Any] = {kind.knob: knob}
    bandit = kind(**options)
    bandit.fit(rows(learned, seed=learned))
    state = a_state(np.random.default_rng(learned))
    given = bandit.probabilities(module, state, tradeoff)
    assert all(0 <= p <= 1 + 1e-12 for p in given)
    assert sum(given) == pytest.approx(1)
    assert given == bandit.probabilities(module, state, tradeoff)


@pytest.mark.parametrize("kind", BANDITS)
def test_fitting_is_updating_one_by_one(kind: type[Bandit]) -> None:
    fitted, updated = kind(), kind()
    assert fitted.fit(iter(rows(50))) == 50
    for row in rows(50):
        updated.update(*row)
    seen = a_state(np.random.default_rng(3))
    assert [fitted.predict(m, seen, 0.4) for m in MODULES] == [updated.predict(m, seen, 0.4) for m in MODULES]


def test_threads_teach_and_ask_at_once_and_nothing_is_lost() -> None:
    bandit, learned = LinearThompson(), rows(800)
    asked: list[float] = []
    done = threading.Event()

    def ask() -> None:
        seen = a_state(np.random.default_rng(1))
        while not done.is_set():
            asked.extend(sum(bandit.probabilities(m, seen, 0.5)) for m in MODULES)

    def teach(part: int) -> None:
        for row in learned[part::4]:
            bandit.update(*row)

    asking, teaching = threading.Thread(target=ask), [threading.Thread(target=teach, args=(i,)) for i in range(4)]
    for thread in (asking, *teaching):
        thread.start()
    for thread in teaching:
        thread.join()
    done.set()
    asking.join()
    alone = LinearThompson()
    alone.fit(learned)
    seen = a_state(np.random.default_rng(2))
    for module in MODULES:
        np.testing.assert_allclose(bandit.predict(module, seen, 0.5), alone.predict(module, seen, 0.5), rtol=1e-6)
    assert asked == pytest.approx([1.0] * len(asked))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    bandit = LinUCB(alpha=0.7, encoder="minilm", seed=4, dimension=8)
    bandit.fit(rows(200))
    bandit.save(tmp_path / "bandit.safetensors", data="locomo", split=[6, 1, 3])
    return tmp_path / "bandit.safetensors"


@pytest.mark.parametrize("kind", BANDITS)
def test_a_saved_bandit_decides_the_same_bit_for_bit_and_learns_on(kind: type[Bandit], tmp_path: Path) -> None:
    options: dict[str, Any] = {kind.knob: 0.6}
    bandit = kind(**options, encoder="minilm", seed=7)
    bandit.fit(rows(300, width=48))
    bandit.save(tmp_path / "deep" / "b.safetensors")
    again = kind(tmp_path / "deep" / "b.safetensors")
    rng = np.random.default_rng(8)
    for _ in range(2):
        for seen in [a_state(rng, 48) for _ in range(40)]:
            for module in MODULES:
                for tradeoff in (0.0, 0.5):
                    assert again.predict(module, seen, tradeoff) == bandit.predict(module, seen, tradeoff)
                    assert again.probabilities(module, seen, tradeoff) == bandit.probabilities(module, seen, tradeoff)
        for other in (bandit, again):
            other.fit(rows(20, seed=3, width=48))


def test_the_card_tells_what_the_file_is(saved: Path) -> None:
    card = json.loads(saved.with_suffix(".json").read_text())
    told = {"router": "linucb", "encoder": "minilm", "width": WIDTH, "dimension": 8, "seed": 4, "alpha": 0.7}
    assert card.items() >= (told | {"data": "locomo", "updates": dict.fromkeys(MODULES, 40)}).items()
    assert LinUCB(saved).alpha == 0.7
    assert LinUCB(saved, alpha=0).alpha == 0
    assert construct("tier_routers", "linucb", "memory.router.name", {"path": str(saved)}).card == card


def test_either_bandit_reads_what_the_other_learned(saved: Path) -> None:
    seen = a_state(np.random.default_rng(1))
    thompson = construct("tier_routers", "thompson", "memory.router.name", {"path": saved})
    assert thompson.predict("topic", seen, 0.2) == LinUCB(saved).predict("topic", seen, 0.2)
    assert thompson.scale == 1


def test_vectors_of_another_encoder_are_refused_before_the_first_question(saved: Path) -> None:
    bandit = LinUCB(saved)
    bandit.check("minilm", WIDTH)
    with pytest.raises(ConfigError, match=r"learned from vectors of minilm \(6 dimensions\), .* with mpnet \(768\)"):
        bandit.check("mpnet", 768)
    with pytest.raises(ConfigError, match=r"minilm \(6 dimensions\), the memory embeds with minilm \(384\)"):
        bandit.check("minilm", 384)
    with pytest.raises(ConfigError, match="learned from vectors of minilm, encoder is mpnet"):
        LinUCB(saved, encoder="mpnet")
    with pytest.raises(ConfigError, match="learned from 8 features, dimension is 32"):
        LinUCB(saved, dimension=32)


def test_a_new_bandit_takes_the_encoder_of_the_memory_that_it_is_put_into(tmp_path: Path) -> None:
    bandit = LinUCB()
    bandit.check("minilm", WIDTH)
    bandit.fit(rows(10))
    bandit.save(tmp_path / "b.safetensors")
    assert LinUCB(tmp_path / "b.safetensors").encoder == "minilm"
    with pytest.raises(ConfigError, match="minilm"):
        bandit.check("hashing", WIDTH)


def test_a_bandit_that_cannot_say_what_it_learned_from_is_not_saved(tmp_path: Path) -> None:
    bandit = LinearThompson()
    with pytest.raises(ConfigError, match="without anything learned"):
        bandit.save(tmp_path / "b.safetensors")
    bandit.fit(rows(3))
    with pytest.raises(ConfigError, match=r"without an encoder: make it with encoder=\.\.\."):
        bandit.save(tmp_path / "b.safetensors")
    assert list(tmp_path.iterdir()) == []


def edit(card: Path, **values: Any) -> None:
    card.write_text(json.dumps(json.loads(card.read_text()) | values))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: f.unlink(), "there is no file"),
        (lambda f: f.with_suffix(".json").unlink(), "bandit.json: train one with"),
        (lambda f: f.write_bytes(f.read_bytes()[:-40]), "is not a tier router (SafetensorError"),
        (lambda f: f.with_suffix(".json").write_text("[1]"), "is not a tier router (AttributeError"),
        (lambda f: edit(f.with_suffix(".json"), router=None), "holds a router of the kind None, not linucb"),
        (lambda f: edit(f.with_suffix(".json"), width="6"), "bandit.json says nothing usable of width"),
        (lambda f: edit(f.with_suffix(".json"), format=9), "has format 9, this version reads 1"),
        (
            lambda f: edit(f.with_suffix(".json"), modules=["filter", "graph"]),
            "was trained for the modules filter, graph; this memory has filter, entity, temporal, topic, summary",
        ),
        (lambda f: edit(f.with_suffix(".json"), sha="0"), "is not the file that its card bandit.json describes"),
        (lambda f: edit(f.with_suffix(".json"), dimension=9), "projection is not of shape (2, 9, 6)"),
        (lambda f: edit(f.with_suffix(".json"), alpha="much"), "alpha is 'much': it multiplies the doubt"),
    ],
)
def test_a_harmed_checkpoint_is_refused(saved: Path, harm: Callable[[Path], Any], message: str) -> None:
    harm(saved)
    with pytest.raises(ConfigError) as error:
        LinUCB(saved)
    assert message in str(error.value)


def test_a_bandit_is_no_policy(saved: Path) -> None:
    with pytest.raises(ConfigError, match=r"of the kind 'linucb', not policy"):
        policy.PolicyRouter(saved)


def test_two_files_of_different_bandits_are_not_mixed(saved: Path, tmp_path: Path) -> None:
    other = LinUCB(encoder="minilm", dimension=8)
    other.fit(rows(30, seed=5))
    other.save(tmp_path / "other.safetensors")
    shutil.copy(tmp_path / "other.json", saved.with_suffix(".json"))
    with pytest.raises(ConfigError, match="copy both together"):
        LinUCB(saved)


SEEN = a_state(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("filter", SEEN, "low", math.nan), "the reward of filter at low is nan"),
        (("topic", SEEN, "mid", math.inf, 0.0), "the reward of topic at mid is inf"),
        (("topic", SEEN, "high", 0.5, math.nan), "the cost of topic at high is nan"),
        (("fliter", SEEN, "low", 0.5), "the module 'fliter' is unknown: did you mean 'filter'?"),
        (("filter", SEEN, "medium", 0.5), "the tier 'medium' is unknown"),
        (("filter", SEEN, "low"), "a row has 3 values"),
        (
            ("filter", SEEN._replace(query=np.ones(9, np.float32)), "low", 0.5),
            "shapes (9,) and (6,): this linucb router",
        ),
        (("filter", SEEN._replace(read=np.full(6, np.nan, np.float32)), "low", 0.5), "values that are no numbers"),
    ],
)
def test_what_cannot_be_learned_from_raises_and_leaves_nothing_behind(row: Any, message: str) -> None:
    bandit, untouched = LinUCB(), LinUCB()
    for each in (bandit, untouched):
        each.fit(rows(20))
    with pytest.raises(InvalidRequest) as error:
        bandit.fit([*rows(5, seed=1), row])
    assert message in str(error.value)
    assert [bandit.predict(m, SEEN, 0.5) for m in MODULES] == [untouched.predict(m, SEEN, 0.5) for m in MODULES]


@pytest.mark.parametrize("kind", BANDITS)
def test_what_cannot_be_decided_on_raises(kind: type[Bandit]) -> None:
    bandit = kind()
    bandit.fit(rows(20))
    with pytest.raises(InvalidRequest, match="values that are no numbers"):
        bandit.probabilities("filter", SEEN._replace(query=np.full(WIDTH, np.nan, np.float32)))
    with pytest.raises(InvalidRequest, match="learns from vectors of 6 dimensions"):
        bandit.probabilities("filter", a_state(np.random.default_rng(0), 12))
    with pytest.raises(InvalidRequest, match="tradeoff is nan"):
        bandit.probabilities("filter", SEEN, math.nan)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("linucb", {"alpha": -1}, "alpha is -1"),
        ("linucb", {"alpha": math.nan}, "alpha is nan"),
        ("thompson", {"scale": "x"}, "scale is 'x'"),
        ("thompson", {"alpha": 1}, "'thompson' does not take {'alpha': 1}"),
        ("linucb", {"dimension": 0}, "dimension is 0: it is a number of features, at least 1"),
        ("linucb", {"path": "nowhere.safetensors"}, "there is no file nowhere.json"),
    ],
)
def test_what_cannot_be_configured_is_said(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        construct("tier_routers", name, "memory.router.name", options)
    assert message in str(error.value)
