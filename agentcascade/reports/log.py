"""The report of a log alone: what is in it, and what rules would have done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agentcascade.errors import InvalidRequest
from agentcascade.reports import figures
from agentcascade.reports.page import Page, percent
from agentcascade.reports.sections import Logged, agreement, by_group, coverage, savings
from agentcascade.routers.tuning.columns import arms, columns, failed
from agentcascade.routers.tuning.costs import Bill
from agentcascade.routers.tuning.families import SIZES, consistency
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.rules import Rule, TeacherAlone, Threshold
from agentcascade.steplog.types import LoggedStep


def write_report(path: Path, steps: Sequence[LoggedStep], title: str, bill: Bill | None = None) -> None:
    """One self-contained HTML file, on the largest arm of the log. Raises `InvalidRequest` without samples."""
    usable = [s for s in steps if s.kind != "audit" and s.students and not failed(s.students[0])]
    if not usable:
        raise InvalidRequest("the log has no step with a student's samples: there is nothing to report")
    found = arms(usable)
    log = columns(usable, arm=found[0])
    bill = bill or Bill()
    page = Page(title)
    logged = Logged(log, "wrong")
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
    if len(found) > 1:
        page.note(f"The student was asked in {len(found)} ways; this is {found[0]}, the most frequent of them.")
    page.heading("Frontier")
    rows = [replay(log, rule, [bill]) for rule in consistency([n for n in SIZES if n <= log.most])]
    name = "wrong" if logged.reference == "gold" else "teacher-disagreement"
    points = [(row.cost, row.risks[name] or 0.0, False) for row in rows]
    student = replay(log, Threshold(1, 1), [bill])
    ends = (student.cost, student.risks[name] or 0.0), (student.teacher_cost, 0.0)
    page.figure(
        figures.frontier(
            points, {"student": ends[0], "teacher": ends[1]}, None, None, ends, (f"cost, {bill.unit(log)}", name)
        ),
        "Thresholds of agreement for several numbers of samples. Nothing here is certified: see `agentcascade tune`.",
    )
    agreement(page, logged)
    coverage(page, logged, [n for n in (1, 2, 3, 5, 8, 10) if n <= log.most])
    rules: list[tuple[str, Rule]] = [("teacher alone", TeacherAlone())]
    rules += [(f"unanimity of {n}", Threshold(n, n)) for n in (2, 3, 5, 8) if n <= log.most]
    rules.append(("student alone, first sample", Threshold(1, 1)))
    savings(page, log, rules, bill)
    by_group(page, logged, Threshold(min(3, log.most), min(3, log.most)))
    page.write(path)
