"""Recorded thinking: reasoning tokens of a model's answers in a namespace, of its newest calls."""

from __future__ import annotations

from sqlalchemy import select

from agentcascade.config.effort import LEVELS, effort_of
from agentcascade.storage import Database
from agentcascade.storage.tables import calls, decisions

RECENT_CALLS = 500
"""That are read, newest first."""
PURPOSES = ("act", "sample")


def usual_thinking(database: Database, namespace: str, model: str) -> float | None:
    """Mean reasoning tokens of an answer of a model in a namespace; None where nothing is recorded.

    Args:
        database: An open one.
        namespace: Whose steps.
        model: At one effort, or by its plain name: then what it thought unasked and at any level counts, not at a
            budget, a share, or none.

    Raises:
        StorageError: It cannot be read.
    """
    names = (
        [model]
        if effort_of(model) is not None
        else [model, *(f"{model}@{level}" for level in LEVELS if level != "none")]
    )
    newest = (
        select(calls.c.reasoning, calls.c.purpose, decisions.c.samples)
        .join(decisions, decisions.c.id == calls.c.decision)
        .where(decisions.c.namespace == namespace, calls.c.model.in_(names), calls.c.purpose.in_(PURPOSES))
        .order_by(calls.c.pk.desc())
        .limit(RECENT_CALLS)
    )
    with database.begin() as connection:
        rows = connection.execute(newest).all()
    answers = sum(max(1, row.samples) if row.purpose == "sample" else 1 for row in rows)
    return sum(row.reasoning for row in rows) / answers if rows else None
