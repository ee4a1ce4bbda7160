"""Queries of the dashboard: spending over time, agreement, goals, recent decisions. Dollars are None where unknown.

Every question is bounded by a time and, for a tenant, by a namespace; both are looked up in one index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import Connection, Float, cast, func, select

from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.ledger.banked import NAMESPACES, read_banked
from agentcascade.ledger.conditions import Conditions, cascaded_and_deferred, count_rows, within
from agentcascade.ledger.dashboard_rows import (
    Activity,
    AgreementBin,
    Banked,
    BrokenStudent,
    GoalRow,
    RecentDecision,
    ShadowSummary,
    SpendingPoint,
    Totals,
    sum_points,
)
from agentcascade.ledger.recent_decisions import read_recent_decisions
from agentcascade.ledger.selection import Selection
from agentcascade.ledger.spending_series import BUCKET_LENGTHS, Bucket, bucket_start, read_points
from agentcascade.storage import Database
from agentcascade.storage.tables import calls, decisions, episodes, shadows
from agentcascade.types import now

MAX_POINTS = 1500
BINS = 10
IN_A_ROW = 3
"""Failures of a student from which the dashboard warns."""
COMPARED = 2000
"""The newest accepted shadows whose actions are compared with the teacher's."""


class DashboardQueries:
    """Questions to a database, of one namespace or (None) of all."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def spending(self, bucket: Bucket = "hour", *, namespace: str | None, since: datetime) -> list[SpendingPoint]:
        """Every bucket from `since` to now, oldest first, empty ones too. Raises `InvalidRequest` for too many."""
        if bucket not in BUCKET_LENGTHS:
            raise InvalidRequest(f"bucket '{bucket}' is unknown: {did_you_mean(bucket, BUCKET_LENGTHS)}")
        start, length = bucket_start(since, bucket), BUCKET_LENGTHS[bucket]
        count = int((now() - start) / length) + 1
        if count > MAX_POINTS:
            raise InvalidRequest(
                f"{count} points of one {bucket} are too many: ask for a coarser bucket or fewer hours"
            )
        with self.database.begin() as connection:
            points = read_points(connection, bucket, namespace, since)
        return [points.get(t) or SpendingPoint(time=t) for t in (start + length * i for i in range(count))]

    def totals(
        self, *, namespace: str | None, since: datetime, spending: Sequence[SpendingPoint] | None = None
    ) -> Totals:
        """One line about the whole period. `spending` of the same period, where it is there already, is summed up."""
        conditions = within(decisions, namespace, since)
        ended = within(episodes, namespace, since, "finished_at")
        runs = select(decisions.c.namespace, decisions.c.episode).where(*conditions).distinct().subquery()
        ends = select(func.count(), count_rows(episodes.c.success.is_(True)))
        with self.database.begin() as connection:
            points = read_points(connection, "day", namespace, since).values() if spending is None else spending
            sums = sum_points(points)
            p50, p99 = _overhead(connection, conditions, sums["steps"])
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

    def activity(self, selection: Selection) -> Activity:
        """Episodes, outcomes and overhead of a selection; outcomes are of all episodes that ended in its period."""
        conditions = selection.conditions()
        runs = select(decisions.c.namespace, decisions.c.episode).where(*conditions).distinct().subquery()
        ended = select(func.count(), count_rows(episodes.c.success.is_(True)))
        ended = ended.where(
            episodes.c.success.is_not(None),
            *within(episodes, selection.namespace, selection.since, "finished_at", selection.until),
        )
        failed = count_rows(func.json_array_length(decisions.c.failures) > 0)
        with self.database.begin() as connection:
            steps, failures = connection.execute(select(func.count(), failed).where(*conditions)).one()
            p50, p99 = _overhead(connection, conditions, steps)
            finished, succeeded = connection.execute(ended).one()
            count = connection.execute(select(func.count()).select_from(runs)).scalar_one()
        return Activity(
            steps=steps,
            failures=failures,
            episodes=count,
            finished=finished,
            succeeded=succeeded,
            overhead_p50=p50,
            overhead_p99=p99,
        )

    def agreement_histogram(
        self, *, namespace: str | None, since: datetime, narrowing: Conditions | None = None
    ) -> list[AgreementBin]:
        """Ten bins below full agreement, and one of full agreement alone. `narrowing` are conditions on decisions."""
        level, student = cast(decisions.c.agreement, Float), decisions.c.answered_by == "student"
        query = select(level, student, func.count()).where(level.is_not(None), *within(decisions, namespace, since))
        query = query.where(*(narrowing or []))
        counts: Counter[tuple[int, bool]] = Counter()
        with self.database.begin() as connection:
            for agreement, accepted, number in connection.execute(query.group_by(level, student)):
                counts[min(BINS, int(agreement * BINS)), bool(accepted)] += number
        highs = [*((i + 1) / BINS for i in range(BINS)), 1.0]
        return [
            AgreementBin(low=i / BINS, high=high, accepted=counts[i, True], deferred=counts[i, False])
            for i, high in enumerate(highs)
        ]

    def goals(
        self,
        order: Literal["slowest", "most_deferred"] = "slowest",
        *,
        namespace: str | None,
        since: datetime,
        limit: int = 10,
        narrowing: Conditions | None = None,
    ) -> list[GoalRow]:
        """The goals whose steps take longest, or those that were deferred most often (never deferred ones left out)."""
        orders = {"slowest": "seconds", "most_deferred": "deferred"}
        if order not in orders:
            raise InvalidRequest(f"goals cannot be ordered by '{order}': {did_you_mean(order, orders)}")
        cascaded, deferred = cascaded_and_deferred()
        columns = (
            decisions.c.goal,
            func.count().label("steps"),
            cascaded.label("cascaded"),
            deferred.label("deferred"),
            func.avg(decisions.c.seconds).label("seconds"),
            func.sum(decisions.c.dollars).label("known"),
            count_rows(decisions.c.dollars.is_(None)).label("unpriced"),
        )
        query = select(*columns).where(*within(decisions, namespace, since), *(narrowing or []))
        query = query.group_by(decisions.c.goal)
        if order == "most_deferred":
            query = query.having(deferred > 0)
        query = query.order_by(columns[4 if order == "slowest" else 3].desc(), decisions.c.goal).limit(limit)
        with self.database.begin() as connection:
            return [
                GoalRow(
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
    ) -> list[RecentDecision]:
        """The newest decisions, or those older than `before`; raises `InvalidRequest` when that is not there."""
        with self.database.begin() as connection:
            return read_recent_decisions(connection, within(decisions, namespace, since), limit, before)

    def bank(self, *, namespace: str | None, limit: int = NAMESPACES) -> Banked:
        """Trajectories and steps that the bank holds now, by namespace, of at most `limit` of them."""
        with self.database.begin() as connection:
            return read_banked(connection, namespace, limit=limit)

    def broken(self, *, namespace: str | None, since: datetime) -> list[BrokenStudent]:
        """Cascades whose student failed at each of the last steps, at least `IN_A_ROW` of them."""
        columns = decisions.c.cascade, decisions.c.answered_by, decisions.c.failures
        cascaded = decisions.c.mode == "cascade", *within(decisions, namespace, since)
        query = select(*columns).where(*cascaded).order_by(decisions.c.created_at.desc()).limit(COMPARED)
        streaks: dict[str, tuple[int, str, bool]] = {}
        with self.database.begin() as connection:
            for cascade, answered_by, failures in connection.execute(query):
                length, last_failure, ended = streaks.get(cascade, (0, "", False))
                failure = next((f for f in failures if f.startswith("student: ")), None)
                if ended or answered_by == "student" or failure is None:
                    streaks[cascade] = length, last_failure, True
                else:
                    streaks[cascade] = length + 1, last_failure or failure.removeprefix("student: "), False
        return [
            BrokenStudent(cascade=cascade, steps=length, failure=last_failure)
            for cascade, (length, last_failure, _) in sorted(streaks.items())
            if length >= IN_A_ROW
        ]

    def shadow(self, *, namespace: str | None, since: datetime) -> ShadowSummary:
        """Shadows: how the student would have done; its action is what most of its samples say."""
        conditions = [shadows.c.kind == "shadow", *within(shadows, namespace, since)]
        samples = func.coalesce(func.sum(func.json_array_length(shadows.c.samples)), 0)
        accepted = count_rows(shadows.c.accepted.is_(True))
        totals = func.count().label("steps"), samples.label("samples"), accepted.label("accepted")
        heads = select(*totals).where(*conditions)
        compared_pairs = select(shadows.c.teacher_action, shadows.c.samples).where(
            shadows.c.accepted.is_(True), shadows.c.teacher_action.is_not(None), *conditions
        )
        bill = (
            select(func.sum(calls.c.dollars), count_rows(calls.c.dollars.is_(None)))
            .join_from(shadows, calls, calls.c.decision == shadows.c.decision)
            .where(calls.c.purpose == "shadow", *conditions)
        )
        with self.database.begin() as connection:
            head = connection.execute(heads).one()
            pairs = connection.execute(compared_pairs.order_by(shadows.c.created_at.desc()).limit(COMPARED)).all()
            known_dollars, unpriced = connection.execute(bill).one()
        actions = [(teacher, _majority_action(samples_drawn)) for teacher, samples_drawn in pairs]
        return ShadowSummary(
            steps=head.steps,
            samples=head.samples,
            accepted=head.accepted,
            compared=sum(student is not None for _, student in actions),
            same=sum(student == teacher for teacher, student in actions),
            dollars=None if unpriced else known_dollars or Decimal(0),
            known_dollars=known_dollars or Decimal(0),
        )


def _overhead(connection: Connection, conditions: Conditions, number: int) -> tuple[float | None, float | None]:
    """Median and 99th percentile, both of them measured values (nearest rank)."""
    if not number:
        return None, None
    rank = func.row_number().over(order_by=decisions.c.overhead_ms).label("rank")
    ranked = select(decisions.c.overhead_ms, rank).where(*conditions).subquery()
    ranks = [-(-number * percent // 100) for percent in (50, 99)]
    query = select(ranked.c.rank, ranked.c.overhead_ms).where(ranked.c.rank.in_(ranks))
    by_rank = {row.rank: row.overhead_ms for row in connection.execute(query)}
    return by_rank[ranks[0]], by_rank[ranks[1]]


def _majority_action(samples: Sequence[Mapping[str, Any]]) -> str | None:
    """The action with most votes; of equals, the one seen first."""
    counts: Counter[str] = Counter()
    for sample in samples:
        if sample["action"] is not None:
            counts[sample["action"]] += sample.get("weight", 1)
    return counts.most_common(1)[0][0] if counts else None
