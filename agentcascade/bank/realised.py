"""What active collection has brought: per cluster of goals what was paid and expected, and the need before and since.

It is what was seen, before and after the first demonstration of a cluster: other changes of that time are in it, too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import select

from agentcascade.bank.active import NEAR
from agentcascade.bank.bank import Bank
from agentcascade.bank.needs import Evidence, GoalVectors, read_evidence
from agentcascade.bank.wanted import cluster
from agentcascade.storage.tables import decisions, trajectories

_EXPECTED = re.compile(r"wanted: expected to save \$(\d+\.?\d*)")


class Needed(NamedTuple):
    """Live episodes of a cluster, and the share of their steps that needed the teacher; None without episodes."""

    episodes: int
    share: float | None


class Realised(NamedTuple):
    """A cluster of goals that were collected because they were wanted.

    `expected` is the saving of those that were banked over the horizon, 0 for a cold start; `saved` what the fall of
    the need has saved so far; None where there is nothing to compare, or no price.
    """

    goal: str
    collected: int
    banked: int
    paid: Decimal | None
    expected: Decimal
    before: Needed
    after: Needed
    saved: Decimal | None


class _Collected(NamedTuple):
    episode: str
    goal: str
    at: datetime
    paid: Decimal | None
    expected: Decimal


def realised(bank: Bank, namespace: str, k: int) -> list[Realised]:
    """The clusters of a namespace that were collected actively, the dearest first. Blocks.

    Args:
        bank: Whose database holds the records; its embedder tells how near goals are.
        namespace: Whose.
        k: Demonstrations of a step.

    Raises:
        EmbeddingError: The goals cannot be embedded.
        StorageError: The database fails.
    """
    query = select(
        decisions.c.episode, decisions.c.goal, decisions.c.reason, decisions.c.dollars, decisions.c.created_at
    ).where(decisions.c.namespace == namespace, decisions.c.mode == "collect", decisions.c.reason.like("wanted: %"))
    with bank.database.begin() as connection:
        steps = connection.execute(query.order_by(decisions.c.created_at)).all()
        banked = set(
            connection.execute(select(trajectories.c.episode).where(trajectories.c.namespace == namespace)).scalars()
        )
    if not steps:
        return []
    by_episode = defaultdict[str, list[Any]](list)
    for step in steps:
        by_episode[step.episode].append(step)
    collected = [_collected(id, of_episode) for id, of_episode in by_episode.items()]
    clusters = cluster(bank, [c.goal for c in collected], NEAR)
    by_cluster = defaultdict[int, list[_Collected]](list)
    for one in collected:
        by_cluster[clusters[one.goal]].append(one)
    vectors = GoalVectors(bank.embedder)
    evidence = read_evidence(bank, namespace, k, vectors)
    found = [_realised(members, banked, evidence, vectors) for members in by_cluster.values()]
    return sorted(found, key=lambda r: (-(r.paid or Decimal(0)), r.goal))


def _collected(episode: str, steps: Sequence[Any]) -> _Collected:
    said = next((match for s in steps if (match := _EXPECTED.match(s.reason))), None)
    known = [s.dollars for s in steps if s.dollars is not None]
    paid = sum(known, Decimal(0)) if len(known) == len(steps) else None
    return _Collected(episode, steps[0].goal, steps[0].created_at, paid, Decimal(said[1]) if said else Decimal(0))


def _realised(members: Sequence[_Collected], banked: set[str], evidence: Evidence, vectors: GoalVectors) -> Realised:
    first = min(member.at for member in members)
    near = (vectors.of(evidence.goals) @ vectors.of([m.goal for m in members]).T >= NEAR).any(axis=1)
    later = np.array([at > first for at in evidence.played_at], dtype=bool)
    before, after = (_needed(evidence, near & time) for time in (~later, later))
    saved = None
    if before.share is not None and after.share is not None and evidence.step_dollars is not None:
        steps = float(evidence.steps[near & later].sum())
        saved = Decimal(repr(round((before.share - after.share) * steps * float(evidence.step_dollars), 8)))
    paid = [member.paid for member in members if member.paid is not None]
    return Realised(
        goal=members[0].goal,
        collected=len(members),
        banked=sum(member.episode in banked for member in members),
        paid=sum(paid, Decimal(0)) if len(paid) == len(members) else None,
        expected=sum((m.expected for m in members if m.episode in banked), Decimal(0)),
        before=before,
        after=after,
        saved=saved,
    )


def _needed(evidence: Evidence, which: np.ndarray) -> Needed:
    steps = evidence.steps[which]
    if not len(steps):
        return Needed(0, None)
    return Needed(len(steps), float(steps @ evidence.needs[which] / steps.sum()))
