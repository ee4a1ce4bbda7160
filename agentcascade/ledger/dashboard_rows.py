"""Rows that the dashboard's queries answer with (`dashboard.py`). Dollars are None where a price is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from agentcascade.types import CarriedHistory, Frozen

BILLED = ("unpriced_calls", "estimated_calls")
COUNTS = ("steps", "cascaded", "deferred", "taught", "failures", "unpriced_steps", *BILLED)
MONEY = (
    *("known_dollars", "known_teacher_dollars", "known_saved_dollars"),
    *("dollars", "teacher_dollars", "saved_dollars", "known_cache_regret"),
)


class SpendingPoint(Frozen):
    """One bucket of time. `dollars` is the bill of all calls, as in `Ledger`: shadows, judges and recalls too.

    The known figures leave out what has no price; the others are None as soon as one price is missing.
    """

    time: datetime
    steps: int = 0
    cascaded: int = 0
    """Steps in mode ``cascade``."""
    deferred: int = 0
    """Of those, the teacher's."""
    taught: int = 0
    """All steps that the teacher took, in whatever mode."""
    failures: int = 0
    """Steps in which something failed and was worked around."""
    unpriced_steps: int = 0
    """Steps without a price, or without an estimate of what the teacher alone would have cost."""
    unpriced_calls: int = 0
    estimated_calls: int = 0
    """Calls whose tokens were counted here, since their provider did not say."""
    known_dollars: Decimal = Decimal(0)
    known_teacher_dollars: Decimal = Decimal(0)
    known_saved_dollars: Decimal = Decimal(0)
    dollars: Decimal | None = Decimal(0)
    teacher_dollars: Decimal | None = Decimal(0)
    saved_dollars: Decimal | None = Decimal(0)
    known_cache_regret: Decimal = Decimal(0)
    """Of the dollars, what teachers' calls cost more since the student's steps before them left their caches cold."""


class Totals(SpendingPoint):
    """All of a period. Shares are None where there is nothing to divide by; overhead is in milliseconds."""

    deferral_share: float | None
    episodes: int
    finished: int
    success_share: float | None
    overhead_p50: float | None
    overhead_p99: float | None


class Activity(Frozen):
    """What happened in a selection of steps, money aside. Overhead is in milliseconds."""

    steps: int
    failures: int
    """Steps in which something failed and was worked around."""
    episodes: int
    finished: int
    succeeded: int
    overhead_p50: float | None
    overhead_p99: float | None


class AgreementBin(Frozen):
    """Voted steps with `low` ≤ agreement < `high`, or exactly `low` where the two are equal."""

    low: float
    high: float
    accepted: int
    deferred: int


class GoalRow(Frozen):
    """All steps towards one goal. `dollars` are those of the steps' own calls."""

    goal: str
    steps: int
    cascaded: int
    deferred: int
    seconds: float
    """Mean wall time of a step."""
    dollars: Decimal | None

    @property
    def deferral_share(self) -> float | None:
        return self.deferred / self.cascaded if self.cascaded else None


class ShownDemonstration(Frozen):
    """A demonstration as it is in the bank now; `goal` is None once its trajectory was removed."""

    window: str
    goal: str | None = None
    actions: tuple[str, ...] = ()


class RecentDecision(Frozen):
    """One decision. Long texts are cut."""

    id: str
    episode: str
    namespace: str
    step: int
    goal: str
    cascade: str
    mode: str
    answered_by: str
    reason: str
    agreement: float | None
    samples: int
    invalid_samples: int
    votes: Mapping[str, int]
    action: str | None
    demonstrations: tuple[ShownDemonstration, ...]
    dropped_demonstrations: int
    teacher_drafts: int = 0
    prompts: int = 1
    retried: int = 0
    history_carried: CarriedHistory | None = None
    dollars: Decimal | None
    teacher_dollars: Decimal | None
    cache_regret: Decimal | None = None
    overhead_ms: float
    embedding_ms: float
    seconds: float
    failures: tuple[str, ...]
    created_at: datetime


class BankedNamespace(Frozen):
    """How much the bank holds of one namespace."""

    namespace: str
    trajectories: int
    steps: int
    at_least: bool = False
    """There are more: so many were counted."""


class Banked(NamedTuple):
    """How much the bank holds, by namespace."""

    namespaces: list[BankedNamespace]
    whole: bool
    """False: there are further ones, which were not counted."""


class ShadowSummary(Frozen):
    """What the student would have done, had it been asked for good."""

    steps: int
    samples: int
    accepted: int
    compared: int
    """Accepted steps, the newest first, at which both had an action: those that `same` is counted among."""
    same: int
    dollars: Decimal | None
    known_dollars: Decimal


class BrokenStudent(Frozen):
    """A cascade whose student fails at every step, so that the teacher is paid for all of them."""

    cascade: str
    steps: int
    """The newest ones, one after the other."""
    failure: str
    """The last."""


def sum_points(points: Iterable[SpendingPoint]) -> dict[str, Any]:
    """Sums of all figures by name; one unknown makes the sum unknown."""
    sums: dict[str, Any] = dict.fromkeys(COUNTS, 0) | dict.fromkeys(MONEY, Decimal(0))
    for point in points:
        for name, value in sums.items():
            more = getattr(point, name)
            sums[name] = None if value is None or more is None else value + more
    return sums
