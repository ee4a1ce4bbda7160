"""What policies over recorded models would have got and cost: alone, committees, random mixes, oracles; with intervals.

Everything is counted per task on the same tasks, so that differences are paired. A committee asks its members in turn
and stops when the verdict is known; where too few agree, the teacher answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentcascade.errors import ConfigError, UnknownPrice

Floats = NDArray[np.float64]


class Played(NamedTuple):
    """A policy's outcome; one number per task."""

    right: Floats
    """In [0, 1]"""
    dollars: Floats
    """NaN where a price is unknown"""
    seconds: Floats
    """Of calls one after the other"""
    teacher: Floats
    """Share of the tasks that the teacher answered"""


class Column(NamedTuple):
    """One model on all tasks of a table."""

    right: Floats
    dollars: Floats
    seconds: Floats
    votes: tuple[str | None, ...]


class Table:
    """Several models on the same tasks."""

    def __init__(self, ids: Sequence[str], columns: Mapping[str, Column]) -> None:
        self.ids, self.models = list(ids), list(columns)
        self._columns = dict(columns)

    def __getitem__(self, name: str) -> Column:
        return self._columns[name]

    def alone(self, model: str, teacher: bool = False) -> Played:
        column = self[model]
        return Played(column.right, column.dollars, column.seconds, np.full(len(self.ids), float(teacher)))

    def committee(self, members: Sequence[str], need: int, teacher: str) -> Played:
        """`need` of the members must agree, else the teacher answers.

        Raises `ConfigError` for a rule that nobody can meet or that one member meets alone, and for a member twice.
        """
        if len(members) < 2 or not 2 <= need <= len(members):
            raise ConfigError(f"{need} of {len(members)} members: at least two of two or more must agree")
        if len(set(members)) < len(members):
            raise ConfigError(f"a member is there twice: {', '.join(members)}")
        columns, last = [self[name] for name in members], self[teacher]
        rows = [self._step(i, columns, need, last) for i in range(len(self.ids))]
        return Played(*(np.array(part) for part in zip(*rows)))

    def _step(self, i: int, columns: list[Column], need: int, teacher: Column) -> tuple[float, float, float, float]:
        dollars = seconds = 0.0
        votes: Counter[str] = Counter()
        first: dict[str, Column] = {}
        for left, column in zip(range(len(columns) - 1, -1, -1), columns):
            dollars, seconds = dollars + column.dollars[i], seconds + column.seconds[i]
            vote = column.votes[i]
            if vote is not None:
                votes[vote] += 1
                first.setdefault(vote, column)
                if votes[vote] == need:
                    return float(first[vote].right[i]), dollars, seconds, 0.0
            if max(votes.values(), default=0) + left < need:
                break
        return float(teacher.right[i]), dollars + teacher.dollars[i], seconds + teacher.seconds[i], 1.0

    def mixed(self, cheap: str, teacher: str, share: float) -> Played:
        """The teacher at random on a share of the tasks, in expectation."""
        a, b = self[cheap], self[teacher]
        parts = [share * y + (1 - share) * x for x, y in zip(a[:3], b[:3])]
        return Played(parts[0], parts[1], parts[2], np.full(len(self.ids), share))

    def oracle(self, cheap: str, teacher: str) -> Played:
        """The teacher exactly where the cheap model is wrong, whose answer is paid for everywhere."""
        a, b = self[cheap], self[teacher]
        asked = 1 - a.right
        return Played(np.maximum(a.right, b.right), a.dollars + asked * b.dollars, a.seconds + asked * b.seconds, asked)


class Against(NamedTuple):
    """A policy against a teacher on the same tasks, with 95 % intervals of the paired bootstrap."""

    right: float
    right_interval: tuple[float, float]
    difference: float
    difference_interval: tuple[float, float]
    per_thousand: float
    """Dollars per 1,000 tasks"""
    ratio: float
    """Of the teacher's dollars"""
    ratio_interval: tuple[float, float]
    teacher_share: float
    seconds: float


def against(policy: Played, teacher: Played, *, draws: int = 2_000, seed: int = 0) -> Against:
    """Tasks are drawn again with replacement, the same ones for both. Raises `UnknownPrice`."""
    if np.isnan(policy.dollars).any() or np.isnan(teacher.dollars).any():
        raise UnknownPrice("a price or a token count is not known: give prices as NAME=INPUT,OUTPUT")
    n = len(policy.right)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws) / n
    both = weights @ np.stack([policy.right, teacher.right, policy.dollars, teacher.dollars], axis=1)
    cost = teacher.dollars.mean()
    ratios = both[:, 2] / both[:, 3] if cost else np.full(draws, np.nan)
    return Against(
        right=float(policy.right.mean()),
        right_interval=_middle(both[:, 0]),
        difference=float(policy.right.mean() - teacher.right.mean()),
        difference_interval=_middle(both[:, 0] - both[:, 1]),
        per_thousand=1000 * float(policy.dollars.mean()),
        ratio=float(policy.dollars.mean() / cost) if cost else float("nan"),
        ratio_interval=_middle(ratios),
        teacher_share=float(policy.teacher.mean()),
        seconds=float(policy.seconds.mean()),
    )


def _middle(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


class Likeness(NamedTuple):
    """How alike the errors of two voters are, on the same tasks."""

    wrong: tuple[float, float]
    both_wrong: float
    by_chance: float
    """Both wrong if errors were independent"""
    kappa: float
    """Cohen's, of being wrong: agreement beyond chance"""
    same_answer: float
    """Of the tasks on which both are wrong: share on which they vote for the same"""
    agree: float
    right_when_agreed: float

    @property
    def agreed_and_wrong(self) -> float:
        """Share of all tasks on which their agreement deceives"""
        return self.agree * (1 - self.right_when_agreed)


def likeness(a: Floats, b: Floats, votes_a: Sequence[str | None], votes_b: Sequence[str | None]) -> Likeness:
    """`a` and `b`: 1 where right."""
    same = np.array([x is not None and x == y for x, y in zip(votes_a, votes_b)])
    wrong_a, wrong_b = 1 - a, 1 - b
    both, chance = float((wrong_a * wrong_b).mean()), float(wrong_a.mean() * wrong_b.mean())
    seen = both + float((a * b).mean())
    expected = chance + float(a.mean() * b.mean())
    return Likeness(
        wrong=(float(wrong_a.mean()), float(wrong_b.mean())),
        both_wrong=both,
        by_chance=chance,
        kappa=(seen - expected) / (1 - expected) if expected < 1 else float("nan"),
        same_answer=float(same[(wrong_a * wrong_b) > 0].mean()) if both else float("nan"),
        agree=float(same.mean()),
        right_when_agreed=float(a[same].mean()) if same.any() else float("nan"),
    )


def auroc(scores: Floats, right: Floats) -> float:
    """That a right answer has a higher score than a wrong one; ties count half. NaN where one kind lacks."""
    good, bad = np.sort(scores[right > 0.5]), np.sort(scores[right <= 0.5])
    if not len(good) or not len(bad):
        return float("nan")
    below = np.searchsorted(bad, good, "left").sum() + np.searchsorted(bad, good, "right").sum()
    return float(below / 2 / len(good) / len(bad))
