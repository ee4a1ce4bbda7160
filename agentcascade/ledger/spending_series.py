"""Spending over time: steps, dollars and savings in buckets of a minute, an hour or a day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, String, Table, case, func, select, type_coerce

from agentcascade.ledger.conditions import BILLS, Conditions, cascaded_and_deferred, count_rows, within
from agentcascade.ledger.dashboard_rows import BILLED, COUNTS, SpendingPoint
from agentcascade.storage.tables import Dollars, calls, decisions

Bucket = Literal["minute", "hour", "day"]
BUCKET_LENGTHS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
PREFIX = {"minute": (16, "YYYY-MM-DD HH24:MI"), "hour": (13, "YYYY-MM-DD HH24"), "day": (10, "YYYY-MM-DD")}
"""What a bucket keeps of a time as text: characters in SQLite, a pattern in PostgreSQL."""


def bucket_start(since: datetime, bucket: Bucket) -> datetime:
    """The beginning of the bucket, in UTC, that `since` is in."""
    minute = since.astimezone(UTC).replace(second=0, microsecond=0)
    hour = minute.replace(minute=0)
    return {"minute": minute, "hour": hour, "day": hour.replace(hour=0)}[bucket]


def bucket_name(connection: Connection, bucket: Bucket, table: Table) -> ColumnElement[str]:
    """A row's bucket as text that `datetime.fromisoformat` reads."""
    characters, pattern = PREFIX[bucket]
    if connection.dialect.name == "postgresql":
        return func.to_char(func.timezone("UTC", table.c.created_at), pattern, type_=String)
    return func.substr(table.c.created_at, 1, characters, type_=String)


def read_points(
    connection: Connection,
    bucket: Bucket,
    namespace: str | None,
    since: datetime,
    until: datetime | None = None,
    narrowing: Conditions | None = None,
) -> dict[datetime, SpendingPoint]:
    """Buckets that hold a step or a recall of its own: the estimates from decisions, the bills from calls.

    `narrowing` are conditions on decisions; what was billed for no step is then left out.
    """
    narrowed = narrowing or []
    cascaded, deferred = cascaded_and_deferred()
    own_dollars, teacher = decisions.c.dollars, decisions.c.teacher_dollars
    heads = select(
        bucket_name(connection, bucket, decisions).label("name"),
        func.count().label("steps"),
        cascaded.label("cascaded"),
        deferred.label("deferred"),
        count_rows(decisions.c.answered_by == "teacher").label("taught"),
        count_rows(func.json_array_length(decisions.c.failures) > 0).label("failures"),
        count_rows(own_dollars.is_(None) | teacher.is_(None)).label("unpriced_steps"),
        count_rows(teacher.is_(None)).label("unestimated"),
        func.sum(teacher).label("teacher"),
        func.sum(decisions.c.cache_regret).label("regret"),
        func.sum(type_coerce(teacher - own_dollars, Dollars)).label("saved"),  # NULL where either is unknown
    )
    heads = heads.where(*within(decisions, namespace, since, until=until), *narrowed).group_by("name")
    sums = {row["name"]: dict(row) for row in connection.execute(heads).mappings()}
    for lines, owner in BILLS[:1] if narrowed else BILLS:
        shadows_and_judges = case((lines.c.purpose.in_(("shadow", "audit", "judge")), lines.c.dollars))
        background = shadows_and_judges if lines is calls else lines.c.dollars
        bills = select(
            bucket_name(connection, bucket, owner).label("name"),
            func.sum(lines.c.dollars).label("known"),
            count_rows(lines.c.dollars.is_(None)).label("unpriced_calls"),
            count_rows(lines.c.estimated.is_(True)).label("estimated_calls"),
            func.sum(type_coerce(background, Dollars)).label("background"),
        ).join_from(lines, owner)
        bills = bills.where(*within(owner, namespace, since, until=until), *narrowed).group_by("name")
        for row in connection.execute(bills).mappings():
            bucket_sums = sums.setdefault(row["name"], {})
            bucket_sums |= {k: bucket_sums.get(k, 0) + (row[k] or 0) for k in ("known", *BILLED, "background")}
    times = {name: datetime.fromisoformat(name).replace(tzinfo=UTC) for name in sums}
    return {times[name]: _point(times[name], values) for name, values in sums.items()}


def _point(time: datetime, row: Mapping[str, Any]) -> SpendingPoint:
    known, teacher, saved, background = (
        row.get(name) or Decimal(0) for name in ("known", "teacher", "saved", "background")
    )
    dollars = None if row.get("unpriced_calls") else known
    teacher_dollars = None if row.get("unestimated") else teacher
    return SpendingPoint(
        time=time,
        **{name: row.get(name) or 0 for name in COUNTS},
        known_dollars=known,
        known_teacher_dollars=teacher,
        known_saved_dollars=saved - background,
        dollars=dollars,
        teacher_dollars=teacher_dollars,
        saved_dollars=None if dollars is None or teacher_dollars is None else teacher_dollars - dollars,
        known_cache_regret=row.get("regret") or Decimal(0),
    )
