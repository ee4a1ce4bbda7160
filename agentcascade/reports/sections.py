"""Sections that the reports of tunings and logs share: agreement, coverage, savings, types of actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agentcascade.reports import figures
from agentcascade.reports.page import Page, money, percent
from agentcascade.routers.tuning.columns import Columns
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.pvalues import clopper_pearson
from agentcascade.routers.tuning.replay import enough, replay
from agentcascade.routers.tuning.risks import Kind
from agentcascade.routers.tuning.rules import Rule, Threshold
from agentcascade.routers.tuning.unless_stuck import unwrapped

MAX_GROUPS = 25
MIN_STEPS = 20
"""Fewest steps of a type that is shown"""


class ReferenceLog(NamedTuple):
    """A log, and the reference (gold or the teacher) that its students are compared with."""

    log: Columns
    kind: Kind

    @property
    def reference(self) -> str:
        """ "gold" or "teacher", whichever the risk is about and the log has."""
        has = {"gold": bool((self.log.gold >= 0).any()), "teacher": bool((self.log.teacher >= 0).any())}
        wanted = "teacher" if self.kind == "teacher-disagreement" else "gold"
        return wanted if has[wanted] else "teacher" if has["teacher"] else "gold"

    @property
    def right(self) -> str:
        return "is right" if self.reference == "gold" else "is the teacher's"

    def hits(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N,) votes of the majority of the first n samples, whether it is right, whether that is known."""
        labels = self.log.gold if self.reference == "gold" else self.log.teacher
        draw = self.log.draw(n)
        right = self.log.is_right(draw.top) if self.reference == "gold" else draw.top == labels
        return draw.votes, right, labels >= 0


def add_agreement(page: Page, reference: ReferenceLog, n: int | None = None) -> None:
    """Add the reliability diagram of the agreement of n samples, with its expected calibration error."""
    n = n or min(5, reference.log.most)
    votes, right, known = reference.hits(n)
    groups, error = [], 0.0
    for v in range(1, n + 1):
        at_level = (votes == v) & known
        count, hits = int(at_level.sum()), int((right & at_level).sum())
        if count:
            groups.append((v / n, hits / count, clopper_pearson(hits, count), count))
            error += count / max(1, int(known.sum())) * abs(v / n - hits / count)
    page.heading("What agreement is worth")
    caption = (
        f"Agreement of {n} samples against the share of steps where the majority {reference.right}, with 95 % "
        f"intervals (Clopper-Pearson) and numbers of steps. Expected calibration error: {error:.3f}."
    )
    labels = f"agreement of {n} samples", f"share where the majority {reference.right}"
    page.figure(figures.plot_reliability(groups, labels), caption)


def add_coverage(page: Page, reference: ReferenceLog, sizes: Sequence[int]) -> None:
    """Add the risk-coverage curves: selective risk against the share of steps that the student takes."""
    lines, bands = {}, {}
    for n in sizes:
        votes, right, known = reference.hits(n)
        points, band = [], []
        for needed in range(n, 0, -1):
            accepted = (votes >= needed) & known
            count = int(accepted.sum())
            if count:
                wrong = int((accepted & ~right).sum())
                points.append((count / max(1, int(known.sum())), wrong / count))
                band.append(clopper_pearson(wrong, count))
        lines[f"n = {n}"], bands[f"n = {n}"] = points, band
    page.heading("Risk and coverage")
    page.figure(
        figures.plot_curves(
            lines, ("share of steps that the student takes", "share of them that goes wrong"), bands=bands
        ),
        f"Of the steps that the student takes, those where its action is not the one that {reference.right}; every "
        "point is a threshold, bands are 95 % intervals of the draw that was made.",
    )


def add_savings(
    page: Page, log: Columns, rules: Sequence[tuple[str, Rule]], bill: Bill, chosen: int | None = None
) -> None:
    """Add the table and bars of what rules save against the teacher alone."""
    page.heading("What is saved")
    rows, bars = [], []
    for name, rule in rules:
        one = replay(log, rule, [bill])
        wrong, other = one.risks["wrong"], one.risks["teacher-disagreement"]
        interval = f"{one.saving.low:.1%} to {one.saving.high:.1%}"
        rows.append(
            (
                name,
                percent(one.acceptance),
                "unknown" if wrong is None else f"{wrong:.4f}",
                "unknown" if other is None else f"{other:.4f}",
                "unknown" if one.accuracy is None else f"{one.accuracy:.4f}",
                money(one.cost, one.unit),
                percent(one.saving.value),
                interval,
            )
        )
        bars.append((name, one.saving.value, (one.saving.low, one.saving.high)))
    headings = ["policy", "student acts", "wrong", "not the teacher's", "accuracy", "cost of a step", "saving", "95 %"]
    page.table(headings, rows, chosen=chosen)
    page.figure(figures.plot_bars(bars, "saving against the teacher alone"), "With 95 % intervals over episodes.")


def add_groups(page: Page, reference: ReferenceLog, rule: Rule) -> None:
    """Add tables of acceptance and risk by type of action and of goal."""
    log = enough(reference.log, rule)
    outcome = rule.on(log)
    votes = unwrapped(rule)
    draw = log.draw(votes.n if isinstance(votes, Threshold) else min(3, log.most))
    tools = np.where(draw.top < 0, -1, log.tool[np.arange(len(log)), draw.top])
    wrong = outcome.accept - outcome.right[reference.reference]
    for title, groups, names in (("action", tools, log.names["tool"]), ("goal", log.category, log.names["category"])):
        if len(names) < 2:
            continue
        rows = []
        for i, name in enumerate(names):
            in_group = (groups == i) & ~np.isnan(wrong)
            if in_group.any():
                accepted = float(outcome.accept[in_group].mean())
                rows.append((int(in_group.sum()), name or "none", accepted, float(wrong[in_group].mean())))
        rows = sorted((row for row in rows if row[0] >= MIN_STEPS), reverse=True)
        if len(rows) < 2:
            continue
        page.heading(f"By type of {title}")
        page.table(
            ["type", "steps", "student acts", "goes wrong"],
            [(n, f"{count:,}", percent(accepted), f"{wrong:.4f}") for count, n, accepted, wrong in rows[:MAX_GROUPS]],
        )
        if len(rows) > MAX_GROUPS:
            page.note(f"{len(rows) - MAX_GROUPS} rarer types are not shown, nor any with fewer than {MIN_STEPS} steps.")
