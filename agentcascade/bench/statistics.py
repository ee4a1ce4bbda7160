"""Statistics of episode records: accuracy, dollars and deferral share of each policy, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from agentcascade.bench.records import EpisodeRecord
from agentcascade.types import Frozen

RESAMPLES = 10_000


class PolicyResult(Frozen):
    """Results of one policy; intervals are 95 % percentile bootstrap over episodes."""

    policy: str
    episodes: int
    accuracy: float
    accuracy_ci: tuple[float, float]
    accuracy_by_seed: dict[int, float]
    dollars_per_episode: float | None
    dollars_ci: tuple[float, float] | None
    relative_cost: float | None
    steps: float
    deferral_share: float
    errors: int
    difference: float | None = None
    """Accuracy less the teacher's on the same tasks; None for the teacher, and where it did not play them all"""
    difference_ci: tuple[float, float] | None = None
    relative_ci: tuple[float, float] | None = None
    """Of `relative_cost`; like `difference_ci` from the paired bootstrap over tasks"""
    group_accuracy: float | None = None
    """Share of groups of tasks that are solved whole, by seed and group; None where tasks stand alone"""


def summarise_policies(records: Sequence[EpisodeRecord], policies: Sequence[str]) -> list[PolicyResult]:
    """Results of each policy that has records, in the given order."""
    by_policy = {p: [r for r in records if r.policy == p] for p in policies}
    teacher = dollars_per_episode(by_policy.get("teacher", []))
    taught = {(r.seed, r.task): r for r in by_policy.get("teacher", [])}
    return [_row(p, sorted(rows, key=lambda r: r.key), teacher, taught) for p, rows in by_policy.items() if rows]


def _row(
    policy: str,
    rows: Sequence[EpisodeRecord],
    teacher: Decimal | None,
    taught: Mapping[tuple[int, str], EpisodeRecord],
) -> PolicyResult:
    dollars = dollars_per_episode(rows)
    seeds = sorted({r.seed for r in rows})
    wins = np.array([r.success for r in rows], dtype=float)
    return PolicyResult(
        policy=policy,
        episodes=len(rows),
        accuracy=float(wins.mean()),
        accuracy_ci=bootstrap_interval(wins),
        accuracy_by_seed={s: float(np.mean([r.success for r in rows if r.seed == s])) for s in seeds},
        dollars_per_episode=None if dollars is None else float(dollars),
        dollars_ci=None if dollars is None else bootstrap_interval(np.array([float(r.dollars or 0) for r in rows])),
        relative_cost=float(dollars / teacher) if dollars is not None and teacher else None,
        steps=float(np.mean([r.steps for r in rows])),
        deferral_share=sum(r.teacher_steps for r in rows) / max(1, sum(r.steps for r in rows)),
        errors=sum(r.error is not None for r in rows),
        **({} if policy == "teacher" else _paired(rows, taught)),
        group_accuracy=_groups(rows),
    )


def _paired(rows: Sequence[EpisodeRecord], taught: Mapping[tuple[int, str], EpisodeRecord]) -> dict[str, Any]:
    """The differences from the teacher on the same tasks, with intervals; nothing where it did not play them all."""
    pairs = [(row, taught.get((row.seed, row.task))) for row in rows]
    both = [(row, teacher) for row, teacher in pairs if teacher is not None]
    if len(both) < len(pairs):
        return {}
    wins = np.array([float(row.success) - float(teacher.success) for row, teacher in both])
    found: dict[str, Any] = {"difference": float(wins.mean()), "difference_ci": bootstrap_interval(wins)}
    dollars = [(row.dollars, teacher.dollars) for row, teacher in both]
    if not any(None in pair for pair in dollars) and any(teacher for _, teacher in dollars):
        weights = np.random.default_rng(0).multinomial(len(both), np.full(len(both), 1 / len(both)), RESAMPLES)
        own, alone = (weights @ np.array(dollars, dtype=float)).T
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = np.nanquantile(own / alone, [0.025, 0.975])
        found["relative_ci"] = float(low), float(high)
    return found


def accuracy_difference(
    rows: Sequence[EpisodeRecord], others: Sequence[EpisodeRecord]
) -> tuple[float, tuple[float, float]] | None:
    """Accuracy of `rows` less that of `others`, with the 95 % interval of the bootstrap paired over tasks.

    None without a task that both played.
    """
    won = {(r.seed, r.task): r.success for r in others}
    pairs = [(r.success, won[r.seed, r.task]) for r in rows if (r.seed, r.task) in won]
    if not pairs:
        return None
    wins = np.array([float(one) - float(other) for one, other in pairs])
    return float(wins.mean()), bootstrap_interval(wins)


def _groups(rows: Sequence[EpisodeRecord]) -> float | None:
    solved: dict[tuple[int, str], bool] = {}
    for row in rows:
        if row.group:
            solved[row.seed, row.group] = solved.get((row.seed, row.group), True) and row.success
    return sum(solved.values()) / len(solved) if solved else None


def dollars_per_episode(rows: Sequence[EpisodeRecord]) -> Decimal | None:
    """Mean dollars of an episode; None without episodes or where a price is unknown."""
    bills = [r.dollars for r in rows]
    if not bills or None in bills:
        return None
    return sum((b for b in bills if b is not None), Decimal(0)) / len(bills)


def demonstrations_dollars(records: Sequence[EpisodeRecord]) -> Decimal | None:
    """Mean dollars of collecting one seed's demonstrations, failed episodes included."""
    rows = [r for r in records if r.policy == "demos"]
    per_episode = dollars_per_episode(rows)
    return None if per_episode is None else per_episode * len(rows) / len({r.seed for r in rows})


def bootstrap_interval(
    values: np.ndarray, statistic: Callable[..., np.ndarray] = np.mean, *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of `statistic` over `values` (n,)."""
    rng = np.random.default_rng(seed)
    draws = statistic(values[rng.integers(0, len(values), (RESAMPLES, len(values)))], axis=1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
