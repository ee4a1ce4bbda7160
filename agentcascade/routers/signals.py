"""Signals of how sure a vote is: entropy, margin, log-probabilities, and a logistic regression over all of them.

The same functions compute a signal at a step and, for tuning, over a whole log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SCORES = ("entropy", "margin", "logprob", "learned")
SIGNALS = ("agreement", "margin", "certainty", "valid", "position", "similarity", "similarity known", "logprob")


def certainty(counts: Floats, n: int) -> Floats:
    """(N, M) votes of n samples to (N,): 1 less entropy over log n; samples without a vote are a class of their own."""
    if n == 1:
        some: Floats = np.minimum(counts.sum(axis=1), 1.0)
        return some
    lost = n - counts.sum(axis=1)
    shares = np.concatenate([counts, lost[:, None]], axis=1) / n
    entropy = -np.sum(np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1.0)), 0.0), axis=1)
    certain: Floats = np.where(counts.sum(axis=1) > 0, 1 - entropy / np.log(n), 0.0)
    return certain


def margin(counts: Floats, n: int) -> Floats:
    """(N,), by how much of n the largest class leads the second."""
    two = -np.sort(-np.concatenate([counts, np.zeros((len(counts), 2))], axis=1), axis=1)[:, :2]
    lead: Floats = (two[:, 0] - two[:, 1]) / n
    return lead


def signals(counts: Floats, n: int, position: Floats, similarity: Floats, logprob: Floats) -> Floats:
    """(N, 8), one column for each of `SIGNALS`; `similarity` and `logprob` are NaN where they are not known."""
    known = ~np.isnan(similarity)
    return np.column_stack([
        counts.max(axis=1) / n,
        margin(counts, n),
        certainty(counts, n),
        counts.sum(axis=1) / n,
        np.log1p(position),
        np.where(known, similarity, 0.0),
        known,
        np.where(np.isnan(logprob), 0.0, logprob),
    ])  # fmt: skip


def learned(rows: Floats, types: Sequence[str], model: Mapping[str, Any]) -> Floats:
    """(N,), the logistic regression's probability that the majority is right."""
    total = rows @ np.array(model["weights"], dtype=float) + float(model["intercept"])
    total += np.array([model["types"].get(name, 0.0) for name in types])
    probability: Floats = 1 / (1 + np.exp(-total))
    return probability
