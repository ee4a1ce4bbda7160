"""Quality-cost frontier: the upper convex hull of fixed policies, and other policies' score above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 2000


@dataclass(frozen=True)
class PolicyPoint:
    """Mean score and cost of a policy, with 95 % bootstrap intervals over clusters of questions."""

    name: str
    score: float
    score_ci: tuple[float, float]
    cost: float
    cost_ci: tuple[float, float]
    above_hull: float | None = None
    """Score minus that of the fixed policies' hull at the same cost, which random mixes of them reach"""
    above_hull_ci: tuple[float, float] | None = None


def upper_hull(costs: Floats, scores: Floats) -> list[int]:
    """Indices of the policies on the upper hull, cheapest first: no mix of others is both cheaper and better."""
    order = np.lexsort((-scores, costs))
    corners: list[int] = []
    for i in (int(i) for i in order):
        if corners and scores[i] <= scores[corners[-1]]:
            continue
        while len(corners) >= 2 and _below(corners[-2], corners[-1], i, costs, scores):
            corners.pop()
        corners.append(i)
    return corners


def _below(a: int, b: int, c: int, costs: Floats, scores: Floats) -> bool:
    """Whether b lies on or below the line from a to c."""
    return bool((scores[b] - scores[a]) * (costs[c] - costs[a]) <= (scores[c] - scores[a]) * (costs[b] - costs[a]))


def hull_score(costs: Floats, scores: Floats, cost: float) -> float:
    """The hull's score at `cost`; below the cheapest policy's cost that policy's score."""
    corners = upper_hull(costs, scores)
    return float(np.interp(cost, costs[corners], scores[corners]))


def cluster_bootstrap(
    groups: Sequence[str], seed: int = 0, resamples: int = RESAMPLES, least: int = 8
) -> NDArray[np.int64]:
    """Cluster bootstrap: draws (resamples, n) of whole groups where there are at least `least`, else of questions.

    Fewer groups say too little of how groups differ; then the interval is conditional on these groups.
    """
    rng = np.random.default_rng(seed)
    names = sorted(set(groups))
    n = len(groups)
    if len(names) < least:
        return rng.integers(0, n, (resamples, n))
    rows_of_group = {name: np.flatnonzero(np.array(groups) == name) for name in names}
    drawn = rng.integers(0, len(names), (resamples, len(names)))
    rows = [np.concatenate([rows_of_group[names[i]] for i in draw]) for draw in drawn]
    # Draws differ in length; each is filled up, or cut, at random to the same n, which leaves its mean unbiased.
    return np.stack([row[rng.permutation(len(row))[:n]] if len(row) >= n else _padded(row, n, rng) for row in rows])


def _padded(row: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.concatenate([row, row[rng.integers(0, len(row), n - len(row))]])


def policy_point(
    name: str, score: Floats, cost: Floats, draws: NDArray[np.int64], fixed: tuple[Floats, Floats] | None = None
) -> PolicyPoint:
    """Means and intervals of a policy from `score` (n,), `cost` (n,); `fixed` are (n, policies) of the fixed ones."""
    scores, costs = score[draws].mean(axis=1), cost[draws].mean(axis=1)
    above, above_ci = None, None
    if fixed is not None:
        fixed_score, fixed_cost = fixed
        above = float(score.mean()) - hull_score(fixed_cost.mean(axis=0), fixed_score.mean(axis=0), float(cost.mean()))
        # The same corners in every draw: those that the means have.
        corners = upper_hull(fixed_cost.mean(axis=0), fixed_score.mean(axis=0))
        gaps = []
        for draw, s, c in zip(draws, scores, costs):
            x, y = fixed_cost[draw][:, corners].mean(axis=0), fixed_score[draw][:, corners].mean(axis=0)
            order = np.argsort(x)
            gaps.append(s - np.interp(c, x[order], y[order]))
        above_ci = percentile_interval(np.array(gaps))
    return PolicyPoint(
        name,
        float(score.mean()),
        percentile_interval(scores),
        float(cost.mean()),
        percentile_interval(costs),
        above,
        above_ci,
    )


def percentile_interval(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
