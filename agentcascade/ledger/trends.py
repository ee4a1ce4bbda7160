"""Trends: spending, savings and drift (deferrals, agreement, audits) in buckets of time, read in parts of bounded time.

Parts that are over are remembered for a while; what a reading had no time for is told, and is there at a later one.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any, NamedTuple

from sqlalchemy import Connection, case, func, select

from agentcascade.ledger.conditions import count_rows, within
from agentcascade.ledger.dashboard_rows import SpendingPoint
from agentcascade.ledger.selection import Selection
from agentcascade.ledger.spending_series import BUCKET_LENGTHS, Bucket, bucket_name, bucket_start, read_points
from agentcascade.storage import Database
from agentcascade.storage.tables import decisions, shadows
from agentcascade.types import Frozen

SECONDS = 2.5
"""No further part is begun after so long."""
REMEMBERED = 10_000
"""Points of parts that are over, and parts, some kilobytes each: whoever asks for ever other times fills no memory."""
REMEMBERED_SECONDS = 600.0
"""A journal that a crash left behind may bring steps of an earlier time."""
SETTLED = timedelta(minutes=10)
"""A part that ended so long ago is over: records come within seconds."""


class DriftPoint(Frozen):
    """What shows drift in one bucket of time."""

    voted: int = 0
    agreement: float = 0.0
    """Sum over the voted steps."""
    audited: int = 0
    differing: int = 0
    """Audited steps at which the teacher would have acted otherwise."""
    shadowed: int = 0
    would_accept: int = 0


class TrendPoint(NamedTuple):
    """One bucket of time."""

    time: datetime
    spending: SpendingPoint
    drift: DriftPoint


class Trend(NamedTuple):
    """Buckets from `since` on, oldest first, empty ones too; `whole` says whether nothing of the period is missing."""

    points: list[TrendPoint]
    since: datetime
    whole: bool


class TrendReader:
    """Reads trends of a database. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[Any, tuple[float, dict[datetime, TrendPoint]]] = OrderedDict()
        self._held = 0
        self._lock = Lock()

    def read(self, selection: Selection, bucket: Bucket, seconds: float = SECONDS) -> Trend:
        """The newest parts first, until the period is read or `seconds` are over."""
        end = time.monotonic() + seconds
        found: dict[datetime, TrendPoint] = {}
        since, whole = selection.until, True
        for start, stop in _parts(selection, bucket):
            part = self._part(selection, bucket, start, stop, time.monotonic() < end or since == selection.until)
            if part is None:
                whole = False
                break
            found |= part
            since = start
        first, length = bucket_start(since, bucket), BUCKET_LENGTHS[bucket]
        count = max(0, -(-(selection.until - first) // length))
        times = (first + length * i for i in range(count))
        points = [found.get(t) or TrendPoint(t, SpendingPoint(time=t), DriftPoint()) for t in times]
        return Trend(points, since, whole)

    def _part(
        self, selection: Selection, bucket: Bucket, start: datetime, stop: datetime, may_read: bool
    ) -> dict[datetime, TrendPoint] | None:
        key = selection.model_copy(update={"since": start, "until": stop}), bucket
        with self._lock:
            known = self._known.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        if not may_read:
            return None
        with self._database.begin() as connection:
            part = _read(connection, key[0], bucket)
        if stop < datetime.now(UTC) - SETTLED:
            self._remember(key, part)
        return part

    def _remember(self, key: Any, part: dict[datetime, TrendPoint]) -> None:
        with self._lock:
            _, before = self._known.pop(key, (0.0, None))
            self._known[key] = time.monotonic() + REMEMBERED_SECONDS, part
            self._held += 1 + len(part) - (0 if before is None else 1 + len(before))
            while self._held > REMEMBERED:
                _, (_, oldest) = self._known.popitem(last=False)
                self._held -= 1 + len(oldest)


def _parts(selection: Selection, bucket: Bucket) -> Iterator[tuple[datetime, datetime]]:
    """Days, or hours where buckets are minutes; the newest first."""
    stop = selection.until
    while stop > selection.since:
        start = bucket_start(stop - timedelta(microseconds=1), "hour" if bucket == "minute" else "day")
        start = max(start, selection.since)
        yield start, stop
        stop = start


def _read(connection: Connection, selection: Selection, bucket: Bucket) -> dict[datetime, TrendPoint]:
    period = selection.namespace, selection.since, selection.until
    narrowing = selection.narrowing()
    spending = read_points(connection, bucket, *period, narrowing)
    sums: dict[str, dict[str, Any]] = {}
    level = decisions.c.agreement
    votes = select(
        bucket_name(connection, bucket, decisions).label("name"),
        func.count(level).label("voted"),
        func.coalesce(func.sum(level), 0.0).label("agreement"),
    ).where(*within(decisions, period[0], period[1], until=period[2]), *narrowing)
    audit, shadow = shadows.c.kind == "audit", shadows.c.kind == "shadow"
    answered = audit & shadows.c.teacher_action.is_not(None)
    same = case((decisions.c.action == shadows.c.teacher_action, 1), else_=0)
    checks = select(
        bucket_name(connection, bucket, shadows).label("name"),
        count_rows(answered).label("audited"),
        count_rows(answered & (same == 0)).label("differing"),
        count_rows(shadow).label("shadowed"),
        count_rows(shadow & shadows.c.accepted.is_(True)).label("would_accept"),
    ).join_from(shadows, decisions)
    checks = checks.where(*within(shadows, period[0], period[1], until=period[2]), *narrowing)
    for query in (votes, checks):
        for row in connection.execute(query.group_by("name")).mappings():
            sums.setdefault(row["name"], {}).update({k: v for k, v in row.items() if k != "name"})
    drift = {datetime.fromisoformat(name).replace(tzinfo=UTC): DriftPoint(**row) for name, row in sums.items()}
    return {
        t: TrendPoint(t, spending.get(t) or SpendingPoint(time=t), drift.get(t) or DriftPoint())
        for t in spending.keys() | drift.keys()
    }
