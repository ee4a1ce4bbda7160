"""Rows of outcomes: what failed in which situation, and what worked there after all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, delete, func, select

from agentcascade.storage.tables import outcomes
from agentcascade.storage.trajectories import chunks
from agentcascade.storage.upsert import upsert
from agentcascade.types import Outcome

FIELDS = tuple(Outcome.model_fields)


class OutcomeRow(NamedTuple):
    """An outcome and its key, by which newer ones are told."""

    pk: int
    outcome: Outcome


def insert_outcomes(connection: Connection, items: Sequence[Outcome]) -> int:
    """Write outcomes; returns how many were new. Those whose ids are there already are left alone."""
    written = 0
    for part in chunks(items):
        ids = select(outcomes.c.id).where(outcomes.c.id.in_([item.id for item in part]))
        there = set(connection.execute(ids).scalars())
        if rows := [item.model_dump() for item in part if item.id not in there]:
            connection.execute(upsert(connection, outcomes).on_conflict_do_nothing(), rows)
            written += len(rows)
    return written


def read_outcomes(connection: Connection, namespace: str, after: int = 0) -> list[OutcomeRow]:
    """Outcomes of a namespace with a key above `after`, oldest first."""
    query = select(outcomes).where(outcomes.c.namespace == namespace, outcomes.c.pk > after).order_by(outcomes.c.pk)
    rows = connection.execute(query).mappings()
    return [OutcomeRow(row["pk"], Outcome.model_construct(**{name: row[name] for name in FIELDS})) for row in rows]


def newest_outcomes(
    connection: Connection, namespace: str | None = None, *, limit: int | None = None, offset: int = 0
) -> list[Outcome]:
    """Outcomes, newest first."""
    query = _newest_first(select(outcomes), namespace).limit(limit).offset(offset)
    rows = connection.execute(query).mappings()
    return [Outcome.model_construct(**{name: row[name] for name in FIELDS}) for row in rows]


def count_outcomes(connection: Connection) -> dict[str, int]:
    """Namespace → outcomes that are kept of it."""
    query = select(outcomes.c.namespace, func.count()).group_by(outcomes.c.namespace)
    return {name: int(count) for name, count in connection.execute(query)}


def count_of(connection: Connection, namespace: str) -> int:
    """Outcomes that are kept of one namespace."""
    return connection.execute(select(func.count()).where(outcomes.c.namespace == namespace)).scalar_one()


def delete_outcomes(connection: Connection, ids: Collection[str]) -> int:
    """Delete outcomes by id; returns how many there were."""
    parts = chunks(sorted(ids))
    return sum(connection.execute(delete(outcomes).where(outcomes.c.id.in_(part))).rowcount for part in parts)


def prune_outcomes(
    connection: Connection, namespace: str | None = None, *, keep: int | None = None, before: datetime | None = None
) -> int:
    """Delete all but the newest `keep`, and all older than `before`; returns how many."""
    doomed: set[int] = set()
    if keep is not None:
        query = _newest_first(select(outcomes.c.pk), namespace)
        doomed |= set(list(connection.execute(query).scalars())[keep:])
    if before is not None:
        old = _newest_first(select(outcomes.c.pk), namespace).where(outcomes.c.created_at < before)
        doomed |= set(connection.execute(old).scalars())
    for part in chunks(sorted(doomed)):
        connection.execute(delete(outcomes).where(outcomes.c.pk.in_(part)))
    return len(doomed)


def _newest_first(query: Select[Any], namespace: str | None) -> Select[Any]:
    query = query.order_by(outcomes.c.created_at.desc(), outcomes.c.pk.desc())
    return query if namespace is None else query.where(outcomes.c.namespace == namespace)
