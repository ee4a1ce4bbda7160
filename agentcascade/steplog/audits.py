"""Count the audits in a database: how often the teacher would have acted otherwise, and what audits cost."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, case, func, select

from agentcascade.batches.types import audit_job
from agentcascade.storage import Database
from agentcascade.storage.tables import batch_calls, batches, calls, decisions, shadows


class AuditCounts(NamedTuple):
    """Numbers of audited steps and of those where the teacher would have acted otherwise, and the audits' dollars."""

    steps: int
    differing: int
    dollars: Decimal | None
    """None where a price is not known"""


def count_audits(
    database: Database, cascade: str | None = None, namespace: str | None = None, since: datetime | None = None
) -> AuditCounts:
    """Count the audits of one cascade, namespace and period, or all.

    An audit whose teacher gave no answer counts with its dollars alone.
    """
    conditions: list[ColumnElement[bool]] = [shadows.c.kind == "audit"]
    conditions += [decisions.c.cascade == cascade] if cascade is not None else []
    conditions += [shadows.c.namespace == namespace] if namespace is not None else []
    conditions += [shadows.c.created_at >= since] if since is not None else []
    unanswered = shadows.c.teacher_action.is_(None) & (func.json_array_length(shadows.c.failures) > 0)
    same = and_(shadows.c.teacher_action == decisions.c.action, shadows.c.teacher_action.is_not(None))
    answered = select(func.count(), func.coalesce(func.sum(case((same, 0), else_=1)), 0))
    answered = (
        answered.select_from(shadows)
        .join(decisions, decisions.c.id == shadows.c.decision)
        .where(*conditions, ~unanswered)
    )
    bill = select(func.sum(calls.c.dollars), func.coalesce(func.sum(case((calls.c.dollars.is_(None), 1), else_=0)), 0))
    bill = bill.select_from(shadows).join(decisions, decisions.c.id == shadows.c.decision)
    bill = bill.join(calls, calls.c.decision == shadows.c.decision).where(calls.c.purpose == "audit", *conditions)
    batched = select(func.sum(batch_calls.c.dollars), func.count() - func.count(batch_calls.c.dollars))
    batched = batched.join_from(batch_calls, batches).where(batches.c.purpose == "audit")
    batched = batched if cascade is None else batched.where(batches.c.job == audit_job(cascade))
    batched = batched if namespace is None else batched.where(batches.c.namespace == namespace)
    batched = batched if since is None else batched.where(batches.c.created_at >= since)
    with database.begin() as connection:
        steps, differing = connection.execute(answered).one()
        bills = [connection.execute(query).one() for query in (bill, batched)]
    known = sum((dollars for dollars, _ in bills if dollars), Decimal(0))
    return AuditCounts(int(steps), int(differing), None if any(unpriced for _, unpriced in bills) else known)
