"""Ridge regressions of reward and cost that learn from one example at a time: what the bandit routers know."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

RIDGE = 1.0


class Arms(NamedTuple):
    """Of one module's three tiers: two regressions on the same features, which therefore share one covariance."""

    inverse: Floats
    """A⁻¹ (3, p, p) of A = ridge + Σ x xᵀ"""
    weights: Floats
    """(3, 2, p): of the reward, of the cost"""
    noise: Floats
    """(4,): updates, then sums of what was predicted wrong: reward², reward · cost, cost²"""

    @classmethod
    def fresh(cls, features: int) -> Arms:
        return cls(np.stack([np.eye(features) / RIDGE] * 3), np.zeros((3, 2, features)), np.zeros(4))

    def copy(self) -> Arms:
        return Arms(*(part.copy() for part in self))

    def learn(self, tier: int, x: Floats, reward: float, cost: float) -> None:
        """One example more, in place (Sherman and Morrison)."""
        seen = self.inverse[tier] @ x
        scale = 1 + float(x @ seen)
        wrong = np.array([reward, cost]) - self.weights[tier] @ x
        self.weights[tier] += np.outer(wrong, seen / scale)
        self.inverse[tier] -= np.outer(seen, seen / scale)
        r, c = wrong.tolist()
        self.noise[:] += (1.0, r * r / scale, r * c / scale, c * c / scale)

    def predict(self, x: Floats, weight: float) -> tuple[list[float], list[float]]:
        """Worth (reward - `weight` · cost) and doubt (standard deviation of that worth) of the three tiers."""
        p = len(x)
        a, b, c, d, e, f = (self.weights.reshape(6, p) @ x).tolist()
        updates, rewards, both, costs = self.noise.tolist()
        # One example of noise 1 is assumed beforehand: without it the first answers would seem certain.
        noise = (1 + rewards - 2 * weight * both + weight * weight * costs) / (1 + updates)
        variances = ((self.inverse.reshape(3 * p, p) @ x).reshape(3, p) @ x).tolist()
        return (
            [a - weight * b, c - weight * d, e - weight * f],
            [math.sqrt(max(1e-18, noise * variance)) for variance in variances],
        )


class Spread(NamedTuple):
    """Running means and squares (Welford) of all rewards and costs, whose spreads make λ free of units."""

    count: float = 0.0
    reward: float = 0.0
    reward_squares: float = 0.0
    cost: float = 0.0
    cost_squares: float = 0.0

    def add(self, reward: float, cost: float) -> Spread:
        count = self.count + 1
        r, c = reward - self.reward, cost - self.cost
        return Spread(
            count,
            self.reward + r / count,
            self.reward_squares + r * r * (1 - 1 / count),
            self.cost + c / count,
            self.cost_squares + c * c * (1 - 1 / count),
        )

    @property
    def weight(self) -> float:
        """What one unit of cost weighs at λ = 1: both vary as much then."""
        n = max(1.0, self.count)
        rewards, costs = math.sqrt(self.reward_squares / n), math.sqrt(self.cost_squares / n)
        if costs <= 1e-9 * abs(self.cost):  # all the same but for rounding: nothing to weigh
            return 1.0
        return (rewards if rewards > 1e-9 * abs(self.reward) else 1.0) / costs
