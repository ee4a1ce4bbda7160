"""Online ridge regressions of reward and cost for bandits: updates, predictions, and their standard deviations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from agentcascade.memory.types import Probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

RIDGE = 1.0


class TierRegressions(NamedTuple):
    """Regressions of reward and cost for each tier of a module, on the same features and with one covariance."""

    inverse: Floats
    """A⁻¹ (3, p, p) of A = ridge + Σ x xᵀ"""
    weights: Floats
    """(3, 2, p): of the reward, of the cost"""
    noise: Floats
    """(4,): updates, then sums of what was predicted wrong: reward², reward · cost, cost²"""

    @classmethod
    def fresh(cls, features: int) -> TierRegressions:
        return cls(np.stack([np.eye(features) / RIDGE] * 3), np.zeros((3, 2, features)), np.zeros(4))

    def copy(self) -> TierRegressions:
        return TierRegressions(*(part.copy() for part in self))

    def learn(self, tier: int, x: Floats, reward: float, cost: float) -> None:
        """Update with one example, in place (Sherman and Morrison)."""
        seen = self.inverse[tier] @ x
        scale = 1 + float(x @ seen)
        wrong = np.array([reward, cost]) - self.weights[tier] @ x
        self.weights[tier] += np.outer(wrong, seen / scale)
        self.inverse[tier] -= np.outer(seen, seen / scale)
        r, c = wrong.tolist()
        self.noise[:] += (1.0, r * r / scale, r * c / scale, c * c / scale)

    def predict(self, x: Floats, weight: float, usual: float) -> tuple[list[float], list[float]]:
        """Predict worth (reward - `weight` · cost) and its standard deviation for the three tiers.

        The prior mean of a tier's worth is `usual`, not 0: the constant's weight is moved there afterwards, which for
        ridge regression adds usual · ridge · (A⁻¹ x) at the constant.
        """
        p = len(x)
        a, b, c, d, e, f = (self.weights.reshape(6, p) @ x).tolist()
        updates, rewards, both, costs = self.noise.tolist()
        # One example of noise 1 is assumed beforehand: without it the first answers would seem certain.
        noise = (1 + rewards - 2 * weight * both + weight * weight * costs) / (1 + updates)
        seen = (self.inverse.reshape(3 * p, p) @ x).reshape(3, p)
        variances = (seen @ x).tolist()
        low, mid, high = (usual * RIDGE * seen[:, -1]).tolist()
        return (
            [a - weight * b + low, c - weight * d + mid, e - weight * f + high],
            [math.sqrt(max(1e-18, noise * variance)) for variance in variances],
        )


class RewardSpread(NamedTuple):
    """Running means and squares (Welford) of rewards and costs, whose spreads make λ free of units."""

    seen: float = 0.0
    reward: float = 0.0
    reward_squares: float = 0.0
    cost: float = 0.0
    cost_squares: float = 0.0

    def add(self, reward: float, cost: float) -> RewardSpread:
        seen = self.seen + 1
        r, c = reward - self.reward, cost - self.cost
        return RewardSpread(
            seen,
            self.reward + r / seen,
            self.reward_squares + r * r * (1 - 1 / seen),
            self.cost + c / seen,
            self.cost_squares + c * c * (1 - 1 / seen),
        )

    @property
    def weight(self) -> float:
        """Weight of one unit of cost at λ = 1, at which rewards and weighted costs have the same spread."""
        n = max(1.0, self.seen)
        rewards, costs = math.sqrt(self.reward_squares / n), math.sqrt(self.cost_squares / n)
        if costs <= 1e-9 * abs(self.cost):  # all the same but for rounding: nothing to weigh
            return 1.0
        return (rewards if rewards > 1e-9 * abs(self.reward) else 1.0) / costs


_NODES = [(float(x) / 2 + 0.5, float(w) / 2) for x, w in zip(*np.polynomial.legendre.leggauss(10))]


def best_probabilities(means: list[float], deviations: list[float]) -> Probabilities:
    """Probability that each of three independent normals is the largest.

    Being larger than both others is a bivariate normal. Those of the two with the smaller deviations are integrated,
    whose correlations are at most 1/√2, where ten nodes suffice for 1e-9; the third is the rest.
    """
    widest = deviations.index(max(deviations))
    probabilities = [0.0, 0.0, 0.0]
    for k in range(3):
        if k != widest:
            i, j = (k + 1) % 3, (k + 2) % 3
            left, right = math.hypot(deviations[k], deviations[i]), math.hypot(deviations[k], deviations[j])
            correlation = (deviations[k] / left) * (deviations[k] / right)
            probabilities[k] = _bivariate_normal(
                (means[k] - means[i]) / left, (means[k] - means[j]) / right, correlation
            )
    probabilities[widest] = max(0.0, 1.0 - sum(probabilities))
    return probabilities[0], probabilities[1], probabilities[2]


def _bivariate_normal(a: float, b: float, correlation: float) -> float:
    """P(X < a, Y < b) of standard normals (Drezner and Wesolowsky 1990)."""
    end, squares, product = math.asin(correlation), a * a + b * b, 2 * a * b
    total = 0.0
    for node, weight in _NODES:
        sine = math.sin(end * node)
        total += weight * math.exp((product * sine - squares) / (2 - 2 * sine * sine))
    return max(0.0, _normal_cdf(a) * _normal_cdf(b) + end / (2 * math.pi) * total)


def _normal_cdf(a: float) -> float:
    return 0.5 * math.erfc(-a / math.sqrt(2))
