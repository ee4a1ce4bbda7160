"""SQL conditions and counts of the dashboard's questions, bounded by namespace and time."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Integer, Table, case, func, select

from agentcascade.storage.tables import (
    batch_calls,
    batches,
    calls,
    decisions,
    recall_calls,
    recalls,
    rewrite_calls,
    rewrites,
)

Conditions = list[ColumnElement[bool]]
BILLS = ((calls, decisions), (recall_calls, recalls), (rewrite_calls, rewrites), (batch_calls, batches))
"""Tables of calls, each with the table of what they were made for: all that was ever billed."""


def count_rows(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """In how many rows the condition holds; 0 without rows."""
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0, type_=Integer)


def cascaded_and_deferred() -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Numbers of steps that could be deferred (mode ``cascade``), and of those that were."""
    could = decisions.c.mode == "cascade"
    return count_rows(could), count_rows(could & (decisions.c.answered_by == "teacher"))


def within(
    table: Table, namespace: str | None, since: datetime, time: str = "created_at", until: datetime | None = None
) -> Conditions:
    """Rows of `table` since then, of one namespace or (None) of all, as the index over (namespace, time) finds them.

    For all namespaces these are listed by a loose index scan, a recursive CTE that leaps from each to the next, so that
    the time is looked up in the index once for each.
    """
    period = [table.c[time] >= since] + ([] if until is None else [table.c[time] < until])
    if namespace is not None:
        return [table.c.namespace == namespace, *period]
    first = table.alias()
    names = select(func.min(first.c.namespace).label("name")).cte(f"{table.name}_namespaces", recursive=True)
    after = table.alias()
    next_name = select(func.min(after.c.namespace)).where(after.c.namespace > names.c.name).scalar_subquery()
    names = names.union_all(select(next_name).where(names.c.name.is_not(None)))
    present = select(names.c.name).where(names.c.name.is_not(None))
    return [table.c.namespace.in_(present), *period]
