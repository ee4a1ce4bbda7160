"""Value router: a tier router with ridge regressions of every combination's score and efficiency on the question.

They are predicted from the question alone, so λ is a weight at call time: one router serves the whole frontier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.errors import ConfigError
from agentcascade.memory.combinations import COMBINATIONS, PLACES
from agentcascade.memory.types import Probabilities, State
from agentcascade.routers.tier import checkpoints
from agentcascade.routers.tier.baselines import check_tradeoff
from agentcascade.routers.tier.outcome_table import OutcomeTable, Reward
from agentcascade.types import MODULES, TIERS, ModuleName

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector
    from agentcascade.routers.tier.log import TierLog
    from agentcascade.routers.tier.outcome_table import Floats, Ints

STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0)
GRID = (0.0, 0.02, 0.05, 0.1, 0.3, 0.9)
CONSTANT = 3.0
"""Feature that is the same for every question: large, so that the ridge hardly shrinks what a tier adds to all."""
CERTAIN: tuple[Probabilities, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


class ValueRouter:
    """Tier router that predicts the reward of every combination of tiers and takes the best one's.

    Args:
        path: its ``.safetensors`` file, with the card ``.json`` beside it.

    Raises:
        ConfigError: the file is no value router of these modules, or does not match its card.
        MissingExtra: safetensors is not installed.
    """

    name = "values"

    def __init__(self, path: str | Path) -> None:
        weights, self.card = checkpoints.load_checkpoint(Path(path), self.name, ("mean", "weights", "constants"))
        self._prepare(weights)

    @classmethod
    def of(cls, weights: Mapping[str, Vector], card: Mapping[str, Any]) -> ValueRouter:
        """A value router from weights in memory."""
        router = cls.__new__(cls)
        router.card = dict(card)
        router._prepare(weights)
        return router

    def _prepare(self, weights: Mapping[str, Vector]) -> None:
        self.weights = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in weights.items()}
        self.dimension = self.weights["mean"].size
        rows = 2 * COMBINATIONS
        shapes = {"mean": (self.dimension,), "weights": (rows, self.dimension), "constants": (rows,)}
        for name, wanted in shapes.items():
            if (shape := self.weights[name].shape) != wanted:
                raise ConfigError(f"the value router's {name} have shape {shape}, not {wanted}: train it again")
        self._offset = self.weights["constants"] - self.weights["weights"] @ self.weights["mean"]
        try:
            self._scale = np.float32(self.card["reward"]["scale"])
        except (KeyError, TypeError, ValueError):
            raise ConfigError(
                "the value router's card does not say how scores and costs were weighed: train it again"
            ) from None
        self._last: tuple[Vector | None, float, int] = (None, 0.0, 0)

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        """Certainty of the tier that the best combination has for this module."""
        last_query, last_tradeoff, best = self._last
        if last_query is not state.query or last_tradeoff != tradeoff:  # one question is asked about five times
            check_tradeoff(tradeoff)
            best = int(self.worth(state.query, tradeoff).argmax())
            self._last = state.query, tradeoff, best
        place = MODULES.index(module)
        return CERTAIN[best // PLACES[place] % len(TIERS)]

    def worth(self, query: Vector, tradeoff: float) -> Vector:
        """Predicted reward (combinations,) for one question (d,), or (n, combinations) for (n, d)."""
        predicted = query @ self.weights["weights"].T + self._offset
        return predicted[..., :COMBINATIONS] + np.float32(tradeoff) * self._scale * predicted[..., COMBINATIONS:]

    def check(self, encoder: str, dimension: int) -> None:
        """Raises `ConfigError` when questions are embedded by another encoder than it was trained on."""
        checkpoints.check_encoder(self.card, encoder, dimension)

    def save(self, path: Path, **facts: Any) -> None:
        """Write the weights and the card, with `facts` in it."""
        checkpoints.save_checkpoint(path, self.name, self.weights, {**self.card, **facts})


@dataclass(frozen=True)
class FittedRouter:
    """A fitted value router, its ridge strength, and how it did in cross-validation."""

    router: ValueRouter
    strength: float
    validation: dict[float, float]
    """Mean reward over λ by ridge strength, of questions whose conversation was left out."""


def fit_table(
    table: OutcomeTable,
    groups: Sequence[str],
    reward: Reward,
    card: Mapping[str, Any],
    strengths: Sequence[float] = STRENGTHS,
) -> FittedRouter:
    """Fit on a table, with the ridge strength that earns most in leave-one-group-out cross-validation."""
    names = sorted(set(groups))
    group_names = np.array(groups)
    earned = dict.fromkeys(strengths, 0.0)
    if len(names) > 1 and len(strengths) > 1:
        for name in names:
            others, held_out = np.flatnonzero(group_names != name), np.flatnonzero(group_names == name)
            for strength in strengths:
                router = _fit_ridge(table.select(others), reward, strength, card)
                earned[strength] += (
                    _mean_reward(router, table.select(held_out), reward) * len(held_out) / len(group_names)
                )
    best = max(strengths, key=lambda s: earned[s])
    return FittedRouter(_fit_ridge(table, reward, best, {**card, "strength": best}), best, earned)


def fit_log(log: TierLog, reward: Reward, card: Mapping[str, Any], strength: float = 30.0) -> FittedRouter:
    """Fit on a log without all combinations, by an additive model: a tier adds the same whatever the others are.

    It has one ridge regression on the question's vector for each tier of each module, all fitted together.
    """
    mean = log.query.mean(axis=0)
    x = (log.query - mean).astype(np.float64)[log.question]
    inputs = np.concatenate([x, np.full((len(x), 1), CONSTANT)], axis=1)
    chosen = np.eye(3)[log.tiers.astype(np.intp)].reshape(len(x), -1)
    features = (chosen[:, :, None] * inputs[:, None, :]).reshape(len(x), -1)
    y = np.stack([log.score, reward.efficiency(log.cost)], axis=1)
    usual = y.mean(axis=0)
    left = features.T @ features + strength * np.eye(features.shape[1])
    parts = np.linalg.solve(left, features.T @ (y - usual)).T.reshape(2, len(MODULES), len(TIERS), -1)
    places = np.arange(COMBINATIONS)[:, None] // np.array(PLACES) % len(TIERS)
    whole = parts[:, np.arange(len(MODULES)), places].sum(axis=2).reshape(2 * COMBINATIONS, -1)
    constants = np.repeat(usual, COMBINATIONS) + CONSTANT * whole[:, -1]
    return FittedRouter(
        _value_router(mean, whole[:, :-1], constants, reward, {**card, "strength": strength}), strength, {}
    )


def _fit_ridge(table: OutcomeTable, reward: Reward, strength: float, card: Mapping[str, Any]) -> ValueRouter:
    mean = table.query.mean(axis=0)
    x = (table.query - mean).astype(np.float64)
    y = np.concatenate([table.score, reward.efficiency(table.cost)], axis=1)
    constants = y.mean(axis=0)
    weights = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ (y - constants)).T
    return _value_router(mean, weights, constants, reward, card)


def _value_router(
    mean: Floats | Vector, weights: Floats, constants: Floats, reward: Reward, card: Mapping[str, Any]
) -> ValueRouter:
    facts = {"reward": {"cheap": reward.cheap, "dear": reward.dear, "scale": reward.scale}}
    single = {"mean": mean, "weights": weights, "constants": constants}
    return ValueRouter.of({k: np.asarray(v, dtype=np.float32) for k, v in single.items()}, {**card, **facts})


def _mean_reward(router: ValueRouter, table: OutcomeTable, reward: Reward) -> float:
    """Mean reward over questions and λ."""
    rows: Ints = np.arange(len(table))
    means = []
    for tradeoff in GRID:
        best = router.worth(table.query, tradeoff).argmax(axis=1)
        earned: Floats = reward(table.score[rows, best], table.cost[rows, best], tradeoff)
        means.append(float(earned.mean()))
    return float(np.mean(means))
