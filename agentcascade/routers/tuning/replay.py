"""A rule on a log, without a model call: how often the student acts, what goes wrong, what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from agentcascade.errors import InvalidRequest
from agentcascade.routers.tuning.columns import Arm, Columns
from agentcascade.routers.tuning.committees import Committee
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.risks import Losses, Risk, labelled, losses
from agentcascade.routers.tuning.rules import Outcome, Rule
from agentcascade.routers.tuning.unless_stuck import unwrapped

if TYPE_CHECKING:
    from agentcascade.routers.tuning.columns import Bools, Floats

Z = 1.959964
"""Of a 95 % interval"""


@dataclass(frozen=True)
class Estimate:
    """A share, with its 95 % interval by the clusters' spread (delta method)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Replayed:
    """A rule's figures on a log; None where the log has no labels for them."""

    rule: Rule
    arm: Arm
    steps: int
    episodes: int
    acceptance: float
    risks: dict[str, float | None]
    """Share of steps: wrong, teacher-disagreement, each also as ``selective …``, total; of episodes: episode-loss"""
    accuracy: float | None
    """Share of steps whose final action is right, whoever took it"""
    cost: float
    """A step's mean, in `unit`"""
    teacher_cost: float
    unit: str
    saving: Estimate
    """Share of the teacher's cost that is not spent"""
    by_sampling: dict[str, float] = field(default_factory=dict)
    risk: float | None = None
    """The one that was asked for, weighed as it was asked"""


def replay(log: Columns, rule: Rule, bills: Sequence[Bill] = (Bill(),), risk: Risk | None = None) -> Replayed:
    """`rule` on every step of `log` with the samples that it asks for. The cost is that of the cheapest of `bills`.

    `risk` asks for one more risk.
    """
    log = enough(log, rule)
    outcome = rule.on(log)
    costs = [bill.steps(log, outcome) for bill in bills]
    means = [float(np.nanmean(cost)) for cost in costs]
    best = int(np.argmin(means))
    bill, teacher = bills[best], bills[best].teacher(log)
    return Replayed(
        rule=rule,
        arm=log.arm,
        steps=len(log),
        episodes=log.clusters,
        acceptance=float(outcome.accept.mean()),
        risks=_risks(log, outcome),
        accuracy=_accuracy(log, outcome),
        cost=means[best],
        teacher_cost=float(np.nanmean(teacher)),
        unit=bill.unit(log),
        saving=saving(log, costs[best], teacher),
        by_sampling={b.sampling: mean for b, mean in zip(bills, means)},
        risk=None if risk is None else _asked(log, outcome, risk),
    )


def saving(log: Columns, cost: Floats, teacher: Floats) -> Estimate:
    """1 - cost / teacher, where both are known."""
    known = ~(np.isnan(cost) | np.isnan(teacher))
    spent, alone = (log.by_cluster(np.where(known, values, 0.0)) for values in (cost, teacher))
    if not alone.sum():
        return Estimate(0.0, 0.0, 0.0)
    share = float(spent.sum() / alone.sum())
    c = len(spent)
    spread = float(np.sqrt(((spent - share * alone) ** 2).sum() * c / max(1, c - 1)) / alone.sum())
    return Estimate(1 - share, 1 - share - Z * spread, 1 - share + Z * spread)


def _risks(log: Columns, outcome: Outcome) -> dict[str, float | None]:
    """Steps without the label are left out of their risk."""
    found: dict[str, float | None] = {}
    taken = float(outcome.accept.mean())
    for kind, name in (("wrong", "gold"), ("teacher-disagreement", "teacher")):
        bad = outcome.accept - outcome.right[name]  # NaN without a label
        known = ~np.isnan(bad)
        found[kind] = float(bad[known].mean()) if known.any() else None
        accepted = float(outcome.accept[known].sum()) if known.any() else 0.0
        found[f"selective {kind}"] = float(bad[known].sum()) / accepted if accepted else (0.0 if taken else None)
        if kind == "wrong":
            both = known & (log.teacher_right >= 0)
            missed = (1 - outcome.accept) * (log.teacher_right == 0)
            found["total"] = float((bad + missed)[both].mean()) if both.any() else None
    rows = labelled(log, "episode-loss")
    whole = log.singletons or not rows.any()
    found["episode-loss"] = None if whole else losses(*part(log, outcome, rows), Risk("episode-loss")).risk
    return found


def enough(log: Columns, rule: Rule) -> Columns:
    """The steps at which every student gave as many samples as `rule` asks for. Raises `InvalidRequest` without any."""
    rows = np.ones(len(log), bool)
    inner = unwrapped(rule)
    samples = inner.samples_on(log) if isinstance(inner, Committee) else rule.samples
    for n, student in zip(samples, log.students):
        if n:
            rows &= student.enough(n)
    if not rows.any():
        raise InvalidRequest(
            f"rule '{rule.name}' needs {max(rule.samples)} samples, and no step of the log has as many"
        )
    return log if rows.all() else log.take(rows)


def _asked(log: Columns, outcome: Outcome, risk: Risk) -> float | None:
    rows = labelled(log, risk.kind)
    return losses(*part(log, outcome, rows), risk).risk if rows.any() else None


def part(log: Columns, outcome: Outcome, rows: Bools) -> tuple[Columns, Outcome]:
    """Log and outcome of the chosen steps alone."""
    if rows.all():
        return log, outcome
    cut = Outcome(
        accept=outcome.accept[rows],
        right={name: values[rows] for name, values in outcome.right.items()},
        taken=outcome.taken[rows],
        fine={name: values[rows] for name, values in outcome.fine.items()},
        asked=(),
    )
    return log.take(rows), cut


def _accuracy(log: Columns, outcome: Outcome) -> float | None:
    rows = (log.gold >= 0) & (log.teacher_right >= 0)
    if not rows.any():
        return None
    right = outcome.right["gold"] + (1 - outcome.accept) * (log.teacher_right == 1)
    return float(right[rows].mean())


def drawn(log: Columns, rule: Rule, risk: Risk) -> Losses:
    """The rule's losses for tests, on the steps that are labelled and have the samples that it asks for."""
    log = enough(log, rule)
    outcome = rule.on(log)
    return losses(*part(log, outcome, labelled(log, risk.kind)), risk)
