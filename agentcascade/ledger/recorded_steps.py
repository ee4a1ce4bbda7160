"""Recorded steps of a database, the newest, with their bills and what the router made of their shadows."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import select

from agentcascade.storage import Database
from agentcascade.storage.tables import calls, decisions, shadows
from agentcascade.types import Call, Decision, Usage

RECENT_STEPS = 2_000
"""That are read, newest first."""


class ShadowVerdict(NamedTuple):
    """Of a shadowed step: whether the router would have taken the student's action.

    `samples` is how many the student gave, `propensity` the probability with which the step was drawn.
    """

    decision: str
    accepted: bool
    samples: int
    propensity: float = 1.0


def recorded_steps(
    database: Database, *, cascade: str | None = None, namespace: str | None = None
) -> tuple[list[Decision], list[ShadowVerdict]]:
    """The newest steps of a database with their bills, and what the router made of those that were shadowed.

    Args:
        database: An open one.
        cascade: Steps of the cascade with this name alone; None: of all.
        namespace: Of one tenant; None: of all.

    Raises:
        StorageError: It cannot be read.
    """
    conditions = [] if cascade is None else [decisions.c.cascade == cascade]
    conditions += [] if namespace is None else [decisions.c.namespace == namespace]
    newest = select(decisions.c.id).where(*conditions).order_by(decisions.c.created_at.desc()).limit(RECENT_STEPS)
    ids = newest.subquery()
    with database.begin() as connection:
        heads = connection.execute(select(decisions).join(ids, ids.c.id == decisions.c.id)).mappings().all()
        bills: dict[str, list[Call]] = {head["id"]: [] for head in heads}
        for line in connection.execute(select(calls).join(ids, ids.c.id == calls.c.decision).order_by(calls.c.pk)):
            bills[line.decision].append(call_of(line))
        columns = shadows.c.decision, shadows.c.accepted, shadows.c.samples, shadows.c.propensity
        query = select(*columns).join(ids, ids.c.id == shadows.c.decision).where(shadows.c.kind == "shadow")
        verdicts = [
            ShadowVerdict(row.decision, row.accepted, len(row.samples), row.propensity)
            for row in connection.execute(query)
            if row.samples
        ]
    steps = [Decision.model_construct(**{**head, "rungs": (), "calls": tuple(bills[head["id"]])}) for head in heads]
    return steps, verdicts


def call_of(line: Any) -> Call:
    """The line of a bill that a row holds."""
    usage = Usage.model_construct(**{name: getattr(line, name) for name in Usage.model_fields})
    names = (name for name in Call.model_fields if name != "usage")
    return Call.model_construct(usage=usage, **{name: getattr(line, name) for name in names})
