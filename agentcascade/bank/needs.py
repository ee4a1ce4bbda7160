"""Needs of the student: how often live steps took the teacher, by how well the bank supported their goal at the time.

The support of a goal is the mean cosine of its `k` nearest banked goals, 0 for each that lacks, weighted by 1 / rank:
the nearest teaches most. The share of steps that need the teacher is a logistic curve of it, whose slope is shrunken
towards a prior (`SLOPE`), so that few episodes claim little. Episodes, not steps, are the evidence, since the steps of
one are alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import func, or_, select

from agentcascade._util.lru_cache import LRUCache
from agentcascade.bank.bank import Bank
from agentcascade.bank.wanted import audits_of, dollars_of_teacher
from agentcascade.models.embeddings import embed
from agentcascade.protocols import Embedder
from agentcascade.storage.tables import decisions, episodes, trajectories

MOST_STEPS = 50_000
"""Live steps that are looked at, the newest."""
MOST_EPISODES = 2_000
"""Of these, episodes that are evidence, the newest."""
MOST_BANKED = 5_000
"""Trajectories of the namespace whose goals are support, the newest."""
SLOPE, SLOPE_SD = -1.0, 1.0
"""Prior of the curve's slope: from no support to full support the odds of needing the teacher fall by e."""
GOAL_CHARACTERS = 300
"""Of a goal, as decisions keep it."""
CACHED_GOALS = 20_000
INTERCEPT_SD = 2.5
PRIOR_SUCCESSES, PRIOR_ATTEMPTS = 1.0, 1.25
"""Of the teacher's episodes, before any was seen: four of five succeed, as one episode would say."""


class GoalVectors:
    """Unit vectors of goals, each embedded once while it is among the latest; one without a word is near to none.

    Thread-safe. Raises `EmbeddingError` for a goal that cannot be embedded.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: LRUCache[str, np.ndarray] = LRUCache(CACHED_GOALS)
        self._zero = np.zeros(embedder.dimension, dtype=np.float32)

    def of(self, goals: Sequence[str]) -> np.ndarray:
        """The vectors of goals, of their first 300 characters, shape (goals, d)."""
        short = [goal[:GOAL_CHARACTERS].strip() for goal in goals]
        found = {"": self._zero}
        found |= {goal: vector for goal in set(short) if (vector := self._known.get(goal)) is not None}
        if missing := sorted(set(short) - set(found)):
            for goal, vector in zip(missing, embed(self._embedder, missing)):
                self._known.put(goal, vector)
                found[goal] = vector
        rows = [found[goal] for goal in short]
        return np.stack(rows) if rows else np.zeros((0, self._embedder.dimension), dtype=np.float32)


class NeedCurve(NamedTuple):
    """Share of steps that need the teacher, as a logistic curve of support.

    >>> import numpy as np
    >>> NeedCurve(0.0, -1.0).at(np.array([0.0, 1.0])).round(3).tolist()
    [0.5, 0.269]
    """

    intercept: float
    slope: float
    """Never above 0: a demonstration is not expected to hurt."""

    def at(self, support: np.ndarray) -> np.ndarray:
        """The share at these supports, each in (0, 1)."""
        share: np.ndarray = 1 / (1 + np.exp(-(self.intercept + self.slope * support)))
        return share


def fit_curve(supports: np.ndarray, needs: np.ndarray) -> NeedCurve:
    """The curve of episodes, most probable under a normal prior of both parameters.

    Args:
        supports: Of each episode's goal when it was played, in [0, 1], shape (episodes,).
        needs: Share of its steps that needed the teacher, in [0, 1], shape (episodes,).

    >>> import numpy as np
    >>> fit_curve(np.zeros(0), np.zeros(0))
    NeedCurve(intercept=0.0, slope=-1.0)
    >>> fit_curve(np.array([0.0, 1.0] * 50), np.array([0.9, 0.1] * 50)).slope < -2
    True
    """
    x = np.stack([np.ones(len(supports)), supports], axis=1)
    mean, precision = np.array([0.0, SLOPE]), np.diag([INTERCEPT_SD**-2, SLOPE_SD**-2])
    found = mean.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ found, -30, 30)))
        gradient = x.T @ (needs - p) - precision @ (found - mean)
        step = np.linalg.solve(precision + (x.T * (p * (1 - p))) @ x, gradient)
        found = found + np.clip(step, -2, 2)
        if float(np.abs(step).max()) < 1e-9:
            break
    return NeedCurve(float(found[0]), min(0.0, float(found[1])))


@dataclass(frozen=True)
class Evidence:
    """Live episodes of a namespace, and what its steps and its teacher's episodes cost.

    Attributes:
        goals: Of each episode, shape (episodes,).
        steps: Of each episode that were voted on, shape (episodes,).
        needs: Share of these that were deferred, or accepted and probably wrong by what audits found (episodes,).
        supports: Of the goal when the episode was played (episodes,).
        banked: Goals of the bank by now, whatever traffic there was.
        step_dollars: What a deferred step costs more than an accepted one: the teacher's price less the student's;
            None where it is not known.
        episode_dollars: Of the teacher alone for each episode (episodes,); None where it is not known.
        cascade_dollars: What each episode did cost (episodes,); None where it is not known.
        successes, attempts: Of the teacher's own episodes in mode ``collect``.
        played_at: When each episode began (episodes,).
    """

    goals: Sequence[str]
    steps: np.ndarray
    needs: np.ndarray
    supports: np.ndarray
    banked: Sequence[str]
    step_dollars: Decimal | None
    episode_dollars: Sequence[Decimal | None]
    cascade_dollars: Sequence[Decimal | None]
    successes: int = 0
    attempts: int = 0
    played_at: Sequence[datetime] = ()

    @property
    def teacher_succeeds(self) -> float:
        """Probability that an episode of the teacher can be banked."""
        return (self.successes + PRIOR_SUCCESSES) / (self.attempts + PRIOR_ATTEMPTS)


class _Banked(NamedTuple):
    goal: str
    at: datetime


def nearest(likeness: np.ndarray, k: int) -> np.ndarray:
    """The k best cosines of each row, best first, 0 for each that lacks: shape (rows, k).

    >>> import numpy as np
    >>> nearest(np.array([[0.5, 1.0, -0.2]]), 4).tolist()
    [[1.0, 0.5, 0.0, 0.0]]
    """
    rows, columns = likeness.shape
    best = np.zeros((rows, k))
    taken = min(k, columns)
    if taken:
        best[:, :taken] = np.sort(np.partition(likeness, columns - taken, axis=1)[:, columns - taken :], axis=1)[
            :, ::-1
        ]
    found: np.ndarray = np.maximum(best, 0)
    return found


def support(best: np.ndarray) -> np.ndarray:
    """Support of each row of `nearest`, in [0, 1]: the mean of its cosines, weighted by 1 / rank."""
    weights = rank_weights(best.shape[1])
    found: np.ndarray = best @ weights
    return found


def rank_weights(k: int) -> np.ndarray:
    """1, 1/2, … 1/k, made to sum to 1."""
    weights = 1 / np.arange(1, k + 1)
    found: np.ndarray = weights / weights.sum()
    return found


def read_evidence(bank: Bank, namespace: str, k: int, vectors: GoalVectors | None = None) -> Evidence:
    """What is known of a namespace's live episodes in mode ``cascade``. Blocks.

    Args:
        bank: Whose database holds the records; its embedder tells how near goals are.
        namespace: Whose.
        k: Demonstrations of a step, as many as support a goal.
        vectors: Of goals, where they are kept for longer; default: those of the bank's embedder, made anew.

    Raises:
        EmbeddingError: The goals cannot be embedded.
        StorageError: The database fails.
    """
    columns = "id", "goal", "episode", "answered_by", "teacher_dollars", "dollars", "created_at"
    voted = select(*(decisions.c[name] for name in columns)).where(
        decisions.c.namespace == namespace,
        decisions.c.mode == "cascade",
        # Voted on, or deferred since too little was retrieved: not what the latch or the caller gave to the teacher.
        or_(decisions.c.samples > 0, decisions.c.reason.like("% demonstrations, % needed")),
    )
    newest = (
        select(trajectories.c.goal, trajectories.c.created_at)
        .where(trajectories.c.namespace == namespace)
        .order_by(trajectories.c.created_at.desc())
        .limit(MOST_BANKED)
    )
    ended = select(episodes.c.success, func.count()).where(
        episodes.c.namespace == namespace, episodes.c.mode == "collect", episodes.c.success.is_not(None)
    )
    with bank.database.begin() as connection:
        steps = connection.execute(voted.order_by(decisions.c.created_at.desc()).limit(MOST_STEPS)).all()
        spent = dollars_of_teacher(connection, [s.id for s in steps if s.answered_by == "teacher"])
        audits = audits_of(connection, namespace)
        banked = [_Banked(goal[:GOAL_CHARACTERS], at) for goal, at in connection.execute(newest)][::-1]
        outcomes = {bool(success): int(n) for success, n in connection.execute(ended.group_by(episodes.c.success))}
    by_episode = defaultdict[str, list[Any]](list)
    for step in steps:
        if step.episode in by_episode or len(by_episode) < MOST_EPISODES:
            by_episode[step.episode].append(step)
    played = list(by_episode.values())
    goals = [episode[-1].goal for episode in played]
    wrong = _wrong_share([audits[s.id] for s in steps if s.id in audits])
    played_at = [min(s.created_at for s in episode) for episode in played]
    needs = [_needed(episode, audits, wrong) / len(episode) for episode in played]
    return Evidence(
        goals=goals,
        steps=np.array([len(episode) for episode in played], dtype=np.float64),
        needs=np.array(needs, dtype=np.float64),
        supports=_supports(vectors or GoalVectors(bank.embedder), goals, played_at, banked, k),
        banked=[entry.goal for entry in banked],
        step_dollars=_step_dollars(steps, spent),
        episode_dollars=[_sum([s.teacher_dollars for s in episode]) for episode in played],
        cascade_dollars=[_sum([s.dollars for s in episode]) for episode in played],
        successes=outcomes.get(True, 0),
        attempts=sum(outcomes.values()),
        played_at=played_at,
    )


def _supports(
    vectors: GoalVectors, goals: Sequence[str], played_at: Sequence[datetime], banked: Sequence[_Banked], k: int
) -> np.ndarray:
    """Support of each goal by what was banked before its episode."""
    if not goals:
        return np.zeros(0)
    likeness = vectors.of(goals) @ vectors.of([entry.goal for entry in banked]).T
    added = np.array([entry.at.timestamp() for entry in banked])
    later = added[None, :] >= np.array([at.timestamp() for at in played_at])[:, None]
    found: np.ndarray = support(nearest(np.where(later, 0.0, likeness), k))
    return found


def _needed(episode: Sequence[Any], audits: dict[str, bool], wrong: float) -> float:
    """Steps of an episode that needed the teacher; one that was accepted and never audited counts as `wrong`."""
    return sum(1.0 if s.answered_by == "teacher" else 1.0 - audits[s.id] if s.id in audits else wrong for s in episode)


def _wrong_share(agreed: Sequence[bool]) -> float:
    """Share of accepted steps that are wrong, shrunken towards none as by four audits."""
    return agreed.count(False) / (len(agreed) + 4)


def _step_dollars(steps: Sequence[Any], spent: dict[str, Decimal | None]) -> Decimal | None:
    """Mean dollars of the teacher's calls at deferred steps: the student was asked at both kinds of steps."""
    known = [spent.get(s.id) for s in steps if s.answered_by == "teacher"]
    if not known:  # nothing was deferred: what the teacher alone would have cost, less what the cascade did
        pairs = [(s.teacher_dollars, s.dollars) for s in steps]
        if not pairs or any(None in pair for pair in pairs):
            return None
        return max(Decimal(0), sum((a - b for a, b in pairs), Decimal(0)) / len(pairs))
    total = _sum(known)
    return None if total is None else total / len(known)


def _sum(dollars: Sequence[Decimal | None]) -> Decimal | None:
    known = [d for d in dollars if d is not None]
    return sum(known, Decimal(0)) if len(known) == len(dollars) else None
