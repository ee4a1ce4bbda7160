"""Fitted-Q evaluation: the value of a router from each decision on, by ridge regressions fitted backwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agentcascade.memory.combinations import STAGES
from agentcascade.routers.tier.log import TierLog
from agentcascade.types import MODULES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentcascade.routers.tier.outcome_table import Floats, Ints

FOLDS = 5
COMPONENTS = 8
CHUNK = 20_000
STRENGTHS = np.geomspace(1e-1, 1e5, 13)


class DecisionValues(NamedTuple):
    """Values of every row and decision, cross-fitted: from regressions without the row's own fold."""

    state: Floats
    """(N, modules): before the tier is chosen, if the router chooses it and all after"""
    taken: Floats
    """(N, modules): after the logged tier"""


def fit_values(log: TierLog, values: Floats, chances: Floats, units: Ints, seed: int = 0) -> DecisionValues:
    """Fit the values of a router with probabilities `chances` (N, modules, tiers); rows of a unit (N,) share a fold."""
    folds = _folds(units, seed)
    n, names = len(log), np.unique(folds)
    states = _states(log)
    after: NDArray[np.float64] = np.repeat(values[:, None], len(names), axis=1)  # by the model that will be asked
    before_choice, after_choice = np.empty((n, len(MODULES))), np.empty((n, len(MODULES)))
    fold_numbers = np.searchsorted(names, folds)
    rows = np.arange(n)
    for place in reversed(range(len(MODULES))):
        z = states[STAGES[place]]
        weights = _regressions(z, log.tiers, place, after, fold_numbers)
        worth = np.empty((n, 3, len(names)))
        for part in _chunks(n):
            worth[part] = _predict(z[part], log.tiers[part], place, weights)
        before = np.einsum("nt,ntf->nf", chances[:, place], worth)
        after_choice[:, place] = worth[rows, log.tiers[:, place], fold_numbers]
        before_choice[:, place] = before[rows, fold_numbers]
        after = before
    return DecisionValues(before_choice, after_choice)


def _folds(units: Ints, seed: int) -> Ints:
    """Fold (N,) of each row; units are dealt to folds at random."""
    names, where = np.unique(units, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(len(names)) % min(FOLDS, len(names))
    folds: Ints = dealt[where]
    return folds


def _states(log: TierLog) -> list[NDArray[np.float64]]:
    """By stage (N, f): a one, components of the question and of what is read, and their product.

    The components are those of the questions, which no tier had a part in.
    """
    mean = log.query.mean(axis=0)
    centred = (log.query - mean).astype(np.float64)
    components = min(COMPONENTS, *centred.shape)
    basis = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :components]
    query = centred @ basis
    scale = np.maximum(query.std(axis=0), 1e-6)
    read = np.zeros((len(log.vectors) + 1, components))  # the last, that is -1, is what is not known
    for part in _chunks(len(log.vectors)):
        read[:-1][part] = (log.vectors[part].astype(np.float32) - mean) @ basis / scale
    query = (query / scale)[log.question]
    states = []
    for stage in range(3):
        what_is_read = read[log.reads[:, stage]]
        match = (query * what_is_read).mean(axis=1, keepdims=True)
        states.append(np.concatenate([np.ones((len(log), 1)), query, what_is_read, match], axis=1))
    return states


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, n, CHUNK))


def _features(z: Floats, tiers: NDArray[np.int8], place: int) -> Floats:
    """(rows, f (1 + 3 (place + 1))): the state, once more for each tier chosen up to `place`."""
    chosen = np.eye(3)[tiers[:, : place + 1].astype(np.intp)].reshape(len(z), -1)
    every = np.concatenate([np.ones((len(z), 1)), chosen], axis=1)
    features: Floats = (every[:, :, None] * z[:, None, :]).reshape(len(z), -1)
    return features


def _regressions(z: Floats, tiers: NDArray[np.int8], place: int, targets: Floats, folds: Ints) -> Floats:
    """(p, folds): the ridge regression of each column of `targets` on the rows of the other folds.

    The constant is not shrunk. Strengths are chosen by generalised cross-validation on those same rows.
    """
    count = targets.shape[1]
    p = z.shape[1] * (1 + 3 * (place + 1))
    squares, products = np.zeros((count, p, p)), np.zeros((p, count))
    others = folds[:, None] != np.arange(count) if count > 1 else np.ones((len(folds), 1), dtype=bool)
    shift = targets.mean(axis=0)
    residuals = (targets - shift) * others
    for part in _chunks(len(z)):
        x = _features(z[part], tiers[part], place)
        products += x.T @ residuals[part]
        for fold in range(count):
            in_fold = x[folds[part] == fold]
            squares[fold] += in_fold.T @ in_fold
    whole = squares.sum(axis=0)
    weights = np.empty((p, count))
    for fold in range(count):
        gram = whole - squares[fold] if count > 1 else whole
        weights[:, fold] = _ridge(
            gram, products[:, fold], float((residuals[:, fold] ** 2).sum()), int(others[:, fold].sum())
        )
    weights[0] += shift
    return weights


def _ridge(gram: Floats, product: Floats, square: float, n: int) -> Floats:
    """Weights from sums of squares and products alone; feature 0 is the constant."""
    mean, usual = gram[0] / n, product[0] / n
    centred = (gram - n * np.outer(mean, mean))[1:, 1:]
    right = (product - n * usual * mean)[1:]
    values, axes = np.linalg.eigh(centred)
    values, turned = np.maximum(values, 0), axes.T @ right
    shrunk = turned / (values + STRENGTHS[:, None])
    wrong = square - n * usual**2 - 2 * shrunk @ turned + (shrunk**2) @ values
    free = 1 + (values / (values + STRENGTHS[:, None])).sum(axis=1)
    worst = np.where(free < n, np.maximum(wrong, 0) / np.maximum(1 - free / n, 1e-9) ** 2, np.inf)
    slopes = axes @ shrunk[int(np.argmin(worst))]
    return np.concatenate([[usual - mean[1:] @ slopes], slopes])


def _predict(z: Floats, tiers: NDArray[np.int8], place: int, weights: Floats) -> Floats:
    """(rows, 3, folds): for each tier at `place`, after the logged ones before it."""
    f = z.shape[1]
    parts = (z @ weights.reshape(-1, f, weights.shape[1]).transpose(1, 0, 2).reshape(f, -1)).reshape(
        len(z), -1, weights.shape[1]
    )
    base, rows = parts[:, 0].copy(), np.arange(len(z))
    for before in range(place):
        base += parts[rows, 1 + 3 * before + tiers[:, before]]
    predictions: Floats = base[:, None] + parts[:, 1 + 3 * place : 4 + 3 * place]
    return predictions
