"""Steps of the log by results: votes are classes of equal rows, and what is right at a step, for `agentcascade tune`."""

from __future__ import annotations

from collections import Counter

from agentcascade.actions.sql import canonical_sql, statement_of
from agentcascade.envs.intercode_sql import answers, shipped, tasks
from agentcascade.envs.intercode_sql.answers import LIBRARY, PREFIX, Answer
from agentcascade.envs.intercode_sql.results import Result, databases
from agentcascade.envs.recorded.models import split
from agentcascade.errors import InvalidAction
from agentcascade.steplog.types import LoggedStep


def label(step: LoggedStep, task: int, *, by_rows: bool) -> LoggedStep:
    """The step with `gold`: of its right answers the one that most samples gave, else the teacher's, else the gold query's.

    Several answers can be right, and a log has one gold key: the others count as wrong, which never makes a rule look
    better than it is.

    Args:
        step: as it was logged, with votes by text.
        task: id of its question.
        by_rows: votes, the teacher's action and gold become classes of equal rows, as the cascade joined them.
    """
    known = _recorded(step, task)
    votes: Counter[str] = Counter()
    right: set[str] = set()

    def vote(key: str | None, statement: str) -> str | None:
        result = _result(known, task, key, statement) if key is not None else None
        said = key if result is None or not by_rows else result.rows
        if said is not None and result is not None and result.right:
            right.add(said)
        return said

    students = []
    for student in step.students:
        samples = [
            sample.model_copy(update={"action": vote(sample.action, statement_of(sample.text))})
            for sample in student.samples
        ]
        votes.update(sample.action for sample in samples if sample.action is not None)
        students.append(student.model_copy(update={"samples": tuple(samples)}))
    teacher = vote(step.teacher, step.teacher or "")
    best = next((key for key, _ in votes.most_common() if key in right), None)
    gold = best or (teacher if teacher in right else _gold(task, by_rows))
    return step.model_copy(update={"students": tuple(students), "teacher": teacher, "gold": gold})


def _recorded(step: LoggedStep, task: int) -> dict[str, Answer]:
    """Recorded answers of the step's models by statement and by key."""
    names = dict.fromkeys((*(student.model for student in step.students), step.teacher_model))
    names |= {sample.member: None for student in step.students for sample in student.samples}
    known: dict[str, Answer] = {}
    for name in names:
        if name.startswith(PREFIX):
            for answer in answers.answers(split(name, LIBRARY)[0], task).answers:
                statement = answers.statement(answer.text)
                known.setdefault(statement, answer)
                try:
                    known.setdefault(canonical_sql(statement, "mysql", True), answer)
                except InvalidAction:
                    continue
    return known


def _result(known: dict[str, Answer], task: int, key: str | None, statement: str) -> Result | None:
    """The result of an answer; None where it cannot be told without the databases."""
    found = known.get(statement) or known.get(key or "")
    if found is not None:
        return Result(found.rows, found.right, found.error)
    return databases().run(task, statement) if tasks.has_data() else None


def _gold(task: int, by_rows: bool) -> str:
    """The key of the task's gold query."""
    if not tasks.has_data():
        return shipped.GOLD
    if by_rows:
        return str(databases().gold(task).rows)
    return canonical_sql(tasks.load_tasks()[task].gold, "mysql", True)
