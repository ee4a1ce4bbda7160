"""Which rules are tried: chains of them, each from the safest rule to the boldest, fixed before the labels are seen.

Rules that are fitted to labels (thresholds by type, learned scores) are made from one part of the episodes and tested
on the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agentcascade.errors import InvalidRequest, MissingExtra
from agentcascade.routers.step import scores
from agentcascade.routers.tuning.columns import Columns
from agentcascade.routers.tuning.risks import Kind, labelled
from agentcascade.routers.tuning.rules import Chain, Grouped, Rule, Scored, Threshold

if TYPE_CHECKING:
    from agentcascade.routers.tuning.columns import Floats

Family = Literal["consistency", "entropy", "margin", "logprob", "learned", "tool", "category", "chain"]
FAMILIES: tuple[Family, ...] = ("consistency", "entropy", "margin", "logprob", "learned", "tool", "category", "chain")
FITTED = {"learned", "tool", "category"}
SIZES = (2, 3, 4, 5, 6, 8, 10)
"""Numbers of samples that are tried, as far as the log has so many"""

GRIDS: dict[str, Sequence[float]] = {
    "margin": (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2),
    "entropy": (1.0, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
    "logprob": (-0.001, -0.003, -0.01, -0.02, -0.05, -0.1, -0.2, -0.5, -1.0, -2.0),
    "learned": (0.995, 0.99, 0.98, 0.97, 0.95, 0.92, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5),
}


def consistency(sizes: Sequence[int]) -> list[Rule]:
    """All thresholds of all n as one chain, down to the first valid sample.

    They are ordered by how often each would accept where nothing is known of how often the favourite is drawn:
    (n - needed + 1) / (n + 1), its chance over a uniform share of the favourite. That needs no data, and follows the
    risk closely enough that one sequence of tests at the whole level finds more than one for each n at a part of it.
    """
    found = [Threshold(n, needed) for n in {*sizes, 1} for needed in range(1, n + 1)]
    found.sort(key=lambda r: (1.0 if r.needed == 1 else (r.n - r.needed + 1) / (r.n + 1), -r.n))
    return [*found]


def scored(name: str, sizes: Sequence[int], model: Mapping[str, Any] | None = None) -> list[list[Rule]]:
    return [[Scored(Votes(name, n, model), t) for t in GRIDS[name]] for n in sizes]


def chains(sizes: Sequence[int], students: int) -> list[list[Rule]]:
    """Every student by the same number of votes, from unanimity down."""
    return [[Chain((Threshold(n, needed),) * students) for needed in range(n, 0, -1)] for n in sizes]


@dataclass(frozen=True)
class Votes:
    """A score of `routers/scores.py`, computed for a whole log."""

    name: str
    n: int
    model: Mapping[str, Any] | None = None

    def of(self, log: Columns) -> Floats:
        draw = log.draw(self.n)
        counts = draw.counts.astype(float)
        if self.name == "margin":
            return scores.margin(counts, self.n)
        if self.name == "entropy":
            return scores.certainty(counts, self.n)
        said = _logprob(log, self.n, draw.top)
        if self.name == "logprob":
            return np.where(np.isnan(said), -np.inf, said)
        rows = scores.signals(counts, self.n, log.position.astype(float), log.similarity, said)
        return scores.learned(rows, _types(log, draw.top), self.model or {})

    def router(self, threshold: float) -> Mapping[str, Any]:
        options: dict[str, Any] = {"score": self.name, "n": self.n, "threshold": threshold}
        return {"name": "scored", "options": options | ({"model": dict(self.model)} if self.model else {})}


def fit(log: Columns, n: int, kind: Kind, seed: int = 0) -> dict[str, Any]:
    """A logistic regression of "the majority of n is right" on the signals and the action's type, by scikit-learn.

    Types that occur in fewer than 20 steps have no weight of their own.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtra("scikit-learn", "tune", "a learned score") from error
    draw = log.draw(n)
    label = np.where(log.gold >= 0, log.gold, log.teacher) if kind == "episode-loss" else _label(log, kind)
    rows = labelled(log, kind) & (draw.votes > 0)
    right = (draw.top == label)[rows]
    if len(right) < 20 or right.all() or not right.any():
        raise InvalidRequest(
            f"a learned score needs steps where the majority is right and others where it is wrong: {right.sum()} of "
            f"{len(right)} are right; leave --rules learned out"
        )
    said = _logprob(log, n, draw.top)
    signals = scores.signals(draw.counts.astype(float), n, log.position.astype(float), log.similarity, said)[rows]
    types = np.array(_types(log, draw.top))[rows]
    names, counts = np.unique(types, return_counts=True)
    own = [str(t) for t, c in zip(names, counts) if c >= 20 and len(names) > 1]
    one_hot = np.column_stack([types == t for t in own]) if own else np.empty((len(types), 0))
    found = LogisticRegression(C=1.0, max_iter=1000).fit(np.column_stack([signals, one_hot]), right)
    weights = found.coef_[0]
    return {
        "weights": [round(float(w), 6) for w in weights[: len(scores.SIGNALS)]],
        "intercept": round(float(found.intercept_[0]), 6),
        "types": {t: round(float(w), 6) for t, w in zip(own, weights[len(scores.SIGNALS) :])},
    }


def grouped(log: Columns, by: Literal["tool", "category"], n: int, kind: Kind) -> list[Rule]:
    """A chain of nested rules: from unanimity everywhere, each next one lowers the threshold of the type of action (or
    goal) that then loses least for each step that the student takes.

    Types that occur in fewer than 20 steps share the default.
    """
    draw = log.draw(n)
    groups = np.where(draw.top < 0, -1, log.tool[np.arange(len(log)), draw.top]) if by == "tool" else log.category
    label = np.where(log.gold >= 0, log.gold, log.teacher) if kind == "episode-loss" else _label(log, kind)
    bad = draw.top != label
    names = log.names[by]
    own = {i: name for i, name in enumerate(names) if (groups == i).sum() >= 20}
    masks = {name: groups == i for i, name in own.items()}
    masks["default"] = ~np.isin(groups, list(own)) if own else np.ones(len(log), bool)
    needed = dict.fromkeys(masks, n)
    found: list[Rule] = []
    while True:
        votes = {name: v for name, v in needed.items() if name != "default"}
        found.append(Grouped(by, n, votes, needed["default"]))
        steps = []
        for name, votes_needed in needed.items():
            if votes_needed > 1:
                gained = masks[name] & (draw.votes == votes_needed - 1)
                steps.append(((bad & gained).sum() / (gained.sum() + 1), -int(gained.sum()), name))
        if not steps:
            return found
        needed[min(steps)[2]] -= 1


def _label(log: Columns, kind: Kind) -> Any:
    return log.gold if kind == "wrong" else log.teacher


def _logprob(log: Columns, n: int, top: Any) -> Floats:
    """(N,), mean log-probability of the majority's samples among the first n; NaN where one is not known, as live."""
    if not log.logprob.shape[1]:
        return np.full(len(log), np.nan)
    own = (log.codes[:, :n] == top[:, None]) & (top[:, None] >= 0)
    total = np.where(own, log.logprob[:, :n], 0.0).sum(axis=1)  # NaN spreads
    return np.where(own.any(axis=1), total / np.maximum(1, own.sum(axis=1)), np.nan)


def _types(log: Columns, top: Any) -> list[str]:
    found = np.where(top < 0, -1, log.tool[np.arange(len(log)), top])
    names = [*log.names["tool"], ""]
    return [names[i] for i in found]


def parts(log: Columns, share: float, seed: int) -> Iterator[Columns]:
    """Two parts of the log by whole clusters: the first for fitting, with `share` of them, the other for testing."""
    order = np.random.default_rng(seed).permutation(log.clusters)
    fitting = np.zeros(log.clusters, bool)
    fitting[order[: round(share * log.clusters)]] = True
    yield log.take(fitting[log.cluster])
    yield log.take(~fitting[log.cluster])
