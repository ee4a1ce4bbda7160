"""Summaries of a memory benchmark's rows: one row of the report's table for each policy and λ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from agentcascade.bench.frontier import PolicyPoint, cluster_bootstrap, policy_point
from agentcascade.bench.memory.question_rows import EvaluationPlan, QuestionRow


@dataclass(frozen=True)
class PolicySummary:
    """Summary of one policy at one λ."""

    point: PolicyPoint
    questions: int
    tokens: float
    milliseconds: float
    memory_dollars: float | None
    answer_dollars: float | None
    metrics: dict[str, float]
    by_category: dict[str, tuple[float, int]]


def summarise_rows(rows: Sequence[QuestionRow], plan: EvaluationPlan, cost: str) -> list[PolicySummary]:
    """Summarise the rows of each policy and λ; `cost` is milliseconds, tokens or dollars."""
    by_name: dict[tuple[str, float], list[QuestionRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: r.question):
        by_name[row.policy, row.tradeoff].append(row)
    fixed = [by_name[name, 0.0] for name in plan.policies if name.startswith("all-") and by_name[name, 0.0]]
    corners = None
    if fixed and len({len(rows_of_policy) for rows_of_policy in fixed}) == 1:
        corners = (
            np.array([[r.score for r in rows_of_policy] for rows_of_policy in fixed]).T,
            np.array([[row_cost(r, cost) for r in rows_of_policy] for rows_of_policy in fixed]).T,
        )
    summaries = []
    for key in plan.runs():
        rows_of_policy = by_name[key]
        if not rows_of_policy:
            continue
        draws = cluster_bootstrap([r.history for r in rows_of_policy])
        scores, costs = (
            np.array([r.score for r in rows_of_policy]),
            np.array([row_cost(r, cost) for r in rows_of_policy]),
        )
        same = corners if corners is not None and len(corners[0]) == len(rows_of_policy) else None
        names = sorted({name for r in rows_of_policy for name in r.metrics})
        groups = sorted({r.category for r in rows_of_policy})
        summaries.append(
            PolicySummary(
                point=policy_point(rows_of_policy[0].name, scores, costs, draws, same),
                questions=len(rows_of_policy),
                tokens=float(np.mean([r.tokens for r in rows_of_policy])),
                milliseconds=float(np.mean([r.milliseconds for r in rows_of_policy])),
                memory_dollars=_total_dollars([r.memory_dollars for r in rows_of_policy]),
                answer_dollars=_total_dollars([r.answer_dollars for r in rows_of_policy]),
                metrics={n: float(np.mean([r.metrics[n] for r in rows_of_policy if n in r.metrics])) for n in names},
                by_category={g: _mean_and_count([r.score for r in rows_of_policy if r.category == g]) for g in groups},
            )
        )
    return summaries


def row_cost(row: QuestionRow, cost: str) -> float:
    if cost == "dollars":
        return float((row.memory_dollars or 0) + (row.answer_dollars or 0))
    return float(row.tokens) if cost == "tokens" else row.milliseconds


def _mean_and_count(values: Sequence[float]) -> tuple[float, int]:
    return float(np.mean(values)), len(values)


def _total_dollars(dollars: Sequence[Decimal | None]) -> float | None:
    known = [d for d in dollars if d is not None]
    return float(sum(known, Decimal(0))) if len(known) == len(dollars) else None
