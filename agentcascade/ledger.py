"""What was spent, what was saved, and when the demonstrations pay off."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Float, case, cast, func, select

from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.storage import Database
from agentcascade.storage.recording import DatabaseRecorder as DatabaseRecorder
from agentcascade.storage.recording import MemoryRecorder as MemoryRecorder
from agentcascade.storage.tables import calls, decisions
from agentcascade.types import Frozen, Role, Usage


class Summary(Frozen):
    """One line of the ledger's summary. Dollars are None where a price is unknown; `known_dollars` is the rest."""

    group: str
    steps: int
    deferred: int
    usage: Usage
    dollars: Decimal | None
    known_dollars: Decimal
    unpriced_calls: int
    teacher_dollars: Decimal | None
    saved_dollars: Decimal | None

    @property
    def deferral_share(self) -> float:
        return self.deferred / self.steps if self.steps else 0.0


class Spending(Frozen):
    """What one model cost in one role. `known_dollars` leaves out the `unpriced_calls`."""

    role: Role
    model: str
    calls: int
    usage: Usage
    known_dollars: Decimal
    unpriced_calls: int

    @property
    def dollars(self) -> Decimal | None:
        """None where a price is unknown."""
        return None if self.unpriced_calls else self.known_dollars


GROUPS = {"all": None, "namespace": decisions.c.namespace, "mode": decisions.c.mode, "episode": decisions.c.episode}


class Ledger:
    """Questions to the records of a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def summary(self, by: str = "all", *, namespace: str | None = None, since: datetime | None = None) -> list[Summary]:
        """Spending and savings, one line per group (`by`: all, namespace, mode or episode).

        Raises `InvalidRequest` for another `by`.
        """
        if by not in GROUPS:
            raise InvalidRequest(f"the ledger cannot be grouped by '{by}': {did_you_mean(by, GROUPS)}")
        column = GROUPS[by]
        group = column if column is not None else func.coalesce(None, "all")
        conditions = _conditions(namespace, since)
        heads = (
            select(
                group.label("name"),
                func.count().label("steps"),
                func.sum(case((decisions.c.answered_by == "teacher", 1), else_=0)).label("deferred"),
                func.sum(case((decisions.c.teacher_dollars.is_(None), 1), else_=0)).label("unestimated"),
                func.sum(decisions.c.teacher_dollars).label("teacher"),
            )
            .where(*conditions)
            .group_by("name")
        )
        tokens = [func.sum(calls.c[name]).label(name) for name in Usage.model_fields]
        bills = (
            select(
                group.label("name"),
                *tokens,
                func.sum(calls.c.dollars).label("known"),
                func.sum(case((calls.c.dollars.is_(None), 1), else_=0)).label("unpriced"),
            )
            .join_from(calls, decisions)
            .where(*conditions)
            .group_by("name")
        )
        with self.database.begin() as connection:
            billed = {row.name: row for row in connection.execute(bills)}
            return [_summary(row, billed.get(row.name)) for row in connection.execute(heads.order_by("name"))]

    def episode_dollars(self, mode: str, *, namespace: str | None = None) -> Decimal | None:
        """Mean dollars of an episode in `mode`; None when there is none or a price is unknown."""
        lines = [s for s in self.summary("episode", namespace=namespace) if s.steps]
        with self.database.begin() as connection:
            own = set(connection.execute(select(decisions.c.episode).where(decisions.c.mode == mode)).scalars())
        bills = [s.dollars for s in lines if s.group in own]
        if not bills or None in bills:
            return None
        return sum((b for b in bills if b is not None), Decimal(0)) / len(bills)

    def spending(self, *, namespace: str | None = None, since: datetime | None = None) -> list[Spending]:
        """Calls, tokens and dollars by role and model."""
        query = (
            select(
                calls.c.role,
                calls.c.model,
                func.count().label("count"),
                *(func.sum(calls.c[name]).label(name) for name in Usage.model_fields),
                func.sum(calls.c.dollars).label("known"),
                func.sum(case((calls.c.dollars.is_(None), 1), else_=0)).label("unpriced"),
            )
            .join_from(calls, decisions)
            .where(*_conditions(namespace, since))
            .group_by(calls.c.role, calls.c.model)
            .order_by(calls.c.role, calls.c.model)
        )
        with self.database.begin() as connection:
            return [
                Spending(
                    role=row["role"],
                    model=row["model"],
                    calls=row["count"],
                    usage=_usage(row),
                    known_dollars=row["known"] or Decimal(0),
                    unpriced_calls=int(row["unpriced"]),
                )
                for row in connection.execute(query).mappings()
            ]

    def agreement(self) -> list[tuple[float, int]]:
        """(agreement, steps) of all steps that were voted on."""
        level = cast(decisions.c.agreement, Float)
        query = select(level, func.count()).where(decisions.c.agreement.is_not(None)).group_by(level).order_by(level)
        with self.database.begin() as connection:
            return [(float(a), int(n)) for a, n in connection.execute(query)]


def _conditions(namespace: str | None, since: datetime | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if namespace is not None:
        conditions.append(decisions.c.namespace == namespace)
    if since is not None:
        conditions.append(decisions.c.created_at >= since)
    return conditions


def _usage(row: Any) -> Usage:
    return Usage(**{name: int(row[name] or 0) for name in Usage.model_fields})


def _summary(head: Any, bill: Any) -> Summary:
    usage = _usage(bill._mapping) if bill else Usage()
    unpriced = int(bill.unpriced) if bill else 0
    known = (bill.known if bill else None) or Decimal(0)
    dollars = None if unpriced else known
    teacher = None if head.unestimated else head.teacher
    return Summary(
        group=str(head.name),
        steps=head.steps,
        deferred=int(head.deferred or 0),
        usage=usage,
        dollars=dollars,
        known_dollars=known,
        unpriced_calls=unpriced,
        teacher_dollars=teacher,
        saved_dollars=None if dollars is None or teacher is None else teacher - dollars,
    )


def break_even(demonstrations: Decimal, teacher: Decimal, cascade: Decimal) -> float | None:
    """Episodes after which the demonstrations have paid for themselves: their cost over what an episode saves.

    None when an episode saves nothing (IDC, "break-even").
    """
    saved = teacher - cascade
    return float(demonstrations / saved) if saved > 0 else None
