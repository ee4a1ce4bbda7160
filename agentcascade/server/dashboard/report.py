"""Figures of the dashboard as JSON, for programs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from agentcascade.ledger.dashboard import DashboardQueries
from agentcascade.ledger.spending_series import Bucket
from agentcascade.types import now

LATEST = 25
"""Decisions in an answer."""


def dashboard_data(insights: DashboardQueries, namespace: str | None, hours: float, bucket: Bucket) -> dict[str, Any]:
    """Everything of the last `hours`. Dollars are decimal texts, or null where a price is unknown."""
    present = now()
    period: Any = {"namespace": namespace, "since": present - timedelta(hours=hours)}
    spending, bank = insights.spending(bucket, **period), insights.bank(namespace=namespace)
    return {
        "time": present,
        "namespace": namespace,
        "hours": hours,
        "bucket": bucket,
        "totals": insights.totals(**period, spending=spending),
        "spending": spending,
        "agreement": insights.agreement_histogram(**period),
        "slowest": insights.goals("slowest", **period),
        "most_deferred": insights.goals("most_deferred", **period),
        "decisions": insights.decisions(**period, limit=LATEST),
        "more": LATEST,
        "bank": bank.namespaces,
        "bank_is_whole": bank.whole,
        "shadow": insights.shadow(**period),
        "broken": insights.broken(**period),
    }
