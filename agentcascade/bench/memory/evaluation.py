"""Evaluate a tier router on held-out questions of a sweep, beside fixed policies, a random one and the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from agentcascade.bench.frontier import PolicyPoint, cluster_bootstrap, policy_point, upper_hull
from agentcascade.memory.combinations import COMBINATIONS, STAGES, combination_tiers
from agentcascade.memory.types import State, TierRouter
from agentcascade.routers.tier.outcome_table import OutcomeTable
from agentcascade.types import MODULES, TIERS

if TYPE_CHECKING:
    from agentcascade.routers.tier.outcome_table import Ints

GRID = (0.0, 0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9)


def evaluate_router(
    table: OutcomeTable, groups: Sequence[str], router: TierRouter, grid: Sequence[float] = GRID
) -> tuple[list[PolicyPoint], float]:
    """Points of the fixed policies on the hull, the uniform ones, the random one, the router by λ; and the oracle."""
    draws, fixed = cluster_bootstrap(groups), (table.score, table.cost)
    costs, scores = table.cost.mean(axis=0), table.score.mean(axis=0)
    combinations = sorted({*upper_hull(costs, scores), 0, COMBINATIONS // 2, COMBINATIONS - 1}, key=lambda i: costs[i])
    points = [
        policy_point(combination_name(i), table.score[:, i], table.cost[:, i], draws, fixed) for i in combinations
    ]
    points.append(policy_point("random", table.score.mean(axis=1), table.cost.mean(axis=1), draws, fixed))
    for tradeoff in grid:
        chosen = greedy_combinations(router, table, tradeoff)
        rows = np.arange(len(table))
        points.append(
            policy_point(
                f"{router.name} λ={tradeoff:g}", table.score[rows, chosen], table.cost[rows, chosen], draws, fixed
            )
        )
    return points, float(table.score.max(axis=1).mean())


def greedy_combinations(router: TierRouter, table: OutcomeTable, tradeoff: float) -> Ints:
    """Combination (n,) of each question's likeliest tiers, chosen decision by decision."""
    combinations = np.zeros(len(table), dtype=np.int64)
    for i in range(len(table)):
        query = np.ascontiguousarray(table.query[i])
        reads = [table.retrieved[i], None, None]
        number = 0
        for place, module in enumerate(MODULES):
            if place == 1:
                reads[1] = table.filtered[i, number].astype(np.float32)
            if place == len(MODULES) - 1:
                reads[2] = table.extracted[i, number].astype(np.float32)
            read = reads[STAGES[place]]
            assert read is not None
            chances = router.probabilities(module, State("", query, read), tradeoff)
            number = len(TIERS) * number + int(np.argmax(chances))
        combinations[i] = number
    return combinations


def combination_name(combination: int) -> str:
    """Name of a combination: ``low-low-mid-low-high``, or ``all-low``."""
    names = combination_tiers(combination)
    return f"all-{names[0]}" if len(set(names)) == 1 else "-".join(names)
