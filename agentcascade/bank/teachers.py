"""Utility of each teacher's demonstrations: how often a step that was shown them was accepted, and was right.

A bank may hold demonstrations of several teachers. What each is worth to the student is read off the records: steps
that voted, by whose demonstrations were shown, and, of those that a shadow or an audit compared, whether the student's
largest class was what the teacher did. A step that showed demonstrations of several counts for each by their share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select

from agentcascade.storage import Database, bank_metadata
from agentcascade.storage.tables import decisions, shadows, trajectories

MOST = 100_000
"""Steps that are looked at, the newest."""


@dataclass
class TeacherUtility:
    """What is known of one teacher's demonstrations in one namespace. Counts of steps are sums of shares.

    Attributes:
        model: Of the teacher, as the trajectories name it.
        trajectories: Of it in the bank.
        steps: Of these.
        shown: Steps of the student, voted on, that showed its demonstrations.
        accepted: Of these, taken by the student.
        compared: Steps that showed its demonstrations and that both models answered (shadows and audits).
        right: Of these, where the student's largest class was the teacher's action.
        episodes: Ended episodes in which the student acted on one of its demonstrations, per demonstration.
        successes: Of these.
    """

    model: str
    trajectories: int = 0
    steps: int = 0
    shown: float = 0.0
    accepted: float = 0.0
    compared: float = 0.0
    right: float = 0.0
    episodes: int = 0
    successes: int = 0


def teacher_utilities(database: Database, namespace: str) -> list[TeacherUtility]:
    """The teachers of a namespace's demonstrations, most trajectories first. Blocks.

    Raises `StorageError` when the database fails.
    """
    found: dict[str, TeacherUtility] = {}

    def of(model: str) -> TeacherUtility:
        return found.setdefault(model, TeacherUtility(model))

    with database.begin() as connection:
        columns = trajectories.c.pk, trajectories.c.id, trajectories.c.model, trajectories.c.length
        rows = connection.execute(select(*columns).where(trajectories.c.namespace == namespace)).all()
        counted = bank_metadata.read_uses(connection, [row.pk for row in rows])
        model_of = {row.id: row.model for row in rows}
        for row in rows:
            utility, (episodes, successes) = of(row.model), counted.get(row.pk, (0, 0))
            utility.trajectories += 1
            utility.steps += row.length
            utility.episodes += episodes
            utility.successes += successes
        voted = select(decisions.c.demonstrations, decisions.c.answered_by).where(
            decisions.c.namespace == namespace, decisions.c.mode == "cascade", decisions.c.samples > 0
        )
        for demonstrations, answered_by in connection.execute(_newest(voted, decisions)):
            for model, share in _shares(demonstrations, model_of).items():
                of(model).shown += share
                of(model).accepted += share * (answered_by == "student")
        both = select(shadows.c.demonstrations, shadows.c.samples, shadows.c.teacher_action).where(
            shadows.c.namespace == namespace, shadows.c.teacher_action.is_not(None)
        )
        for demonstrations, samples, action in connection.execute(_newest(both, shadows)):
            top = _largest_class(samples)
            for model, share in _shares(demonstrations, model_of).items():
                of(model).compared += share
                of(model).right += share * (top == action)
    return sorted(found.values(), key=lambda u: (-u.trajectories, u.model))


def namespaces(database: Database) -> list[str]:
    """Those that the bank holds trajectories of."""
    with database.begin() as connection:
        query = select(trajectories.c.namespace).group_by(trajectories.c.namespace)
        return sorted(connection.execute(query.having(func.count() > 0)).scalars())


def _newest(query: Select[Any], table: Any) -> Select[Any]:
    return query.order_by(table.c.created_at.desc()).limit(MOST)


def _shares(windows: Sequence[str], model_of: dict[str, str]) -> dict[str, float]:
    """Teacher → its share of the windows shown, of those that are still banked."""
    models = [model_of[name] for window in windows if (name := window.rpartition(":")[0]) in model_of]
    return {model: count / len(models) for model, count in Counter(models).items()}


def _largest_class(samples: Iterable[dict[str, Any]]) -> str | None:
    votes: dict[str, int] = defaultdict(int)
    for sample in samples:
        if sample.get("action") is not None:
            votes[sample["action"]] += int(sample.get("weight", 1))
    return max(votes, key=lambda key: votes[key]) if votes else None
