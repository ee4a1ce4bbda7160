"""Off-policy evaluation of tier routers on a log: IPS, SNIPS and doubly robust estimates with bootstrap intervals.

The tiers of one question are decisions in a row, each with its own state, so that the doubly robust estimate is the
sequential one of Jiang and Li (2016). On a sweep there is nothing to estimate: `exact_value`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from agentcascade.errors import InvalidRequest
from agentcascade.memory.types import TierRouter
from agentcascade.routers.tier import fitted_q
from agentcascade.routers.tier.log import TierLog
from agentcascade.routers.tier.replay import RouterAnswers, module_propensities, row_values
from agentcascade.types import MODULES, TIERS

if TYPE_CHECKING:
    from agentcascade.routers.tier.outcome_table import Floats, Ints
    from agentcascade.routers.tier.replay import Value

LEAST_GROUPS = 8
"""Fewer say too little of how groups differ: then questions are resampled, and the interval is one for these groups."""
FEW_EFFECTIVE_ROWS = 50
"""Effective rows below which intervals cannot be relied on."""


@dataclass(frozen=True)
class IntervalEstimate:
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class OffPolicyEstimates:
    """Estimates of one router on one log, with diagnostics of their weights."""

    router: str
    value: str
    tradeoff: float
    ips: IntervalEstimate
    """Importance sampling: unbiased, and wide"""
    snips: IntervalEstimate
    """The same over the sum of its weights: a little biased, narrower, untouched by what is added to every value"""
    dr: IntervalEstimate
    """Doubly robust: unbiased where propensities are right, narrow where its regressions are"""
    confidence: float
    n: int
    clusters: int
    clustered_by: Literal["group", "question", "row"]
    effective: float
    """Rows that the weighted ones are worth: (Σw)² / Σw²"""
    largest_weight: float
    mean_weight: float
    """1 but for chance, where every tier that the router may choose could be logged"""
    zero_weight: float
    """Share of rows whose tiers the router never chooses"""
    clip: float | None = None
    clipped: float = 0.0
    """Share of rows whose weight was cut"""
    warnings: tuple[str, ...] = ()


def estimate_value(
    log: TierLog,
    router: TierRouter,
    tradeoff: float = 0.0,
    value: Value = "score",
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
    *,
    clip: float | None = None,
    assume_uniform: bool = False,
) -> OffPolicyEstimates:
    """Estimate what `router` would earn on the questions of `log`, a mean over rows, with bootstrap intervals.

    `value` "reward" takes its scale from the log; give a `Reward` to compare logs. `clip` cuts weights, which narrows
    the intervals and draws IPS towards 0 and DR towards its regressions. Groups are resampled where there are at least
    `LEAST_GROUPS`, else questions, and for a single question its rows; percentiles are widened for small numbers of
    them as in Hesterberg (2015). Raises `InvalidRequest` for missing propensities unless `assume_uniform`.
    """
    if not 0 < confidence < 1 or resamples < 100 or (clip is not None and not clip > 0):
        raise InvalidRequest(
            f"confidence is {confidence}, resamples {resamples}, clip {clip}: between 0 and 1, 100 at least, above 0"
        )
    propensity = log.known_propensity(assume_uniform)
    propensities = module_propensities(log, propensity)
    values, probabilities = row_values(log, value, tradeoff), RouterAnswers(log, router, tradeoff).rows()
    chosen = np.take_along_axis(probabilities, log.tiers.astype(np.intp)[:, :, None], axis=2)[:, :, 0]
    whole = chosen.prod(axis=1) / propensity
    weight = whole if clip is None else np.minimum(whole, clip)
    clusters, by = _clusters(log)
    worth = fitted_q.fit_values(log, values, probabilities, _clusters(log, least=2)[0], seed)
    robust = _doubly_robust(values, weight, worth, None if propensities is None else chosen / propensities, clip)

    columns = (weight * values, weight, robust, np.ones(len(log)))
    sums: Floats = np.stack([np.bincount(clusters, column) for column in columns], axis=1).astype(np.float64)
    resampled = _bootstrap_sums(sums, resamples, seed)
    tail = _tail_share(confidence, len(sums))

    def interval_estimate(top: int, bottom: int) -> IntervalEstimate:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = float(sums[:, top].sum() / sums[:, bottom].sum())
            spread = resampled[:, top] / resampled[:, bottom]
        spread = spread[np.isfinite(spread)]
        low, high = np.quantile(spread, [tail, 1 - tail]) if len(spread) else (np.nan, np.nan)
        return IntervalEstimate(mean, float(low), float(high))

    squares = float((weight**2).sum())
    return OffPolicyEstimates(
        router=router.name,
        value=value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__),
        tradeoff=tradeoff,
        ips=interval_estimate(0, 3),
        snips=interval_estimate(0, 1),
        dr=interval_estimate(2, 3),
        confidence=confidence,
        n=len(log),
        clusters=len(sums),
        clustered_by=by,
        effective=float(weight.sum()) ** 2 / squares if squares else 0.0,
        largest_weight=float(weight.max()),
        mean_weight=float(whole.mean()),
        zero_weight=float((whole == 0).mean()),
        clip=clip,
        clipped=float((weight < whole).mean()),
        warnings=tuple(_warnings(log, probabilities, whole, weight, by, sequential=propensities is not None)),
    )


def _doubly_robust(
    values: Floats, weight: Floats, worth: fitted_q.DecisionValues, ratios: Floats | None, clip: float | None
) -> Floats:
    """(N,): Jiang and Li (2016), equation 10, unrolled; the reward comes after the last decision.

    Without the propensity of each decision only the first expectation can be taken out, which is unbiased as well.
    """
    if ratios is None:
        first: Floats = worth.state[:, 0] + weight * (values - worth.state[:, 0])
        return first
    until = np.cumprod(ratios, axis=1)
    until = until if clip is None else np.minimum(until, clip)
    before = np.concatenate([np.ones((len(until), 1)), until[:, :-1]], axis=1)
    values_of_rows: Floats = (before * worth.state - until * worth.taken).sum(axis=1) + until[:, -1] * values
    return values_of_rows


def _clusters(log: TierLog, least: int = LEAST_GROUPS) -> tuple[Ints, Literal["group", "question", "row"]]:
    """Numbers (N,) of the clusters that are resampled whole."""
    number = {name: i for i, name in enumerate(dict.fromkeys(log.groups))}
    groups = np.array([number[name] for name in log.groups])[log.question]
    names, numbers = np.unique(groups, return_inverse=True)
    if len(names) >= least:
        return numbers, "group"
    names, numbers = np.unique(log.question, return_inverse=True)
    return (numbers, "question") if len(names) > 1 else (np.arange(len(log)), "row")


def _bootstrap_sums(sums: Floats, resamples: int, seed: int) -> Floats:
    """(resamples, k), sums over clusters drawn with replacement; how often each is drawn is multinomial."""
    rng, n = np.random.default_rng(seed), len(sums)
    step = max(1, 2_000_000 // n)
    shares = np.full(n, 1 / n)
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    return np.concatenate([rng.multinomial(n, shares, size).astype(np.float64) @ sums for size in sizes])


def _tail_share(confidence: float, n: int) -> float:
    """Share beyond each end: the normal's at Student's quantile for `n` clusters, times √(n / (n - 1))."""
    normal = NormalDist()
    z, v = normal.inv_cdf((1 + confidence) / 2), max(n - 1, 2)
    # Cornish and Fisher's expansion of Student's quantile: to three digits from 4 degrees of freedom on.
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return normal.cdf(-t * float(np.sqrt((v + 1) / v)))


def _warnings(
    log: TierLog, chances: Floats, whole: Floats, weight: Floats, by: str, *, sequential: bool
) -> Sequence[str]:
    warnings = []
    logged = np.stack([(log.tiers == tier).any(axis=0) for tier in range(3)], axis=1)
    wanted = chances.mean(axis=0)
    for place, tier in np.argwhere(~logged & (wanted > 0)):
        warnings.append(
            f"no support: {MODULES[place]} {TIERS[tier]} was never logged, and the router chooses it with probability "
            f"{wanted[place, tier]:.2g}: log with memory.explore above 0"
        )
    doubt = float(whole.std()) / np.sqrt(len(whole))
    if not warnings and abs(whole.mean() - 1) > 4 * doubt + 1e-9:
        warnings.append(
            f"the mean weight is {whole.mean():.3g}, not 1: what the router chooses was not logged everywhere, or "
            "propensities are wrong"
        )
    total, squares = float(weight.sum()), float((weight**2).sum())
    effective = total**2 / squares if squares else 0.0
    if effective < FEW_EFFECTIVE_ROWS:
        warnings.append(
            f"{effective:.0f} effective of {len(log)} rows: IPS and SNIPS can be far off, beyond their intervals, "
            "and DR rests on its regressions: log more, or nearer to this router"
        )
    elif weight.max() > 0.1 * total:
        warnings.append(f"one row has {weight.max() / total:.0%} of all weight: set clip, or log more")
    if (cut := float((weight < whole).mean())) > 0:
        warnings.append(
            f"{cut:.1%} of the weights were clipped, which biases IPS towards 0 and DR towards its regressions"
        )
    if (unread := float((log.reads < 0).mean())) > 0:
        warnings.append(
            f"{unread:.0%} of what was read is not in the log: there the router was asked with zeros, as it may not "
            "have been when it ran"
        )
    if not sequential:
        warnings.append("propensities are joint only, so DR corrects at the first decision alone: log them by module")
    if by != "group" and len(set(log.groups)) < len(log.questions):
        warnings.append(
            f"{len(set(log.groups))} groups are too few to resample: intervals are of {by}s, and hold for these groups"
        )
    return warnings
