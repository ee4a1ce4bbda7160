"""Convert between logged steps and the records of a cascade (`Decision`, `Shadow`, `Call`).

Samples may take several requests (batches, or a provider that gives one answer at a time); a logged step has the prompt
of one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from agentcascade.models.pricing import Price, PriceTable
from agentcascade.steplog.types import LoggedStep, StudentSamples, usage_dollars
from agentcascade.types import Call, Decision, LoggedSample, Purpose, Shadow, Usage, total

STUDENT_PURPOSES = ("sample", "shadow")
VERIFIER_PURPOSE = "score"
TEACHER_PURPOSES = {"shadow": "act", "audit": "audit"}
"""Purpose of the teacher's call by kind of step"""


class PriceLookup:
    """Cached price lookup; without a table no price is known."""

    def __init__(self, table: PriceTable | None) -> None:
        self._table = table
        self._known: dict[str, Price | None] = {}

    def of(self, model: str) -> Price | None:
        if model not in self._known:
            self._known[model] = self._table.lookup(model) if self._table is not None and model else None
        return self._known[model]


def logged_step(shadow: Shadow, calls: Sequence[Call], success: bool | None, prices: PriceLookup) -> LoggedStep:
    """The logged step of a shadow; `calls` are those of its decision and its own, `success` is its episode's."""
    student_calls = [call for call in calls if call.purpose in STUDENT_PURPOSES]
    teacher_calls = [call for call in calls if call.purpose == TEACHER_PURPOSES[shadow.kind]]
    teacher = teacher_calls[-1].model if teacher_calls else ""
    members = dict.fromkeys(sample.member for sample in shadow.samples) or {"": None}
    students = tuple(_student_samples(shadow, student_calls, member, prices) for member in members)
    students = _with_verifier(students, [call for call in calls if call.purpose == VERIFIER_PURPOSE])
    usage = sum((call.usage for call in teacher_calls), Usage())
    return LoggedStep(
        id=shadow.decision,
        episode=shadow.episode,
        namespace=shadow.namespace,
        step=shadow.step,
        goal=shadow.goal,
        category=shadow.category,
        observation=shadow.observation,
        students=students,
        teacher=shadow.teacher_action,
        teacher_model=teacher,
        teacher_usage=None if usage == Usage() else usage,
        teacher_price=prices.of(teacher),
        gold=shadow.gold,
        success=success,
        propensity=shadow.propensity,
        kind=shadow.kind,
        asked_together=shadow.asked_together,
        accepted=shadow.accepted,
        created_at=shadow.created_at,
    )


def _student_samples(shadow: Shadow, calls: Sequence[Call], member: str, prices: PriceLookup) -> StudentSamples:
    """Samples of one student of a shadow: of a committee's `member`, or of the only one."""
    of_member = [
        sample.model_copy(update={"member": "", "weight": 1}) for sample in shadow.samples if sample.member == member
    ]
    calls = [call for call in calls if not member or call.model == member]
    model = member or (calls[0].model if calls else "")
    samples = _after_feedback(_with_tokens(of_member, sum(call.usage.completion for call in calls)))
    return StudentSamples(
        model=model,
        samples=samples,
        n=len(samples),
        temperature=shadow.temperature,
        k=shadow.k,
        window=shadow.window,
        vary=shadow.vary,
        history=shadow.history,
        demonstrations=shadow.demonstrations,
        similarity=shadow.similarity,
        prompt=_prompts(calls, len(samples) < len(of_member)),
        price=prices.of(model),
    )


def _with_verifier(students: tuple[StudentSamples, ...], calls: Sequence[Call]) -> tuple[StudentSamples, ...]:
    """The students with who scored their candidates, and what one verification cost."""
    if not calls:
        return students
    candidates = {
        (i, sample.action) for i, one in enumerate(students) for sample in one.samples if sample.score is not None
    }
    dollars = total(calls)
    each = None if dollars is None else _quantized(dollars / max(1, len(candidates)))
    own = {"verifier": calls[-1].model, "verifier_dollars": each}
    return tuple(student.model_copy(update=own) for student in students)


def _one_prompt(call: Call) -> Usage | None:
    """Prompt tokens of one request of a call, which bills several; None where they were not counted."""
    classes = (name for name in Usage.model_fields if name not in ("output", "reasoning"))
    prompt = Usage(**{name: round(getattr(call.usage, name) / max(1, call.requests)) for name in classes})
    return prompt if prompt.prompt else None


def _prompts(calls: Sequence[Call], fed_back: bool) -> Usage | None:
    """Prompt tokens of one request; of two, where a fault was fed back: the first one's, and the last one's."""
    first = _one_prompt(calls[0]) if calls else None
    last = _one_prompt(calls[-1]) if fed_back and len(calls) > 1 else None
    return first if first is None or last is None else first + last


def _after_feedback(samples: tuple[LoggedSample, ...]) -> tuple[LoggedSample, ...]:
    """The samples that were voted on: where a fault was fed back those behind it, which carry the others' tokens, too.

    No rule accepts a step whose samples are all invalid, so that what came behind them is all that it is judged by.
    """
    again = [sample for sample in samples if sample.retry]
    if not again:
        return samples
    each, over = divmod(sum(sample.tokens or 0 for sample in samples if not sample.retry), len(again))
    return tuple(
        sample.model_copy(
            update={
                "retry": False,
                "tokens": None if sample.tokens is None else sample.tokens + each + (place < over),
            }
        )
        for place, sample in enumerate(again)
    )


def _with_tokens(samples: Sequence[LoggedSample], generated: int) -> tuple[LoggedSample, ...]:
    """Samples with token counts: those without one share evenly what is left of `generated`."""
    filled = list(samples)
    unknown = [i for i, sample in enumerate(filled) if sample.tokens is None]
    left = max(0, generated - sum(sample.tokens or 0 for sample in filled))
    if generated and unknown:
        each, over = divmod(left, len(unknown))
        for place, i in enumerate(unknown):
            filled[i] = filled[i].model_copy(update={"tokens": each + (place < over)})
    return tuple(filled)


def decision_and_shadow(step: LoggedStep, default_time: datetime) -> tuple[Decision, Shadow]:
    """Records of a logged step; an id that is not a decision's is replaced by a digest of it."""
    sampled, time = step.student, step.created_at or default_time
    audit = step.kind == "audit"
    kind: Literal["shadow", "audit"] = "audit" if audit else "shadow"
    id = step.id if step.id.startswith("de_") and len(step.id) <= 40 else _id(step)
    members = _members(step.students)
    samples = [sample for student in members for sample in student.samples]
    student_calls = tuple(_student_call(student, "sample" if audit else "shadow") for student in members)
    teacher = Call(
        role="teacher",
        purpose="audit" if audit else "act",
        model=step.teacher_model,
        usage=step.teacher_usage or Usage(),
        dollars=_quantized(usage_dollars(step.teacher_price, step.teacher_usage)),
    )
    votes = Counter(sample.action for sample in samples if sample.action is not None)
    best = votes.most_common(1)
    agreement = (best[0][1] if best else 0) / len(samples) if samples else None
    acting_calls = student_calls if audit else (teacher,)
    episode = step.episode or id
    decision = Decision(
        id=id,
        episode=episode,
        namespace=step.namespace,
        step=step.step,
        goal=step.goal[:300],
        mode="cascade" if audit else "shadow",
        answered_by="student" if audit else "teacher",
        reason="loaded from a log",
        agreement=agreement if audit else None,
        votes=dict(votes) if audit else {},
        samples=len(samples) if audit else 0,
        invalid_samples=sum(sample.action is None for sample in samples) if audit else 0,
        action=(best[0][0] if best else None) if audit else step.teacher,
        demonstrations=sampled.demonstrations if audit else (),
        calls=acting_calls,
        dollars=total(acting_calls),
        teacher_dollars=teacher.dollars,
        created_at=time,
    )
    shadow = Shadow(
        decision=id,
        kind=kind,
        episode=episode,
        namespace=step.namespace,
        step=step.step,
        goal=step.goal,
        category=step.category[:200],  # as many characters as the table holds
        observation=step.observation,
        temperature=sampled.temperature,
        k=sampled.k,
        window=sampled.window,
        vary=sampled.vary,
        history=sampled.history,
        asked_together=step.asked_together,
        similarity=sampled.similarity,
        propensity=step.propensity,
        teacher_action=step.teacher,
        gold=step.gold,
        samples=tuple(samples),
        accepted=audit if step.accepted is None else step.accepted,
        agreement=agreement,
        demonstrations=sampled.demonstrations,
        calls=(teacher,) if audit else student_calls,
        created_at=time,
    )
    return decision, shadow


def _members(students: Sequence[StudentSamples]) -> list[StudentSamples]:
    """Students whose samples say whose they are, each by a name of its own, where there are several."""
    if len(students) < 2:
        return list(students) or [StudentSamples()]
    members: dict[str, StudentSamples] = {}
    for i, student in enumerate(students, 1):
        name = student.model if student.model and student.model not in members else f"student {i}"
        samples = tuple(sample.model_copy(update={"member": name}) for sample in student.samples)
        members[name] = student.model_copy(update={"model": name, "samples": samples})
    return list(members.values())


def _student_call(student: StudentSamples, purpose: Purpose) -> Call:
    generated = sum(sample.tokens or 0 for sample in student.samples)
    usage = (student.prompt or Usage()) + Usage(output=generated)
    return Call(
        role="student",
        purpose=purpose,
        model=student.model,
        usage=usage,
        dollars=_quantized(usage_dollars(student.price, usage if student.prompt else None)),
    )


def _id(step: LoggedStep) -> str:
    name = f"{len(step.namespace)}:{step.namespace}/{step.id}"
    return "de_" + hashlib.sha256(name.encode()).hexdigest()[:20]


def _quantized(value: Decimal | None) -> Decimal | None:
    """Dollars rounded to the places that the tables hold."""
    return None if value is None else value.quantize(Decimal(10) ** -12)
