"""Report of the live database: spending, agreement, shadows, audits, goals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from agentcascade.economics.measured import recorded_bills
from agentcascade.ledger.dashboard import DashboardQueries
from agentcascade.ledger.dashboard_rows import SpendingPoint
from agentcascade.ledger.recorded_steps import recorded_steps
from agentcascade.ledger.spending_series import Bucket
from agentcascade.reports import figures
from agentcascade.reports.page import Page, percent
from agentcascade.routers.step.drift import confidence_sequence
from agentcascade.steplog.audits import count_audits
from agentcascade.storage import Database
from agentcascade.types import now


def write_live_report(path: Path, database: Database, *, namespace: str | None, since: datetime) -> None:
    """Write the report of one namespace or all, from `since` on, as one HTML file."""
    insights = DashboardQueries(database)
    bucket: Bucket = "hour" if (now() - since).total_seconds() <= 72 * 3600 else "day"
    spending = insights.spending(bucket, namespace=namespace, since=since)
    totals = insights.totals(namespace=namespace, since=since, spending=spending)
    page = Page("agentcascade report")
    page.lead(f"{namespace or 'All namespaces'}, since {since:%Y-%m-%d %H:%M} UTC")
    page.keys(
        {
            "steps": f"{totals.steps:,}",
            "spent": _dollars(totals.dollars),
            "teacher alone": _dollars(totals.teacher_dollars),
            "saved": _dollars(totals.saved_dollars),
            "for caches left cold": _dollars(totals.known_cache_regret),
            "steps to the teacher": percent(totals.deferral_share),
            "episodes that succeeded": percent(totals.success_share),
        }
    )
    _add_spending(page, spending, bucket)
    _add_agreement(page, insights, namespace, since)
    shadow = insights.shadow(namespace=namespace, since=since)
    page.heading("Shadows and audits")
    rows = []
    if shadow.steps:
        same = percent(shadow.same / shadow.compared) if shadow.compared else "unknown"
        accepted = percent(shadow.accepted / shadow.steps)
        rows.append(("shadows", f"{shadow.steps:,}", accepted, same, _dollars(shadow.dollars)))
    audit_counts = count_audits(database, namespace=namespace, since=since)
    if audit_counts.steps:
        low, high = confidence_sequence(audit_counts.differing, audit_counts.steps)
        same = f"{1 - audit_counts.differing / audit_counts.steps:.1%} ({1 - high:.1%} to {1 - low:.1%})"
        rows.append(("audits", f"{audit_counts.steps:,}", "100 %", same, _dollars(audit_counts.dollars)))
    if rows:
        page.table(["", "steps", "student accepted", "of these as the teacher", "cost"], rows)
    else:
        page.text("There are none: mode shadow logs what the student would do, audit.rate checks what it does.")
    billed = recorded_bills(recorded_steps(database, namespace=namespace)[0])
    if billed is not None and (said := billed.sentence()):
        page.heading("Break-even")
        page.text(f"Of the newest steps of mode cascade, {said}.")
    _add_goals(page, insights, namespace, since)
    page.write(path)


def _add_spending(page: Page, spending: Sequence[SpendingPoint], bucket: str) -> None:
    page.heading("Spending")
    spent_so_far, alone_so_far, spent, alone = [], [], Decimal(0), Decimal(0)
    for i, point in enumerate(spending):
        spent += point.known_dollars
        alone += point.known_teacher_dollars
        spent_so_far.append((float(i), float(spent)))
        alone_so_far.append((float(i), float(alone)))
    page.figure(
        figures.plot_curves(
            {"spent": spent_so_far, "the teacher alone, estimated": alone_so_far}, (f"{bucket}s", "dollars so far")
        ),
        "Known dollars, summed up from the beginning of the period. The teacher alone has its own prompt cache, which "
        "is simulated over each episode.",
    )
    if any(p.dollars is None for p in spending):
        page.note("Some prices are not known; their calls are not in these sums.")


def _add_agreement(page: Page, insights: DashboardQueries, namespace: str | None, since: datetime) -> None:
    bins = [b for b in insights.agreement_histogram(namespace=namespace, since=since) if b.accepted or b.deferred]
    if bins:
        page.heading("Agreement")
        page.table(
            ["agreement", "student acted", "sent to the teacher"],
            [(f"{b.low:.1f} to {b.high:.1f}", f"{b.accepted:,}", f"{b.deferred:,}") for b in bins],
        )


def _add_goals(page: Page, insights: DashboardQueries, namespace: str | None, since: datetime) -> None:
    goals = insights.goals("most_deferred", namespace=namespace, since=since)
    if goals:
        page.heading("Goals that are sent to the teacher most")
        page.table(
            ["goal", "steps", "to the teacher", "dollars"],
            [(g.goal[:120] or "none", f"{g.steps:,}", f"{g.deferred:,}", _dollars(g.dollars)) for g in goals],
        )


def _dollars(value: Decimal | None) -> str:
    return "unknown" if value is None else f"${value:,.4f}"
