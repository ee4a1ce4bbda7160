"""Demonstrations that are wanted: clusters of goals where the student defers or errs most, per dollar of the teacher.

PGKD (arXiv 2411.05045) and Tailored Learning ask the teacher where the student is known to fail. Here that is read off
the records of live steps: what deferrals of a cluster cost, beside what one more episode of the teacher costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import func, select

from agentcascade.bank.bank import Bank
from agentcascade.storage.tables import calls, decisions, shadows, trajectories
from agentcascade.storage.trajectories import chunks

MOST = 100_000
"""Steps that are looked at, the newest."""
MOST_GOALS = 5_000
"""Different goals that are clustered, those with the most steps."""


class WantedCluster(NamedTuple):
    """Goals that are near to each other, and what the student does with them.

    `saves` is the most that a demonstration can save in each further episode: all that its deferrals cost. `pays_after`
    is how many of them an episode of the teacher takes to be worth its price, at the soonest.
    """

    goal: str
    """The most frequent one."""
    goals: int
    episodes: int
    steps: int
    deferred: int
    audited: int
    """Steps of the student that the teacher looked at afterwards."""
    wrong: int
    """Of these, where the teacher did something else."""
    banked: int
    """Trajectories with goals of this cluster."""
    saves: Decimal | None
    """Dollars an episode; None where a price is not known."""
    price: Decimal | None
    """Dollars of the teacher alone for one episode, as the steps' decisions estimate it."""

    @property
    def pays_after(self) -> float | None:
        """Episodes; None where a price is not known, or nothing is deferred."""
        return None if not self.saves or self.price is None else float(self.price / self.saves)


def wanted(bank: Bank, namespace: str, near: float = 0.75) -> list[WantedCluster]:
    """The clusters of a namespace, where a demonstration pays soonest first, those of unknown price last. Blocks.

    Args:
        bank: Whose database holds the records; its embedder tells how near goals are.
        namespace: Whose decisions of mode ``cascade``.
        near: Cosine from which a goal belongs to a cluster.

    Raises:
        EmbeddingError: The goals cannot be embedded.
        StorageError: The database fails.
    """
    columns = (
        decisions.c.id,
        decisions.c.goal,
        decisions.c.episode,
        decisions.c.answered_by,
        decisions.c.teacher_dollars,
    )
    voted = select(*columns).where(
        decisions.c.namespace == namespace, decisions.c.mode == "cascade", decisions.c.samples > 0
    )
    with bank.database.begin() as connection:
        steps = connection.execute(voted.order_by(decisions.c.created_at.desc()).limit(MOST)).all()
        spent = dollars_of_teacher(connection, [s.id for s in steps if s.answered_by == "teacher"])
        audits = audits_of(connection, namespace)
        query = select(trajectories.c.goal, func.count()).where(trajectories.c.namespace == namespace)
        banked = {goal[:300]: int(n) for goal, n in connection.execute(query.group_by(trajectories.c.goal))}
    by_goal = defaultdict[str, list[Any]](list)
    for step in steps:
        by_goal[step.goal].append(step)
    frequent = sorted(by_goal, key=lambda goal: (-len(by_goal[goal]), goal))[:MOST_GOALS]
    cluster_of = cluster(bank, [*frequent, *(goal for goal in banked if goal not in by_goal)], near)
    goals_of = defaultdict[int, list[str]](list)
    for goal in frequent:
        goals_of[cluster_of[goal]].append(goal)
    clusters = [
        _summary(
            goals,
            [step for goal in goals for step in by_goal[goal]],
            spent,
            audits,
            sum(n for goal, n in banked.items() if cluster_of[goal] == number),
        )
        for number, goals in goals_of.items()
    ]
    return sorted(clusters, key=lambda c: (c.pays_after is None, c.pays_after or 0.0, -c.deferred, c.goal))


def cluster(bank: Bank, goals: Sequence[str], near: float) -> dict[str, int]:
    """Goal → its cluster: that of the first goal before it that is near enough, else one of its own."""
    leaders: list[int] = []
    texts = list(dict.fromkeys(goals))
    if not texts:
        return {}
    vectors = np.asarray(bank.embedder.embed(texts), dtype=np.float32)
    chosen = {}
    for index, text in enumerate(texts):
        likeness = vectors[leaders] @ vectors[index] if leaders else np.zeros(0)
        best = int(likeness.argmax()) if leaders else -1
        if best < 0 or likeness[best] < near:
            best = len(leaders)
            leaders.append(index)
        chosen[text] = best
    return chosen


def _summary(
    goals: Sequence[str],
    steps: Sequence[Any],
    spent: Mapping[str, Decimal | None],
    audits: Mapping[str, bool],
    banked: int,
) -> WantedCluster:
    episodes = len({step.episode for step in steps})
    deferred = [step for step in steps if step.answered_by == "teacher"]
    seen = [audits[step.id] for step in steps if step.id in audits]
    return WantedCluster(
        goal=goals[0],
        goals=len(goals),
        episodes=episodes,
        steps=len(steps),
        deferred=len(deferred),
        audited=len(seen),
        wrong=seen.count(False),
        banked=banked,
        saves=_per_episode([spent.get(step.id) for step in deferred], episodes),
        price=_per_episode([step.teacher_dollars for step in steps], episodes),
    )


def _per_episode(dollars: Sequence[Decimal | None], episodes: int) -> Decimal | None:
    known = [d for d in dollars if d is not None]
    return None if len(known) < len(dollars) else sum(known, Decimal(0)) / episodes


def dollars_of_teacher(connection: Any, ids: Sequence[str]) -> dict[str, Decimal | None]:
    """Decision → dollars of its teacher's calls; None where one of them is not known."""
    found: dict[str, Decimal | None] = {}
    for part in chunks(ids):
        query = select(calls.c.decision, calls.c.dollars).where(
            calls.c.decision.in_(part), calls.c.role == "teacher", calls.c.purpose == "act"
        )
        for decision, dollars in connection.execute(query):
            before = found.get(decision, Decimal(0))
            found[decision] = None if before is None or dollars is None else before + dollars
    return found


def audits_of(connection: Any, namespace: str) -> dict[str, bool]:
    """Decision → whether the teacher did what the student had done, of audited steps."""
    query = select(shadows.c.decision, shadows.c.teacher_action, decisions.c.action).join(
        decisions, decisions.c.id == shadows.c.decision
    )
    query = query.where(
        shadows.c.namespace == namespace, shadows.c.kind == "audit", shadows.c.teacher_action.is_not(None)
    )
    rows = connection.execute(query.order_by(shadows.c.created_at.desc()).limit(MOST))
    return {decision: teacher == action for decision, teacher, action in rows}
