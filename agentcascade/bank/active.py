"""Active collection: which tasks the teacher demonstrates next, by the saving that is expected less its price.

PGKD (arXiv 2411.05045, section 3: the teacher is asked where the student is seen to fail) and Tailored Learning choose
what to collect by the student's needs. Here a demonstration of a task is worth, over the `horizon` of future episodes,

    P(teacher succeeds) · horizon · mean over live episodes of (steps · drop in need) · dollars of a deferral

where the drop follows from what the task adds to the support of the episode's goal (`needs.NeedCurve`), times how
much more, or less, the goals near to it need than the curve says, shrunken. Chosen is what is worth most beyond its
price; where nothing is worth its price, collection stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, NamedTuple

import numpy as np

from agentcascade.bank.needs import Evidence, GoalVectors, NeedCurve, fit_curve, nearest, rank_weights, support
from agentcascade.errors import UnknownPrice
from agentcascade.protocols import ChatModel
from agentcascade.types import Account, Usage

NEAR = 0.75
"""Cosine from which goals are alike: they share what they need beyond the curve, and a price."""
SHRINK = 3.0
"""Episodes for which the curve, and the mean price, count among those near a goal."""

Why = Literal["expected saving", "diversity"]


class Candidate(NamedTuple):
    """A task that may be demonstrated, and what that is worth.

    Args:
        number: In the pool, from 0.
        saving: Expected dollars over the horizon; None in a cold start, where it is not known.
        price: Expected dollars of the teacher's episode; None in a cold start.
        need: Share of steps that need the teacher, mean of the live episodes that it would support more.
        steps: Share of live steps with goals near to this one.
        why: What it was chosen by.
        gain: What it adds to the support of goals, in the cold start.
    """

    number: int
    saving: Decimal | None
    price: Decimal | None
    need: float
    steps: float
    why: Why
    gain: float = 0.0

    @property
    def pays(self) -> bool:
        """Whether the expected saving is at least the price; a cold start is worth what its limit says."""
        return self.why == "diversity" or (
            self.saving is not None and self.price is not None and self.saving > 0 and self.saving >= self.price
        )

    def __str__(self) -> str:
        if self.why == "diversity":
            return f"cold start, by diversity: adds {self.gain:.3f} to the support of the pool's goals"
        return (
            f"expected to save ${self.saving:.4f} for ${self.price:.4f}: {self.need:.2f} of steps there need the "
            f"teacher, {self.steps:.2f} of live steps are near"
        )


class ActiveChooser:
    """Chooses tasks of a pool one after the other, each in view of those chosen before.

    Args:
        vectors: Of goals: they tell how near these are.
        evidence: Of the namespace's live episodes; without any it is a cold start: the pool stands for what will come,
            and the first tasks are those that cover it best.
        pool: Goals of the tasks.
        k: Demonstrations of a step, as many as support a goal.
        horizon: Future episodes over which a demonstration must pay.
        live: The task is there to be done anyway: its price is the teacher's less what the cascade costs there.

    Raises:
        UnknownPrice: There are live episodes, and what a deferral or an episode of the teacher costs is not known.
        EmbeddingError: Goals cannot be embedded.
    """

    def __init__(
        self, vectors: GoalVectors, evidence: Evidence, pool: Sequence[str], *, k: int, horizon: int, live: bool = False
    ) -> None:
        self._vectors, self._k, self._horizon = vectors, k, horizon
        self.cold = not evidence.goals
        self.evidence = evidence
        self.curve = fit_curve(evidence.supports, evidence.needs)
        self._pool = vectors.of(pool)
        self._banked = vectors.of(evidence.banked)
        self._goals = self._pool if self.cold else vectors.of(evidence.goals)
        self._likeness = np.maximum(self._goals @ self._pool.T, 0)
        self._best = nearest(self._goals @ self._banked.T, k)
        self._left = np.ones(len(pool), dtype=bool)
        self._steps = np.ones(len(self._goals)) if self.cold else evidence.steps
        self._factor = np.ones(len(self._goals))
        self._step_dollars = 0.0
        if not self.cold:
            self._factor = _factors(self._goals, evidence, self.curve)
            self._alone = _alone(evidence, live)
            if evidence.step_dollars is None:
                raise UnknownPrice(_UNPRICED.format("what a deferred step costs"))
            self._step_dollars = float(evidence.step_dollars)

    @property
    def banked(self) -> int:
        """Demonstrations that goals are supported by, those that were taken meanwhile included."""
        return len(self._banked)

    def best(self) -> Candidate | None:
        """The task that is worth most beyond its price, of those that are left; None where none is."""
        if not self._left.any():
            return None
        if self.cold:
            added = self._added(self._likeness).mean(axis=0)
            index = int(np.where(self._left, added, -np.inf).argmax())
            return Candidate(index, None, None, 0.0, 0.0, "diversity", float(added[index]))
        drops = self._drops(self._likeness)
        savings, prices = self._savings(drops), self._prices(self._likeness)
        index = int(np.where(self._left, savings - prices, -np.inf).argmax())
        return self._candidate(index, self._likeness, drops, savings, prices)

    def appraise(self, goal: str) -> Candidate | None:
        """What a demonstration of a goal of no pool is worth; None in a cold start where one near to it is banked."""
        vector = self._vectors.of([goal])
        if self.cold:
            held = float(nearest(vector @ self._banked.T, 1)[0, 0])
            return None if held >= NEAR else Candidate(0, None, None, 0.0, 0.0, "diversity", 1 - held)
        likeness = np.maximum(self._goals @ vector.T, 0)
        drops = self._drops(likeness)
        return self._candidate(0, likeness, drops, self._savings(drops), self._prices(likeness))

    def take(self, index: int, *, banked: bool = True) -> None:
        """The task was chosen; where it is `banked`, or will be, it supports the goals near to it."""
        self._left[index] = False
        if banked:
            self._support(self._likeness[:, index : index + 1])

    def take_goal(self, goal: str) -> None:
        """A goal of no pool was chosen, and supports those near to it from now on."""
        vector = self._vectors.of([goal])
        self._banked = np.concatenate([self._banked, vector])
        self._support(np.maximum(self._goals @ vector.T, 0))

    def _support(self, likeness: np.ndarray) -> None:
        self._best = nearest(np.concatenate([self._best, likeness], axis=1), self._k)

    def _candidate(
        self, index: int, likeness: np.ndarray, drops: np.ndarray, savings: np.ndarray, prices: np.ndarray
    ) -> Candidate:
        gained = drops[:, index] * self._steps
        weights = gained / gained.sum() if gained.sum() > 0 else np.full(len(gained), 1 / len(gained))
        near = likeness[:, index] >= NEAR
        return Candidate(
            number=index,
            saving=_dollars(savings[index]),
            price=_dollars(prices[index]),
            need=float(weights @ self._needs()),
            steps=float(self._steps[near].sum() / self._steps.sum()),
            why="expected saving",
        )

    def _savings(self, drops: np.ndarray) -> np.ndarray:
        """Dollars over the horizon that each task is expected to save, shape (pool,)."""
        scale = self.evidence.teacher_succeeds * self._horizon / len(self._steps) * self._step_dollars
        saved: np.ndarray = self._steps @ drops * scale
        return saved

    def _needs(self) -> np.ndarray:
        needs: np.ndarray = np.minimum(1.0, self._factor * self.curve.at(support(self._best)))
        return needs

    def _added(self, likeness: np.ndarray) -> np.ndarray:
        """What each task adds to the support of each goal, shape (goals, pool)."""
        added: np.ndarray = np.zeros(likeness.shape)
        above: np.ndarray = np.full((len(self._best), 1), np.inf)
        for rank, weight in enumerate(rank_weights(self._k)):
            held = self._best[:, rank : rank + 1]
            added += weight * (np.clip(likeness, held, above) - held)
            above = held
        return added

    def _drops(self, likeness: np.ndarray) -> np.ndarray:
        """By how much each task lowers the need of each goal, shape (goals, pool)."""
        then = self.curve.at(support(self._best)[:, None] + self._added(likeness))
        drops: np.ndarray = np.maximum(self._needs()[:, None] - np.minimum(1.0, self._factor[:, None] * then), 0)
        return drops

    def _prices(self, likeness: np.ndarray) -> np.ndarray:
        """Dollars of the teacher's episode for each task: of the episodes near to it, shrunken to the mean of all."""
        near = likeness >= NEAR
        priced: np.ndarray = (self._alone @ near + SHRINK * self._alone.mean()) / (near.sum(axis=0) + SHRINK)
        return priced


def why_stop(
    candidate: Candidate | None, cold: bool, taken: int, cold_start: int, remaining: Decimal | None
) -> str | None:
    """Why collection stops before `candidate`; None where it goes on.

    Args:
        candidate: The best of what is left.
        cold: No step was voted on yet.
        taken: Tasks that were demonstrated or tried, in all runs.
        cold_start: Most of them in a cold start.
        remaining: Dollars of the budget; None where there is none.
    """
    if candidate is None:
        return "the pool is used up"
    if cold and taken >= cold_start:
        return (
            f"the cold start is over ({taken} tasks by diversity, collect.cold_start): let the cascade play in mode "
            "'cascade', so that it is seen where demonstrations are wanted"
        )
    if not candidate.pays:
        saving, price = candidate.saving or Decimal(0), candidate.price or Decimal(0)
        return f"the best task that is left is expected to save ${saving:.4f}, and costs ${price:.4f}"
    if remaining is not None and remaining <= 0:
        return "the budget is used up"
    if remaining is not None and candidate.price is not None and candidate.price > remaining:
        return f"the budget: ${remaining:.4f} are left, and the next episode is expected to cost ${candidate.price:.4f}"
    return None


def account_of(namespace: str, budget: Decimal | None) -> Account | None:
    """The account that active collection is paid from; None without a limit."""
    return None if budget is None else Account(scope="collection", name=namespace, limit=budget)


def check_priced(teacher: ChatModel | None) -> None:
    """Raises `UnknownPrice` for a teacher whose price is not known: nothing could be weighed against it."""
    if teacher is None or teacher.dollars(Usage(input=1, output=1)) is None:
        name = "the teacher" if teacher is None else f"'{teacher.name}'"
        raise UnknownPrice(
            f"active collection weighs savings against the price of {name}, which is not known: set teacher.price, or "
            "collect without collect.active"
        )


def _alone(evidence: Evidence, live: bool) -> np.ndarray:
    """Dollars of the teacher alone for each live episode; with `live` less what the cascade did cost."""
    alone = evidence.episode_dollars
    if any(d is None for d in alone) or (live and any(d is None for d in evidence.cascade_dollars)):
        raise UnknownPrice(_UNPRICED.format("an episode of the teacher"))
    dollars = np.array([float(d or 0) for d in alone])
    if live:
        dollars = np.maximum(dollars - np.array([float(d or 0) for d in evidence.cascade_dollars]), 0)
    return dollars


_UNPRICED = (
    "active collection weighs a saving against a price, and {} is not known: give the models prices "
    "(teacher.price, student.price), or collect without collect.active"
)


def _factors(goals: np.ndarray, evidence: Evidence, curve: NeedCurve) -> np.ndarray:
    """How much more than the curve says goals need: of the episodes near to each, shrunken to 1."""
    expected = curve.at(evidence.supports)
    near = (goals @ goals.T >= NEAR).astype(np.float64)
    known = SHRINK * expected.mean()
    factors: np.ndarray = (near @ evidence.needs + known) / (near @ expected + known)
    return factors


def _dollars(amount: float) -> Decimal:
    return Decimal(repr(round(float(amount), 8)))
