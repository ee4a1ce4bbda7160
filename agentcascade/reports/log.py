"""Report of a step log: what is in it, and what acceptance rules would have done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agentcascade.errors import InvalidRequest
from agentcascade.reports import figures
from agentcascade.reports.page import Page, percent
from agentcascade.reports.sections import ReferenceLog, add_agreement, add_coverage, add_groups, add_savings
from agentcascade.routers.tuning.columns import arms, columns, failed
from agentcascade.routers.tuning.committees import alone, committee
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.families import SIZES, committees, consistency
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.rules import Rule, TeacherAlone, Threshold
from agentcascade.steplog.types import LoggedStep


def write_log_report(path: Path, steps: Sequence[LoggedStep], title: str, bill: Bill | None = None) -> None:
    """Write the report of the largest arm of a log as one HTML file. Raises `InvalidRequest` without samples."""
    usable = [s for s in steps if s.kind != "audit" and s.students and not failed(s.students[0])]
    if not usable:
        raise InvalidRequest("the log has no step with a student's samples: there is nothing to report")
    all_arms = arms(usable)
    log = columns(usable, arm=all_arms[0])
    bill = bill or Bill()
    page = Page(title)
    reference = ReferenceLog(log, "wrong")
    page.keys(
        {
            "steps": f"{len(log):,}",
            "episodes": f"{log.clusters:,}",
            "samples a step": f"up to {log.most}",
            "right answer known": percent(float((log.gold >= 0).mean())),
            "teacher known": percent(float((log.teacher >= 0).mean())),
        }
    )
    page.note(f"Costs are in {bill.unit(log)}.")
    if len(all_arms) > 1:
        page.note(f"The student was asked in {len(all_arms)} ways; this is {all_arms[0]}, the most frequent of them.")
    page.heading("Frontier")
    rows = [replay(log, rule, [bill]) for rule in consistency([n for n in SIZES if n <= log.most])]
    name = "wrong" if reference.reference == "gold" else "teacher-disagreement"
    points = [(row.cost, row.risks[name] or 0.0, False) for row in rows]
    student = replay(log, Threshold(1, 1), [bill])
    ends = (student.cost, student.risks[name] or 0.0), (student.teacher_cost, 0.0)
    page.figure(
        figures.plot_frontier(
            points, {"student": ends[0], "teacher": ends[1]}, None, None, ends, (f"cost, {bill.unit(log)}", name)
        ),
        "Thresholds of agreement for several numbers of samples. Nothing here is certified: see `agentcascade tune`.",
    )
    add_agreement(page, reference)
    add_coverage(page, reference, [n for n in (1, 2, 3, 5, 8, 10) if n <= log.most])
    rules: list[tuple[str, Rule]] = [("teacher alone", TeacherAlone())]
    rules += [(f"unanimity of {n}", Threshold(n, n)) for n in (2, 3, 5, 8) if n <= log.most]
    rules.append(("student alone, first sample", Threshold(1, 1)))
    add_savings(page, log, rules, bill)
    add_groups(page, reference, Threshold(min(3, log.most), min(3, log.most)))
    if any(len({student.model for student in step.students}) > 1 for step in usable):
        _add_committees(page, usable, bill)
    page.write(path)


def _add_committees(page: Page, steps: Sequence[LoggedStep], bill: Bill) -> None:
    """Add what the students' votes together would have done, a sample of each."""
    log = committee(steps)
    names = [member.arm.student for member in log.members]
    page.heading("Committees of the students")
    page.text(f"{len(log):,} steps that {', '.join(names)} all answered; members are asked until the verdict is known.")
    rules: list[tuple[str, Rule]] = [(rule.name, rule) for chain in committees(names, [1]) for rule in chain]
    rules += [(f"{member.arm.student} alone, first sample", alone(member)) for member in log.members]
    add_savings(page, log, rules, replace(bill, sampling="staged"))
