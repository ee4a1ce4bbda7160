"""How surprising a low risk would be, were the rule no good: finite-sample p-values, one value a cluster.

All test the null hypothesis E[loss] >= R E[base] on independent clusters with 0 <= loss <= base <= 1, and are valid
without any assumption on how the steps of a cluster hang together. Marginal risk has base 1; selective risk has the
share of accepted steps. `times` asks what a log that many times as long would say, were it the same over and over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agentcascade.errors import InvalidRequest, MissingExtra

if TYPE_CHECKING:
    from agentcascade.routers.tuning.columns import Floats

Test = Literal["binomial", "hoeffding-bentkus", "betting"]
TESTS: tuple[Test, ...] = ("binomial", "hoeffding-bentkus", "betting")
BETS = 48


def binomial(loss: Floats, base: Floats, risk: float, times: int = 1) -> float:
    """Exact (Clopper-Pearson): losses and bases are all 0 or 1, and losses are counted among the bases."""
    if not (np.isin(loss, (0, 1)).all() and np.isin(base, (0, 1)).all()):
        raise InvalidRequest("the binomial test needs one step an episode: choose betting or hoeffding-bentkus")
    trials = int(base.sum()) * times
    return float(_scipy().binom.cdf(int(loss.sum()) * times, trials, risk)) if trials else 1.0


def hoeffding_bentkus(loss: Floats, base: Floats, risk: float, times: int = 1) -> float:
    """The smaller of Hoeffding's (in relative entropy) and Bentkus' bound (Bates et al. 2021)."""
    values = loss - risk * base + risk
    n, mean = len(values) * times, float(values.mean()) if len(values) else 1.0
    if mean >= risk:
        return 1.0
    hoeffding = np.exp(-n * _entropy(mean, risk))
    bentkus = np.e * _scipy().binom.cdf(np.ceil(n * mean - 1e-9), n, risk)
    return float(min(1.0, hoeffding, bentkus))


def betting(loss: Floats, base: Floats, risk: float, times: int = 1) -> float:
    """One over the wealth of a gambler who bets against the null hypothesis, with all bets of a grid at once.

    A fixed mixture of bets needs no order of the clusters and never risks more than it has: its expected wealth is at
    most 1 under the null hypothesis (Waudby-Smith & Ramdas 2024).
    """
    values = loss - risk * base
    if not len(values) or values.mean() >= 0:
        return 1.0
    found, counts = np.unique(np.round(values, 12), return_counts=True)
    bets = np.geomspace(0.004, 0.996, BETS) / (1 - risk)
    growth = np.log1p(-bets[:, None] * found[None, :]) @ (counts * times)
    most = growth.max()
    wealth = most + np.log(np.mean(np.exp(growth - most)))
    return float(min(1.0, np.exp(-wealth)))


FUNCTIONS: dict[Test, Callable[..., float]] = {
    "binomial": binomial,
    "hoeffding-bentkus": hoeffding_bentkus,
    "betting": betting,
}


def upper_bound(test: Test, loss: Floats, base: Floats, delta: float) -> float:
    """The smallest risk that the data rule out at level `delta`, for this one rule looked at alone."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if FUNCTIONS[test](loss, base, middle) <= delta:
            high = middle
        else:
            low = middle
    return high


def clopper_pearson(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share."""
    beta, tail = _scipy().beta, (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, of - hits + 1)) if hits else 0.0
    return low, float(beta.ppf(1 - tail, hits + 1, of - hits)) if hits < of else 1.0


def _entropy(a: float, b: float) -> float:
    """Relative entropy of coins with chances a and b."""
    first = a * np.log(a / b) if a > 0 else 0.0
    return float(first + (1 - a) * np.log((1 - a) / (1 - b)))


def _scipy() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtra("scipy", "tune", "tuning") from error
    return stats
