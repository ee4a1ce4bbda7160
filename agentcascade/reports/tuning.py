"""Report of a tuning: the certificate, the frontier, savings, and the sensitivity to prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agentcascade.reports import figures
from agentcascade.reports.page import Page, money, percent
from agentcascade.reports.sections import ReferenceLog, add_agreement, add_coverage, add_groups, add_savings
from agentcascade.routers.tuning.columns import Columns, arms, columns, failed
from agentcascade.routers.tuning.committees import Committee, alone, committee
from agentcascade.routers.tuning.costs import SAMPLINGS, Bill, known
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.risks import labelled
from agentcascade.routers.tuning.rules import Chain, RandomMix, Rule, TeacherAlone, Threshold
from agentcascade.routers.tuning.tuner import Candidate, Tuned
from agentcascade.steplog.types import LoggedStep

FACTORS = tuple(float(f) for f in np.geomspace(0.1, 10, 21))
MAX_SENSITIVITY_RULES = 400
"""Number of certified rules in the sensitivity to prices"""


def write_tuning_report(path: Path, tuned: Tuned, steps: Sequence[LoggedStep], certificate: Mapping[str, Any]) -> None:
    """Write the report of a tuning as one HTML file. Raises `MissingExtra` without matplotlib."""
    page = Page("agentcascade tune")
    page.lead(certificate["statement"])
    chosen, log = tuned.chosen, _labelled_log(tuned, steps)
    replayed = chosen.replayed if chosen is not None else None
    settings = tuned.settings
    page.keys(
        {
            "rule": chosen.rule.name if chosen is not None else "the teacher alone",
            "student acts": percent(replayed.acceptance if replayed else 0.0),
            "risk on the log": _decimals(
                replayed.risk if replayed else replay(log, TeacherAlone(), risk=settings.risk).risk
            ),
            "allowed": f"{settings.max_risk:g}",
            "saving": percent(replayed.saving.value if replayed else 0.0),
            "steps, episodes": f"{tuned.steps:,}, {tuned.episodes:,}",
        }
    )
    page.note(f"Risk: {settings.risk}. Costs are in {tuned.unit}; a saving is a share of what the teacher alone costs.")
    if settings.risk.by_episode and not log.singletons:
        page.note(
            "What is certified counts every episode alike, however long it is. Diagrams of agreement and coverage and "
            "tables by group count every step alike: their risks may be above the bound."
        )
    _add_frontier(page, tuned, log)
    reference = ReferenceLog(log, settings.risk.kind)
    add_agreement(page, reference, _samples_of(chosen))
    add_coverage(page, reference, [n for n in (1, 2, 3, 5, 8, 10) if n <= log.most])
    _add_savings(page, tuned, log)
    _add_sensitivity(page, tuned, log)
    add_groups(page, reference, chosen.rule if chosen is not None else Threshold(min(3, log.most), min(3, log.most)))
    _add_candidates(page, tuned)
    page.heading("Certificate")
    page.facts({k: v for k, v in certificate.items() if k != "statement"})
    page.write(path)


def _labelled_log(tuned: Tuned, steps: Sequence[LoggedStep]) -> Columns:
    """The labelled steps of the arm of the chosen rule, or of the largest."""
    usable = [s for s in steps if s.kind != "audit" and s.students and not failed(s.students[0])]
    all_arms = arms(usable)
    arm = tuned.chosen.replayed.arm if tuned.chosen is not None else all_arms[0]
    if tuned.chosen is not None and isinstance(tuned.chosen.rule, Committee):
        log = committee(usable)
    else:
        log = columns(usable, arm=arm if arm in all_arms else None)
    rows = labelled(log, tuned.settings.risk.kind)
    return log if rows.all() or not rows.any() else log.take(rows)


def _samples_of(chosen: Candidate | None) -> int | None:
    n = getattr(chosen.rule, "n", None) if chosen is not None else None
    return n if isinstance(n, int) else None


def _decimals(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _add_frontier(page: Page, tuned: Tuned, log: Columns) -> None:
    page.heading("Frontier")
    replayed = [(c.replayed.cost, c.replayed.risk, c.certified) for c in tuned.candidates]
    points = [(cost, risk, certified) for cost, risk, certified in replayed if risk is not None]
    bill = _bill(tuned)
    rules: dict[str, Rule] = {"teacher": TeacherAlone(), "student": Threshold(1, 1)}
    if log.members:
        rules["student"] = alone(log.members[0])
    elif log.most >= 3:
        rules["unanimity of 3"] = Threshold(3, 3)
    ends = {name: replay(log, rule, [bill], tuned.settings.risk) for name, rule in rules.items()}
    if tuned.chosen is not None:
        ends["chosen"] = tuned.chosen.replayed
    named = {name: (one.cost, one.risk) for name, one in ends.items() if one.risk is not None}
    chosen = named.pop("chosen", None)
    page.figure(
        figures.plot_frontier(
            points,
            named,
            chosen,
            tuned.settings.max_risk,
            (named["student"], named["teacher"]) if {"student", "teacher"} <= named.keys() else None,
            (f"cost of a step, {bill.unit(log)}", "risk on the log"),
        ),
        "Every rule that was tried: its cost and its risk on the log, averaged over all draws that the samples allow. "
        "Certified rules are safe at the confidence that was asked for; others may be, but the log does not say so.",
    )


def _bill(tuned: Tuned) -> Bill:
    settings = tuned.settings
    return Bill(tuned.sampling, settings.discounts, settings.sample_cost, draft_tokens=settings.draft_tokens)


def _add_savings(page: Page, tuned: Tuned, log: Columns) -> None:
    chosen = tuned.chosen
    rules: list[tuple[str, Rule]] = [("teacher alone", TeacherAlone())]
    if chosen is not None and not isinstance(chosen.rule, Chain):
        rules.append((f"chosen: {chosen.rule.name}", chosen.rule))
    if log.members:
        rules += [(f"{member.arm.student} alone, first sample", alone(member)) for member in log.members]
    else:
        if chosen is not None and not isinstance(chosen.rule, Chain):
            rules.append(("random mix, as often the student", RandomMix(1 - min(1.0, chosen.replayed.acceptance))))
        if log.most >= 3:
            rules.append(("unanimity of 3", Threshold(3, 3)))
        rules.append(("student alone, first sample", Threshold(1, 1)))
    add_savings(page, log, rules, _bill(tuned), chosen=1 if chosen is not None else None)
    if chosen is None or isinstance(chosen.rule, Chain):
        return
    rows = []
    for sampling in SAMPLINGS:
        cells: list[str] = [sampling]
        for discounts in (True, False):
            one = replay(log, chosen.rule, [replace(_bill(tuned), sampling=sampling, discounts=discounts)])
            cells += [money(one.cost, one.unit), percent(one.saving.value)]
        rows.append(cells)
    page.text("The chosen rule under each way of buying samples, with and without the discounts for cached prompts:")
    page.table(["samples bought", "cost of a step", "saving", "no discounts", "saving"], rows)
    if not known(log):
        page.note("Dollars are not known, so discounts make no difference here.")


def _add_sensitivity(page: Page, tuned: Tuned, log: Columns) -> None:
    """Add savings by the student's price: costs are linear in it, so two replays of each rule are enough."""
    certified = [c for c in tuned.certified if c.replayed.arm == log.arm and not isinstance(c.rule, Chain)]
    if tuned.chosen is None or not certified:
        return
    base = _bill(tuned)
    ends = [replace(base, student_price=factor) for factor in (0.0, 1.0)]
    lines: dict[str, list[tuple[float, float]]] = {}
    for one in certified[:MAX_SENSITIVITY_RULES]:
        free, full = (replay(log, one.rule, [bill]).cost for bill in ends)
        lines[one.rule.name] = [(f, 1 - (free + f * (full - free)) / one.replayed.teacher_cost) for f in FACTORS]
    if tuned.chosen.rule.name not in lines:
        return
    chosen_line = lines[tuned.chosen.rule.name]
    best = [max(lines.items(), key=lambda item: item[1][i][1]) for i in range(len(FACTORS))]
    plotted = {f"chosen: {tuned.chosen.rule.name}": chosen_line, "best certified at that price": [
        (f, max(0.0, line[i][1])) for i, (f, (_, line)) in enumerate(zip(FACTORS, best))
    ]}  # fmt: skip
    page.heading("Sensitivity to prices")
    page.figure(
        figures.plot_curves(
            plotted,
            ("student's price against what it is now (factor)", "saving"),
            level=(0.0, "breaks even"),
            log_x=True,
            mark=1.0,
        ),
        "What the rule saves if the student becomes cheaper or dearer against the teacher.",
    )
    changes: list[tuple[float, str]] = []
    for i, f in enumerate(FACTORS):
        name = best[i][0] if best[i][1][i][1] > 0 else "the teacher alone"
        if not changes or changes[-1][1] != name:
            changes.append((f, name))
    page.table(["from a factor of", "cheapest certified rule"], [(f"{f:.2g}", name) for f, name in changes])


def _add_candidates(page: Page, tuned: Tuned) -> None:
    page.heading("All rules that were tried")
    ordered = sorted(tuned.candidates, key=lambda c: (not c.certified, c.replayed.cost))
    several = len({c.replayed.arm for c in tuned.candidates}) > 1
    rows = [
        (
            one.rule.name + (f" ({one.replayed.arm})" if several else ""),
            one.family,
            percent(one.replayed.acceptance),
            _decimals(one.replayed.risk),
            "not tested" if one.p is None else f"{one.p:.2g}",
            f"{one.level:.2g}",
            "yes" if one.certified else "no",
            money(one.replayed.cost, one.replayed.unit),
            percent(one.replayed.saving.value),
        )
        for one in ordered[:200]
    ]
    headings = ["rule", "family", "student acts", "risk", "p", "level", "certified", "cost of a step", "saving"]
    page.table(headings, rows, chosen=ordered.index(tuned.chosen) if tuned.chosen in ordered else None)
    if tuned.chosen is not None and tuned.chosen.upper is not None:
        page.note(
            f"Upper bound of the chosen rule's risk at the same confidence, were it the only rule that was tried: "
            f"{tuned.chosen.upper:.4f}."
        )
    for reason, number in tuned.left_out.items():
        page.note(f"Left out: {number:,} {reason}.")
