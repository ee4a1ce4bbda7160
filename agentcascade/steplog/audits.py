"""What the audits of a database say: how often the teacher would have acted otherwise, and what it cost to know."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, case, func, select

from agentcascade.storage import Database
from agentcascade.storage.tables import calls, decisions, shadows


class Audited(NamedTuple):
    """Accepted steps that the teacher checked, those among them where it would have acted otherwise, and dollars."""

    steps: int
    differing: int
    dollars: Decimal | None
    """None where a price is not known"""


def audits(
    database: Database, cascade: str | None = None, namespace: str | None = None, since: datetime | None = None
) -> Audited:
    """Of one cascade, namespace and period, or all. An audit whose teacher could not be asked counts its dollars."""
    own: list[ColumnElement[bool]] = [shadows.c.kind == "audit"]
    own += [decisions.c.cascade == cascade] if cascade is not None else []
    own += [shadows.c.namespace == namespace] if namespace is not None else []
    own += [shadows.c.created_at >= since] if since is not None else []
    unanswered = shadows.c.teacher_action.is_(None) & (func.json_array_length(shadows.c.failures) > 0)
    same = and_(shadows.c.teacher_action == decisions.c.action, shadows.c.teacher_action.is_not(None))
    both = select(func.count(), func.coalesce(func.sum(case((same, 0), else_=1)), 0))
    both = both.select_from(shadows).join(decisions, decisions.c.id == shadows.c.decision).where(*own, ~unanswered)
    bill = select(func.sum(calls.c.dollars), func.coalesce(func.sum(case((calls.c.dollars.is_(None), 1), else_=0)), 0))
    bill = bill.select_from(shadows).join(decisions, decisions.c.id == shadows.c.decision)
    bill = bill.join(calls, calls.c.decision == shadows.c.decision).where(calls.c.purpose == "audit", *own)
    with database.begin() as connection:
        steps, differing = connection.execute(both).one()
        known, unpriced = connection.execute(bill).one()
    return Audited(int(steps), int(differing), None if unpriced else known or Decimal(0))
