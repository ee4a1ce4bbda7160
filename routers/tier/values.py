"""A tier router that knows what every combination of tiers is worth: ridge regressions on the question's vector.

The score and the efficiency of each of the 243 combinations are predicted from the question alone, so λ is nothing
but a weight at call time: one router serves the whole frontier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.errors import ConfigError
from agentcascade.memory.types import Probabilities, State
from agentcascade.routers.tier import checkpoints
from agentcascade.routers.tier.baselines import check_tradeoff
from agentcascade.routers.tier.outcome_table import COMBINATIONS, PLACES, Reward, Table
from agentcascade.types import MODULES, ModuleName

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
    """Predicts score and efficiency of every combination; takes the best for the λ at hand.

    `path` is its ``.safetensors`` file, with the card beside it. Raises `ConfigError` for a file that is none.
    """

    name = "values"

    def __init__(self, path: str | Path) -> None:
        weights, self.card = checkpoints.load(Path(path), self.name, ("mean", "weights", "constants"))
        self._prepare(weights)

    @classmethod
    def of(cls, weights: Mapping[str, Vector], card: Mapping[str, Any]) -> ValueRouter:
        """A router from its weights, without a file."""
        made = cls.__new__(cls)
        made.card = dict(card)
        made._prepare(weights)
        return made

    def _prepare(self, weights: Mapping[str, Vector]) -> None:
        self.weights = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in weights.items()}
        self.dimension = self.weights["mean"].size
        rows = 2 * COMBINATIONS
        shapes = {"mean": (self.dimension,), "weights": (rows, self.dimension), "constants": (rows,)}
        for name, wanted in shapes.items():
            if (found := self.weights[name].shape) != wanted:
                raise ConfigError(f"the value router's {name} have shape {found}, not {wanted}: train it again")
        self._offset = self.weights["constants"] - self.weights["weights"] @ self.weights["mean"]
        try:
            self._scale = np.float32(self.card["reward"]["scale"])
        except (KeyError, TypeError, ValueError):
            raise ConfigError(
                "the value router's card does not say how scores and costs were weighed: train it again"
            ) from None
        self._last: tuple[Vector | None, float, int] = (None, 0.0, 0)

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        """All on the tier that the best combination has for this module."""
        seen, at, best = self._last
        if seen is not state.query or at != tradeoff:  # one question is asked about five times
            check_tradeoff(tradeoff)
            best = int(self.worth(state.query, tradeoff).argmax())
            self._last = state.query, tradeoff, best
        place = MODULES.index(module)
        return CERTAIN[best // int(PLACES[place]) % 3]

    def worth(self, query: Vector, tradeoff: float) -> Vector:
        """Predicted reward of each combination (243,) for one question (d,), or (n, 243) for (n, d)."""
        predicted = query @ self.weights["weights"].T + self._offset
        return predicted[..., :COMBINATIONS] + np.float32(tradeoff) * self._scale * predicted[..., COMBINATIONS:]

    def check(self, encoder: str, dimension: int) -> None:
        """Raises `ConfigError` when questions are embedded by another encoder than it was trained on."""
        checkpoints.check_encoder(self.card, encoder, dimension)

    def save(self, path: Path, **facts: Any) -> None:
        """Write the weights and the card, with `facts` in it."""
        checkpoints.save(path, self.name, self.weights, {**self.card, **facts})


@dataclass(frozen=True)
class Fitted:
    router: ValueRouter
    strength: float
    validation: dict[float, float]
    """Mean reward over λ by ridge strength, of questions whose conversation was left out."""


def fit(
    table: Table, groups: Sequence[str], reward: Reward, card: Mapping[str, Any], strengths: Sequence[float] = STRENGTHS
) -> Fitted:
    """Fit on `table`; the ridge strength is the one that earns most when each of `groups` in turn is left out."""
    names = sorted(set(groups))
    own = np.array(groups)
    earned = dict.fromkeys(strengths, 0.0)
    if len(names) > 1 and len(strengths) > 1:
        for name in names:
            rest, left = np.flatnonzero(own != name), np.flatnonzero(own == name)
            for strength in strengths:
                router = _fit(table.select(rest), reward, strength, card)
                earned[strength] += _earns(router, table.select(left), reward) * len(left) / len(own)
    best = max(strengths, key=lambda s: earned[s])
    return Fitted(_fit(table, reward, best, {**card, "strength": best}), best, earned)


def fit_partial(log: TierLog, reward: Reward, card: Mapping[str, Any], strength: float = 30.0) -> Fitted:
    """Fit on a log that holds some combinations only: what a tier adds is taken to be the same whatever the others are.

    One ridge regression on the question's vector for each tier of each module, all fitted together.
    """
    mean = log.query.mean(axis=0)
    x = (log.query - mean).astype(np.float64)[log.question]
    told = np.concatenate([x, np.full((len(x), 1), CONSTANT)], axis=1)
    chosen = np.eye(3)[log.tiers.astype(np.intp)].reshape(len(x), -1)
    features = (chosen[:, :, None] * told[:, None, :]).reshape(len(x), -1)
    y = np.stack([log.score, reward.efficiency(log.cost)], axis=1)
    usual = y.mean(axis=0)
    left = features.T @ features + strength * np.eye(features.shape[1])
    parts = np.linalg.solve(left, features.T @ (y - usual)).T.reshape(2, len(MODULES), 3, -1)
    places = np.arange(COMBINATIONS)[:, None] // PLACES % 3
    whole = parts[:, np.arange(len(MODULES)), places].sum(axis=2).reshape(2 * COMBINATIONS, -1)
    constants = np.repeat(usual, COMBINATIONS) + CONSTANT * whole[:, -1]
    return Fitted(_made(mean, whole[:, :-1], constants, reward, {**card, "strength": strength}), strength, {})


def _fit(table: Table, reward: Reward, strength: float, card: Mapping[str, Any]) -> ValueRouter:
    mean = table.query.mean(axis=0)
    x = (table.query - mean).astype(np.float64)
    y = np.concatenate([table.score, reward.efficiency(table.cost)], axis=1)
    constants = y.mean(axis=0)
    weights = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ (y - constants)).T
    return _made(mean, weights, constants, reward, card)


def _made(
    mean: Floats | Vector, weights: Floats, constants: Floats, reward: Reward, card: Mapping[str, Any]
) -> ValueRouter:
    facts = {"reward": {"cheap": reward.cheap, "dear": reward.dear, "scale": reward.scale}}
    single = {"mean": mean, "weights": weights, "constants": constants}
    return ValueRouter.of({k: np.asarray(v, dtype=np.float32) for k, v in single.items()}, {**card, **facts})


def _earns(router: ValueRouter, table: Table, reward: Reward) -> float:
    """Mean reward over questions and λ."""
    rows: Ints = np.arange(len(table))
    found = []
    for tradeoff in GRID:
        best = router.worth(table.query, tradeoff).argmax(axis=1)
        earned: Floats = reward(table.score[rows, best], table.cost[rows, best], tradeoff)
        found.append(float(earned.mean()))
    return float(np.mean(found))
