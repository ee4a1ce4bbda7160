"""Economics of a run: what a cascade will cost beside its teacher, before it plays, and what it needed, afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from agentcascade.bench.records import EpisodeRecord
from agentcascade.economics.break_even import BilledSteps, billed_steps
from agentcascade.types import total

if TYPE_CHECKING:
    from agentcascade.config.load import CascadeConfig
    from agentcascade.economics.measured import Measured
    from agentcascade.economics.outlook import Outlook
    from agentcascade.step.context import StepContext

TEACHER_STEPS, STUDENT_STEPS = 20, 5
"""By which the tokens of a teacher's and of a student's step are known."""


class EarlyOutlook:
    """The outlook of a run's cascade, told once: as soon as its models' tokens are known, before it has spent much.

    Args:
        config: Of policy ``cascade``.
        with_demonstrations: Whether demonstrations are collected first.
        tell: Is told it.
    """

    def __init__(self, config: CascadeConfig, with_demonstrations: bool, tell: Callable[[Outlook], None]) -> None:
        self._config, self._with_demonstrations, self._tell = config, with_demonstrations, tell
        self._played: list[EpisodeRecord] = []
        self._left = {"teacher": TEACHER_STEPS, "student": STUDENT_STEPS}
        self._told = False

    def add(self, record: EpisodeRecord) -> None:
        """An episode was played."""
        if self._told or record.policy == "random":
            return
        self._played.append(record)
        for decision in record.decisions:
            for role in {call.role for call in decision.calls}:
                self._left[role] = self._left.get(role, 0) - 1
        if max(self._left.values()) > 0 or (self._with_demonstrations and record.policy == "demos"):
            return
        self._told = True
        if (found := run_outlook(self._config, self._played)) is not None:
            self._tell(found)
        self._played.clear()


def run_outlook(config: CascadeConfig, played: Sequence[EpisodeRecord]) -> Outlook | None:
    """What a cascade costs beside its teacher, by the first episodes of a run, those that were banked among them."""
    from agentcascade.economics.measured import measure, window_tokens
    from agentcascade.economics.outlook import outlook, plan_of

    context = _context(config)
    plan = plan_of(context)
    if plan is None:
        return None
    banked = [r.trajectory for r in played if r.trajectory is not None]
    students = {model.name for policy in plan.policies for model, _ in policy.members}
    measured = measure([d for r in played for d in r.decisions], teacher=plan.teacher.name, students=students)
    measured = _beside_the_teacher_alone(measured, played, plan.teacher.name)
    windows = window_tokens(banked, context.count, context.prompts) if banked else None
    return outlook(context, measured=measured, windows=windows)


def _beside_the_teacher_alone(measured: Measured, played: Sequence[EpisodeRecord], teacher: str) -> Measured:
    """`measured`, with what the teacher alone read, wrote and cost: it was played, so that nothing is estimated.

    Deferred steps are no fair sample of the teacher's: students defer what is hard.
    """
    from agentcascade.economics.measured import FEW, measure

    alone = [r for r in played if r.policy == "teacher" and r.steps]
    spent, steps = total_dollars([r.dollars for r in alone]), sum(r.steps for r in alone)
    if not spent or steps < FEW:
        return measured
    own = measure([d for r in alone for d in r.decisions], teacher=teacher, students=())
    deferred = [d for r in played for d in r.decisions if d.mode == "cascade" and d.answered_by == "teacher"]
    acts = total_dollars([c.dollars for d in deferred for c in d.calls if c.purpose == "act"])
    return replace(
        measured,
        prompt=own.prompt,
        new=own.new,
        teacher_answer=own.teacher_answer,
        teacher_reasoning=own.teacher_reasoning,
        teacher_alone=spent / steps,
        deferred=float(acts / len(deferred) / (spent / steps)) if acts and len(deferred) >= FEW else 1.0,
    )


def _context(config: CascadeConfig) -> StepContext:
    """Models and router of a run's cascade, for reckoning: nothing is asked."""
    from agentcascade.assembly import components
    from agentcascade.assembly.committee import committee_router, seat_of
    from agentcascade.models.tokens import token_counter
    from agentcascade.step.context import FurtherStudent, StepContext

    count = token_counter()
    teacher, student = (components.make_model(m, count) if m else None for m in (config.teacher, config.student))
    committee = config.sampling.across == "students"
    return StepContext(
        config=config,
        router=committee_router(config) if committee else components.make_router(config.router),
        count=count,
        teacher=teacher,
        student=student,
        students=tuple(
            FurtherStudent(components.make_model(link, count), components.make_router(link.router), seat_of(link))
            for link in config.students
        ),
        mergers=components.make_mergers(config, count),
    )


def step_costs(records: Sequence[EpisodeRecord], policy: str = "cascade") -> BilledSteps | None:
    """Dollars of a policy's steps as they were billed; None where they, or the teacher's, are not known."""
    own = [r for r in records if r.policy == policy and r.steps]
    alone = [r for r in records if r.policy == "teacher"]
    taught, spent = sum(r.steps for r in alone), total_dollars([r.dollars for r in alone])
    if not own or not taught or spent is None:
        return None
    steps = [(d.answered_by == "student", total(d.calls)) for r in own for d in r.decisions]
    ratio = (sum(r.steps for r in own) / len(own)) / (taught / len(alone))
    return billed_steps(spent / taught, steps, ratio)


def total_dollars(bills: Sequence[Decimal | None]) -> Decimal | None:
    """The sum; None as soon as one is not known."""
    return None if None in bills else sum((bill for bill in bills if bill is not None), Decimal(0))


def needed_acceptance(records: Sequence[EpisodeRecord]) -> str:
    """The sentence that holds a run's acceptance against the one that its bills needed; empty where it is not known."""
    found = step_costs(records)
    said = "" if found is None else found.sentence()
    return f"cascade: {said}" if said else ""
