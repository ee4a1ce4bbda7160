"""Oracle policy: the teacher exactly where the student is wrong, reckoned from the episodes that each played alone."""

from __future__ import annotations

from collections.abc import Iterable

from agentcascade.bench.policies import ORACLE
from agentcascade.bench.records import EpisodeRecord


def oracle_records(records: Iterable[EpisodeRecord]) -> list[EpisodeRecord]:
    """Records of the oracle: the student is paid everywhere, the teacher where it is asked."""
    played = list(records)
    students = {(r.seed, r.task): r for r in played if r.policy == "student"}
    made = []
    for teacher in (r for r in played if r.policy == "teacher"):
        student = students.get((teacher.seed, teacher.task))
        if student is None:
            continue
        asked = not student.success
        dollars = student.dollars
        if asked and dollars is not None:
            dollars = None if teacher.dollars is None else dollars + teacher.dollars
        taken = teacher if asked else student
        update = {
            "policy": ORACLE,
            "dollars": dollars,
            "teacher_steps": teacher.steps if asked else 0,
            "decisions": (),
            "shadows": (),
            "trajectory": None,
            "error": student.error or teacher.error,
        }
        made.append(taken.model_copy(update=update))
    return made
