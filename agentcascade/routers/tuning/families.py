"""Families of rules that `tune` tries: each gives chains of rules, from the safest to the boldest.

They are fixed before the labels are seen: rules that are fitted to labels (thresholds by type, learned scores) are made
from one part of the episodes and tested on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agentcascade import registry
from agentcascade.actions.voting import Seat
from agentcascade.errors import ConfigError, InvalidRequest, MissingExtra
from agentcascade.routers import signals
from agentcascade.routers.tuning.columns import Columns
from agentcascade.routers.tuning.committees import Committee
from agentcascade.routers.tuning.risks import Kind, labelled
from agentcascade.routers.tuning.rules import Chain, Grouped, Rule, Scored, Threshold
from agentcascade.routers.tuning.unless_stuck import UnlessStuck
from agentcascade.routers.tuning.verified import verified

if TYPE_CHECKING:
    from agentcascade.routers.tuning.columns import Floats

RulesOf = Callable[["Columns", Sequence[int], Kind, int], "list[list[Rule]]"]


@dataclass(frozen=True)
class Family:
    """Rules of one kind. A router of one's own is tuned by the `Family` that is its class attribute ``family``.

    Args:
        rules: from a log, numbers of samples, the risk's kind and a seed to chains of rules, each from the safest to
            the boldest. It sees labels only where the family is `fitted`.
        fitted: whether rules are made from labels: then from one part of the episodes, and tested on the other.
    """

    rules: RulesOf
    fitted: bool = False


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
    found.sort(key=lambda r: (_accepted(r.n, r.needed), -r.n))
    return [*found]


def scored(name: str, sizes: Sequence[int], model: Mapping[str, Any] | None = None) -> list[list[Rule]]:
    return [[Scored(Votes(name, n, model), t) for t in GRIDS[name]] for n in sizes]


def chains(sizes: Sequence[int], students: Sequence[str]) -> list[list[Rule]]:
    """Every student by a threshold of its own, as one chain; who is asked later needs no more votes than those before.

    They are ordered as in `consistency`, by the sum of what each threshold would accept where nothing is known. On real
    samples (0.5B, then 1.5B) that certified more than one threshold for all, and one chain more than one for each n.
    Of three students and more, thresholds are majorities; five and more share one.
    """
    found: list[tuple[int, tuple[int, ...]]] = []
    for n in sizes:
        least = 1 if len(students) < 3 else n // 2 + 1
        same = [(needed,) * len(students) for needed in range(n, 0, -1)]
        falling = combinations_with_replacement(range(n, least - 1, -1), len(students))
        found += [(n, votes) for votes in dict.fromkeys([*same, *(falling if len(students) < 5 else ())])]
    found.sort(key=lambda one: (sum(_accepted(one[0], needed) for needed in one[1]), -one[0]))
    return [[Chain(tuple(Threshold(n, needed) for needed in votes), tuple(students)) for n, votes in found]]


def _accepted(n: int, needed: int) -> float:
    """The chance that a threshold accepts, over a uniform share of the favourite."""
    return 1.0 if needed == 1 else (n - needed + 1) / (n + 1)


def committees(names: Sequence[str], sizes: Sequence[int]) -> list[list[Rule]]:
    """The first two students, the first three … all, with a sample or the most of `sizes` of each, down to one vote."""
    return [
        [
            Committee(tuple(names[:first]), (Seat(samples),) * first, Threshold(first * samples, needed))
            for needed in range(first * samples, 0, -1)
        ]
        for first in range(2, len(names) + 1)
        for samples in sorted({1, max(sizes)})
    ]


@dataclass(frozen=True)
class Votes:
    """A score of `ScoreRouter`, computed for a whole log."""

    name: str
    n: int
    model: Mapping[str, Any] | None = None

    @property
    def logprobs(self) -> bool:
        weights = (self.model or {}).get("weights")
        return self.name == "logprob" or bool(weights and weights[signals.SIGNALS.index("logprob")])

    def of(self, log: Columns) -> Floats:
        draw = log.draw(self.n)
        counts = draw.counts.astype(float)
        if self.name == "margin":
            return signals.margin(counts, self.n)
        if self.name == "entropy":
            return signals.certainty(counts, self.n)
        said = _logprob(log, self.n, draw.top)
        if self.name == "logprob":
            return np.where(np.isnan(said), -np.inf, said)
        rows = signals.signals(counts, self.n, log.position.astype(float), log.similarity, said)
        return signals.learned(rows, _types(log, draw.top), self.model or {})

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
    rows = labelled(log, kind) & (draw.votes > 0)
    right = _is_fine(log, draw.top, kind)[rows]
    if len(right) < 20 or right.all() or not right.any():
        raise InvalidRequest(
            f"a learned score needs steps where the majority is right and others where it is wrong: {right.sum()} of "
            f"{len(right)} are right; leave --rules learned out"
        )
    said = _logprob(log, n, draw.top)
    inputs = signals.signals(draw.counts.astype(float), n, log.position.astype(float), log.similarity, said)[rows]
    types = np.array(_types(log, draw.top))[rows]
    names, counts = np.unique(types, return_counts=True)
    own = [str(t) for t, c in zip(names, counts) if c >= 20 and len(names) > 1]
    one_hot = np.column_stack([types == t for t in own]) if own else np.empty((len(types), 0))
    found = LogisticRegression(C=1.0, max_iter=1000).fit(np.column_stack([inputs, one_hot]), right)
    weights = found.coef_[0]
    return {
        "weights": [round(float(w), 6) for w in weights[: len(signals.SIGNALS)]],
        "intercept": round(float(found.intercept_[0]), 6),
        "types": {t: round(float(w), 6) for t, w in zip(own, weights[len(signals.SIGNALS) :])},
    }


def grouped(log: Columns, by: Literal["tool", "category"], n: int, kind: Kind) -> list[Rule]:
    """A chain of nested rules: from unanimity everywhere, each next one lowers the threshold of the type of action (or
    goal) that then loses least for each step that the student takes.

    Types that occur in fewer than 20 steps share the default.
    """
    draw = log.draw(n)
    groups = np.where(draw.top < 0, -1, log.tool[np.arange(len(log)), draw.top]) if by == "tool" else log.category
    bad = ~_is_fine(log, draw.top, kind)
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


def _is_fine(log: Columns, top: Any, kind: Kind) -> Any:
    """(N,), whether class `top` is what a risk of this kind asks for: right, or the teacher's."""
    if kind == "wrong":
        return log.is_right(top)
    same = top == log.teacher
    return np.where(log.gold >= 0, log.is_right(top), same) if kind == "episode-loss" else same


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


def _by_score(name: str) -> Family:
    return Family(lambda log, sizes, kind, seed: scored(name, sizes))


def _by_logprob(log: Columns, sizes: Sequence[int], kind: Kind, seed: int) -> list[list[Rule]]:
    if not log.logprob.shape[1]:
        raise InvalidRequest("the log has no log-probabilities: leave --rules logprob out")
    return scored("logprob", sizes)


def _by_model(log: Columns, sizes: Sequence[int], kind: Kind, seed: int) -> list[list[Rule]]:
    return [rules for n in sizes for rules in scored("learned", [n], fit(log, n, kind, seed))]


def _by_type(by: Literal["tool", "category"]) -> Family:
    return Family(lambda log, sizes, kind, seed: [grouped(log, by, n, kind) for n in sizes], fitted=True)


def _of_students(log: Columns, sizes: Sequence[int], kind: Kind, seed: int) -> list[list[Rule]]:
    return chains(sizes, [student.arm.student for student in (log, *log.others)])


def _of_committee(log: Columns, sizes: Sequence[int], kind: Kind, seed: int) -> list[list[Rule]]:
    return committees([member.arm.student for member in log.members], sizes)


CHAIN, COMMITTEE = "chain", "committee"
"""Families that are tried on the log of all students together"""
FAMILIES: dict[str, Family] = {
    "consistency": Family(lambda log, sizes, kind, seed: [consistency(sizes)]),
    "entropy": _by_score("entropy"),
    "margin": _by_score("margin"),
    "logprob": Family(_by_logprob),
    "learned": Family(_by_model, fitted=True),
    "tool": _by_type("tool"),
    "category": _by_type("category"),
    "signals": Family(lambda log, sizes, kind, seed: [[UnlessStuck(rule) for rule in consistency(sizes)]]),
    "verified": Family(lambda log, sizes, kind, seed: [[*chain] for chain in verified(log, sizes)]),
    CHAIN: Family(_of_students),
    COMMITTEE: Family(_of_committee),
}


def family(name: str) -> Family:
    """One of `FAMILIES`, or that of a registered router. Raises `InvalidRequest`."""
    if name in FAMILIES:
        return FAMILIES[name]
    try:
        point = registry.find("routers", name, "rules", aliases=FAMILIES)
        own = getattr(registry.load(point, "rules"), "family", None)
    except ConfigError as error:
        raise InvalidRequest(str(error)) from error
    if not isinstance(own, Family):
        raise InvalidRequest(
            f"rules '{name}' is a router without a family of rules to try (a class attribute `family`, see "
            f"agentcascade.routers.tuning.families.Family): choose among {', '.join(FAMILIES)}"
        )
    return own
