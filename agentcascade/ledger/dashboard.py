"""What the dashboard shows: spending over time, agreement, goals, the latest decisions. Dollars are None where unknown.

Every question is bounded by a time and, for a tenant, by a namespace; both are looked up in one index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Float, Integer, String, Table, case, cast, func, select, type_coerce

from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.ledger import recent_decisions
from agentcascade.ledger.dashboard_rows import (
    BILLED,
    COUNTS,
    Banked,
    Bin,
    Broken,
    Goal,
    Latest,
    Point,
    Shadowed,
    Totals,
    summed,
)
from agentcascade.storage import Database
from agentcascade.storage.tables import (
    Dollars,
    calls,
    decisions,
    episodes,
    recall_calls,
    recalls,
    rewrite_calls,
    rewrites,
    shadows,
    trajectories,
)
from agentcascade.types import now

Where = list[ColumnElement[bool]]
Bucket = Literal["minute", "hour", "day"]
LENGTHS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
PREFIX = {"minute": (16, "YYYY-MM-DD HH24:MI"), "hour": (13, "YYYY-MM-DD HH24"), "day": (10, "YYYY-MM-DD")}
"""What a bucket keeps of a time as text: characters in SQLite, a pattern in PostgreSQL."""
MAX_POINTS = 1500
BINS = 10
IN_A_ROW = 3
"""Failures of a student from which the dashboard warns."""
COMPARED = 2000
"""The newest accepted shadows whose actions are compared with the teacher's."""


class Insights:
    """Questions to a database, of one namespace or (None) of all."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def spending(self, bucket: Bucket = "hour", *, namespace: str | None, since: datetime) -> list[Point]:
        """Every bucket from `since` to now, oldest first, empty ones too. Raises `InvalidRequest` for too many."""
        if bucket not in LENGTHS:
            raise InvalidRequest(f"bucket '{bucket}' is unknown: {did_you_mean(bucket, LENGTHS)}")
        start, length = _start(since, bucket), LENGTHS[bucket]
        count = int((now() - start) / length) + 1
        if count > MAX_POINTS:
            raise InvalidRequest(
                f"{count} points of one {bucket} are too many: ask for a coarser bucket or fewer hours"
            )
        with self.database.begin() as connection:
            found = _points(connection, bucket, namespace, since)
        return [found.get(t) or Point(time=t) for t in (start + length * i for i in range(count))]

    def totals(self, *, namespace: str | None, since: datetime, spending: Sequence[Point] | None = None) -> Totals:
        """One line about the whole period. `spending` of the same period, where it is there already, is summed up."""
        own = _within(decisions, namespace, since)
        ended = _within(episodes, namespace, since, "finished_at")
        runs = select(decisions.c.namespace, decisions.c.episode).where(*own).distinct().subquery()
        ends = select(func.count(), _count(episodes.c.success.is_(True)))
        with self.database.begin() as connection:
            points = _points(connection, "day", namespace, since).values() if spending is None else spending
            sums = summed(points)
            p50, p99 = _overhead(connection, own, sums["steps"])
            finished, succeeded = connection.execute(ends.where(episodes.c.success.is_not(None), *ended)).one()
            return Totals(
                time=since,
                **sums,
                deferral_share=sums["deferred"] / sums["cascaded"] if sums["cascaded"] else None,
                episodes=connection.execute(select(func.count()).select_from(runs)).scalar_one(),
                finished=finished,
                success_share=succeeded / finished if finished else None,
                overhead_p50=p50,
                overhead_p99=p99,
            )

    def agreement_histogram(self, *, namespace: str | None, since: datetime) -> list[Bin]:
        """Ten bins below full agreement, and one of full agreement alone."""
        level, student = cast(decisions.c.agreement, Float), decisions.c.answered_by == "student"
        query = select(level, student, func.count()).where(level.is_not(None), *_within(decisions, namespace, since))
        counts: Counter[tuple[int, bool]] = Counter()
        with self.database.begin() as connection:
            for agreement, accepted, number in connection.execute(query.group_by(level, student)):
                counts[min(BINS, int(agreement * BINS)), bool(accepted)] += number
        highs = [*((i + 1) / BINS for i in range(BINS)), 1.0]
        return [
            Bin(low=i / BINS, high=high, accepted=counts[i, True], deferred=counts[i, False])
            for i, high in enumerate(highs)
        ]

    def goals(
        self,
        order: Literal["slowest", "most_deferred"] = "slowest",
        *,
        namespace: str | None,
        since: datetime,
        limit: int = 10,
    ) -> list[Goal]:
        """The goals whose steps take longest, or those that were deferred most often (never deferred ones left out)."""
        orders = {"slowest": "seconds", "most_deferred": "deferred"}
        if order not in orders:
            raise InvalidRequest(f"goals cannot be ordered by '{order}': {did_you_mean(order, orders)}")
        cascaded, deferred = _cascaded()
        columns = (
            decisions.c.goal,
            func.count().label("steps"),
            cascaded.label("cascaded"),
            deferred.label("deferred"),
            func.avg(decisions.c.seconds).label("seconds"),
            func.sum(decisions.c.dollars).label("known"),
            _count(decisions.c.dollars.is_(None)).label("unpriced"),
        )
        query = select(*columns).where(*_within(decisions, namespace, since)).group_by(decisions.c.goal)
        if order == "most_deferred":
            query = query.having(deferred > 0)
        query = query.order_by(columns[4 if order == "slowest" else 3].desc(), decisions.c.goal).limit(limit)
        with self.database.begin() as connection:
            return [
                Goal(
                    goal=row.goal,
                    steps=row.steps,
                    cascaded=row.cascaded,
                    deferred=row.deferred,
                    seconds=row.seconds,
                    dollars=None if row.unpriced else row.known,
                )
                for row in connection.execute(query)
            ]

    def decisions(
        self, *, namespace: str | None, since: datetime, limit: int = 50, before: str | None = None
    ) -> list[Latest]:
        """The newest, or those older than the decision `before`; raises `InvalidRequest` when that is not there."""
        with self.database.begin() as connection:
            return recent_decisions.read(connection, _within(decisions, namespace, since), limit, before)

    def bank(self, *, namespace: str | None) -> list[Banked]:
        """What the bank holds now, by namespace."""
        own = [] if namespace is None else [trajectories.c.namespace == namespace]
        columns = trajectories.c.namespace, func.count(), func.sum(trajectories.c.length)
        query = select(*columns).where(*own).group_by(trajectories.c.namespace).order_by(trajectories.c.namespace)
        with self.database.begin() as connection:
            return [
                Banked(namespace=name, trajectories=number, steps=int(length))
                for name, number, length in connection.execute(query)
            ]

    def broken(self, *, namespace: str | None, since: datetime) -> list[Broken]:
        """Cascades whose student failed at each of the last steps, at least `IN_A_ROW` of them."""
        columns = decisions.c.cascade, decisions.c.answered_by, decisions.c.failures
        cascaded = decisions.c.mode == "cascade", *_within(decisions, namespace, since)
        query = select(*columns).where(*cascaded).order_by(decisions.c.created_at.desc()).limit(COMPARED)
        runs: dict[str, tuple[int, str, bool]] = {}
        with self.database.begin() as connection:
            for cascade, answered_by, failures in connection.execute(query):
                number, last, ended = runs.get(cascade, (0, "", False))
                said = next((f for f in failures if f.startswith("student: ")), None)
                if ended or answered_by == "student" or said is None:
                    runs[cascade] = number, last, True
                else:
                    runs[cascade] = number + 1, last or said.removeprefix("student: "), False
        return [
            Broken(cascade=cascade, steps=number, failure=last)
            for cascade, (number, last, _) in sorted(runs.items())
            if number >= IN_A_ROW
        ]

    def shadow(self, *, namespace: str | None, since: datetime) -> Shadowed:
        """How the student did behind the teacher's answers; its action is what most of its samples say."""
        own = [shadows.c.kind == "shadow", *_within(shadows, namespace, since)]
        samples = func.coalesce(func.sum(func.json_array_length(shadows.c.samples)), 0)
        accepted = _count(shadows.c.accepted.is_(True))
        heads = select(func.count().label("steps"), samples.label("samples"), accepted.label("accepted")).where(*own)
        both = select(shadows.c.teacher_action, shadows.c.samples).where(
            shadows.c.accepted.is_(True), shadows.c.teacher_action.is_not(None), *own
        )
        bill = (
            select(func.sum(calls.c.dollars), _count(calls.c.dollars.is_(None)))
            .join_from(shadows, calls, calls.c.decision == shadows.c.decision)
            .where(calls.c.purpose == "shadow", *own)
        )
        with self.database.begin() as connection:
            head = connection.execute(heads).one()
            pairs = connection.execute(both.order_by(shadows.c.created_at.desc()).limit(COMPARED)).all()
            known, unpriced = connection.execute(bill).one()
        said = [(teacher, _most(drawn)) for teacher, drawn in pairs]
        return Shadowed(
            steps=head.steps,
            samples=head.samples,
            accepted=head.accepted,
            compared=sum(student is not None for _, student in said),
            same=sum(student == teacher for teacher, student in said),
            dollars=None if unpriced else known or Decimal(0),
            known_dollars=known or Decimal(0),
        )


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """In how many rows it holds; 0 without rows."""
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0, type_=Integer)


def _cascaded() -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Steps that could be deferred, and those that were."""
    could = decisions.c.mode == "cascade"
    return _count(could), _count(could & (decisions.c.answered_by == "teacher"))


def _within(table: Table, namespace: str | None, since: datetime, time: str = "created_at") -> Where:
    """Conditions that the index over (namespace, time) answers, for all namespaces too: they are listed by leaps."""
    if namespace is not None:
        return [table.c.namespace == namespace, table.c[time] >= since]
    other = table.alias()
    names = select(func.min(other.c.namespace).label("name")).cte(f"{table.name}_namespaces", recursive=True)
    after = table.alias()
    following = select(func.min(after.c.namespace)).where(after.c.namespace > names.c.name).scalar_subquery()
    names = names.union_all(select(following).where(names.c.name.is_not(None)))
    known = select(names.c.name).where(names.c.name.is_not(None))
    return [table.c.namespace.in_(known), table.c[time] >= since]


def _start(since: datetime, bucket: Bucket) -> datetime:
    """The beginning of the bucket, in UTC, that `since` is in."""
    minute = since.astimezone(UTC).replace(second=0, microsecond=0)
    hour = minute.replace(minute=0)
    return {"minute": minute, "hour": hour, "day": hour.replace(hour=0)}[bucket]


def _prefix(connection: Connection, bucket: Bucket, table: Table) -> ColumnElement[str]:
    """A row's bucket as text that `datetime.fromisoformat` reads."""
    characters, pattern = PREFIX[bucket]
    if connection.dialect.name == "postgresql":
        return func.to_char(func.timezone("UTC", table.c.created_at), pattern, type_=String)
    return func.substr(table.c.created_at, 1, characters, type_=String)


def _points(connection: Connection, bucket: Bucket, namespace: str | None, since: datetime) -> dict[datetime, Point]:
    """Buckets that hold a step or a recall of its own: the estimates from decisions, the bills from calls."""
    cascaded, deferred = _cascaded()
    own_dollars, teacher = decisions.c.dollars, decisions.c.teacher_dollars
    heads = select(
        _prefix(connection, bucket, decisions).label("name"),
        func.count().label("steps"),
        cascaded.label("cascaded"),
        deferred.label("deferred"),
        _count(decisions.c.answered_by == "teacher").label("taught"),
        _count(func.json_array_length(decisions.c.failures) > 0).label("failures"),
        _count(own_dollars.is_(None) | teacher.is_(None)).label("unpriced_steps"),
        _count(teacher.is_(None)).label("unestimated"),
        func.sum(teacher).label("teacher"),
        func.sum(type_coerce(teacher - own_dollars, Dollars)).label("saved"),  # NULL where either is unknown
    )
    heads = heads.where(*_within(decisions, namespace, since)).group_by("name")
    sums = {row["name"]: dict(row) for row in connection.execute(heads).mappings()}
    for lines, owner in ((calls, decisions), (recall_calls, recalls), (rewrite_calls, rewrites)):
        shadows_and_judges = case((lines.c.purpose.in_(("shadow", "audit", "judge")), lines.c.dollars))
        behind = shadows_and_judges if lines is calls else lines.c.dollars
        bills = select(
            _prefix(connection, bucket, owner).label("name"),
            func.sum(lines.c.dollars).label("known"),
            _count(lines.c.dollars.is_(None)).label("unpriced_calls"),
            _count(lines.c.estimated.is_(True)).label("estimated_calls"),
            func.sum(type_coerce(behind, Dollars)).label("behind"),
        ).join_from(lines, owner)
        bills = bills.where(*_within(owner, namespace, since)).group_by("name")
        for row in connection.execute(bills).mappings():
            into = sums.setdefault(row["name"], {})
            into |= {k: into.get(k, 0) + (row[k] or 0) for k in ("known", *BILLED, "behind")}
    times = {name: datetime.fromisoformat(name).replace(tzinfo=UTC) for name in sums}
    return {times[name]: _point(times[name], values) for name, values in sums.items()}


def _point(time: datetime, row: Mapping[str, Any]) -> Point:
    known, teacher, saved, behind = (row.get(k) or Decimal(0) for k in ("known", "teacher", "saved", "behind"))
    dollars, alone = None if row.get("unpriced_calls") else known, None if row.get("unestimated") else teacher
    return Point(
        time=time,
        **{name: row.get(name) or 0 for name in COUNTS},
        known_dollars=known,
        known_teacher_dollars=teacher,
        known_saved_dollars=saved - behind,
        dollars=dollars,
        teacher_dollars=alone,
        saved_dollars=None if dollars is None or alone is None else alone - dollars,
    )


def _overhead(connection: Connection, own: Where, number: int) -> tuple[float | None, float | None]:
    """Median and 99th percentile, both of them measured values (nearest rank)."""
    if not number:
        return None, None
    rank = func.row_number().over(order_by=decisions.c.overhead_ms).label("rank")
    ranked = select(decisions.c.overhead_ms, rank).where(*own).subquery()
    wanted = [-(-number * percent // 100) for percent in (50, 99)]
    query = select(ranked.c.rank, ranked.c.overhead_ms).where(ranked.c.rank.in_(wanted))
    found = {row.rank: row.overhead_ms for row in connection.execute(query)}
    return found[wanted[0]], found[wanted[1]]


def _most(samples: Sequence[Mapping[str, Any]]) -> str | None:
    """The action that most samples chose; of equals, the one seen first."""
    counts = Counter(s["action"] for s in samples if s["action"] is not None)
    return counts.most_common(1)[0][0] if counts else None
