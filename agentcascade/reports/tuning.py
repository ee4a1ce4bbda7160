"""The report of a tuning: what was certified, the whole frontier, and what the choice hangs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentcascade.reports import figures
from agentcascade.reports.page import Page, money, percent
from agentcascade.reports.sections import Logged, agreement, by_group, coverage, savings
from agentcascade.routers.tuning.columns import Columns, arms, columns, failed
from agentcascade.routers.tuning.costs import SAMPLINGS, Bill, known
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.risks import labelled
from agentcascade.routers.tuning.rules import Chain, RandomMix, Rule, TeacherAlone, Threshold
from agentcascade.routers.tuning.tuner import Candidate, Tuned
from agentcascade.steplog.types import LoggedStep

FACTORS = tuple(float(f) for f in np.geomspace(0.1, 10, 21))
WORST_CASES = 400
"""Most certified rules that the sensitivity to prices looks at"""


def write_report(path: Path, tuned: Tuned, steps: Sequence[LoggedStep], certificate: Mapping[str, Any]) -> None:
    """One self-contained HTML file. Raises `MissingExtra` without matplotlib."""
    page = Page("agentcascade tune")
    page.lead(certificate["statement"])
    chosen, log = tuned.chosen, _log(tuned, steps)
    seen = chosen.replayed if chosen is not None else None
    wanted = tuned.settings
    page.keys(
        {
            "rule": chosen.rule.name if chosen is not None else "the teacher alone",
            "student acts": percent(seen.acceptance if seen else 0.0),
            "risk on the log": _decimals(seen.risk if seen else replay(log, TeacherAlone(), risk=wanted.risk).risk),
            "allowed": f"{wanted.max_risk:g}",
            "saving": percent(seen.saving.value if seen else 0.0),
            "steps, episodes": f"{tuned.steps:,}, {tuned.episodes:,}",
        }
    )
    page.note(f"Risk: {wanted.risk}. Costs are in {tuned.unit}; a saving is a share of what the teacher alone costs.")
    if wanted.risk.by_episode and not log.singletons:
        page.note(
            "What is certified counts every episode alike, however long it is. Diagrams of agreement and coverage and "
            "tables by group count every step alike: their risks may be above the bound."
        )
    _frontier(page, tuned, log)
    logged = Logged(log, wanted.risk.kind)
    agreement(page, logged, _n(chosen))
    coverage(page, logged, [n for n in (1, 2, 3, 5, 8, 10) if n <= log.most])
    _savings(page, tuned, log)
    _sensitivity(page, tuned, log)
    by_group(page, logged, chosen.rule if chosen is not None else Threshold(min(3, log.most), min(3, log.most)))
    _candidates(page, tuned)
    page.heading("Certificate")
    page.facts({k: v for k, v in certificate.items() if k != "statement"})
    page.write(path)


def _log(tuned: Tuned, steps: Sequence[LoggedStep]) -> Columns:
    """The labelled steps of the arm of the chosen rule, or of the largest."""
    usable = [s for s in steps if s.kind != "audit" and s.students and not failed(s.students[0])]
    found = arms(usable)
    arm = tuned.chosen.replayed.arm if tuned.chosen is not None else found[0]
    log = columns(usable, arm=arm if arm in found else None)
    rows = labelled(log, tuned.settings.risk.kind)
    return log if rows.all() or not rows.any() else log.take(rows)


def _n(chosen: Candidate | None) -> int | None:
    n = getattr(chosen.rule, "n", None) if chosen is not None else None
    return n if isinstance(n, int) else None


def _decimals(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _frontier(page: Page, tuned: Tuned, log: Columns) -> None:
    page.heading("Frontier")
    found = [(c.replayed.cost, c.replayed.risk, c.certified) for c in tuned.candidates]
    points = [(cost, risk, certified) for cost, risk, certified in found if risk is not None]
    bill = _bill(tuned)
    rules: dict[str, Rule] = {"teacher": TeacherAlone(), "student": Threshold(1, 1)}
    if log.most >= 3:
        rules["unanimity of 3"] = Threshold(3, 3)
    ends = {name: replay(log, rule, [bill], tuned.settings.risk) for name, rule in rules.items()}
    if tuned.chosen is not None:
        ends["chosen"] = tuned.chosen.replayed
    named = {name: (one.cost, one.risk) for name, one in ends.items() if one.risk is not None}
    chosen = named.pop("chosen", None)
    page.figure(
        figures.frontier(
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
    return Bill(tuned.sampling, tuned.settings.discounts, tuned.settings.sample_cost)


def _savings(page: Page, tuned: Tuned, log: Columns) -> None:
    chosen = tuned.chosen
    rules: list[tuple[str, Rule]] = [("teacher alone", TeacherAlone())]
    if chosen is not None and not isinstance(chosen.rule, Chain):
        rules.append((f"chosen: {chosen.rule.name}", chosen.rule))
        rules.append(("random mix, as often the student", RandomMix(1 - min(1.0, chosen.replayed.acceptance))))
    if log.most >= 3:
        rules.append(("unanimity of 3", Threshold(3, 3)))
    rules.append(("student alone, first sample", Threshold(1, 1)))
    savings(page, log, rules, _bill(tuned), chosen=1 if chosen is not None else None)
    if chosen is None or isinstance(chosen.rule, Chain):
        return
    rows = []
    for sampling in SAMPLINGS:
        cells: list[str] = [sampling]
        for discounts in (True, False):
            one = replay(log, chosen.rule, [Bill(sampling, discounts, tuned.settings.sample_cost)])
            cells += [money(one.cost, one.unit), percent(one.saving.value)]
        rows.append(cells)
    page.text("The chosen rule under each way of buying samples, with and without the discounts for cached prompts:")
    page.table(["samples bought", "cost of a step", "saving", "no discounts", "saving"], rows)
    if not known(log):
        page.note("Dollars are not known, so discounts make no difference here.")


def _sensitivity(page: Page, tuned: Tuned, log: Columns) -> None:
    """Costs are linear in the student's price: two replays of each rule say all."""
    certified = [c for c in tuned.certified if c.replayed.arm == log.arm and not isinstance(c.rule, Chain)]
    if tuned.chosen is None or not certified:
        return
    base = _bill(tuned)
    ends = [Bill(base.sampling, base.discounts, base.sample_cost, factor) for factor in (0.0, 1.0)]
    lines: dict[str, list[tuple[float, float]]] = {}
    for one in certified[:WORST_CASES]:
        free, full = (replay(log, one.rule, [bill]).cost for bill in ends)
        lines[one.rule.name] = [(f, 1 - (free + f * (full - free)) / one.replayed.teacher_cost) for f in FACTORS]
    if tuned.chosen.rule.name not in lines:
        return
    own = lines[tuned.chosen.rule.name]
    best = [max(lines.items(), key=lambda item: item[1][i][1]) for i in range(len(FACTORS))]
    shown = {f"chosen: {tuned.chosen.rule.name}": own, "best certified at that price": [
        (f, max(0.0, line[i][1])) for i, (f, (_, line)) in enumerate(zip(FACTORS, best))
    ]}  # fmt: skip
    page.heading("Sensitivity to prices")
    page.figure(
        figures.curves(
            shown,
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


def _candidates(page: Page, tuned: Tuned) -> None:
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
