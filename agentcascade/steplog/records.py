"""One step of the log made of a program's records, and records made of a step.

The samples' requests may be several (waves, or a provider that gives one answer at a time): a step of the log has the
prompt of one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from agentcascade.models.pricing import Price, PriceTable
from agentcascade.steplog.types import Drawn, LoggedStep, dollars
from agentcascade.types import Call, Decision, LoggedSample, Shadow, Usage, total

STUDENT = ("sample", "shadow")
TEACHER = {"shadow": "act", "audit": "audit"}
"""Purposes of the calls that made the two sides of a step."""


class Prices:
    """A price table that remembers what it was asked; without one, no price is known."""

    def __init__(self, table: PriceTable | None) -> None:
        self._table = table
        self._known: dict[str, Price | None] = {}

    def of(self, model: str) -> Price | None:
        if model not in self._known:
            self._known[model] = self._table.lookup(model) if self._table is not None and model else None
        return self._known[model]


def step_of(shadow: Shadow, calls: Sequence[Call], success: bool | None, prices: Prices) -> LoggedStep:
    """`calls` are all of the step's, its decision's and its shadow's, in their order; `success` is its episode's."""
    asked = [call for call in calls if call.purpose in STUDENT]
    taught = [call for call in calls if call.purpose == TEACHER[shadow.kind]]
    student, teacher = asked[0].model if asked else "", taught[-1].model if taught else ""
    drawn = Drawn(
        model=student,
        samples=_with_tokens(shadow.samples, sum(call.usage.completion for call in asked)),
        n=len(shadow.samples),
        temperature=shadow.temperature,
        k=shadow.k,
        demonstrations=shadow.demonstrations,
        similarity=shadow.similarity,
        prompt=_one_prompt(asked[0]) if asked else None,
        price=prices.of(student),
    )
    usage = sum((call.usage for call in taught), Usage())
    return LoggedStep(
        id=shadow.decision,
        episode=shadow.episode,
        namespace=shadow.namespace,
        step=shadow.step,
        goal=shadow.goal,
        category=shadow.category,
        observation=shadow.observation,
        students=(drawn,),
        teacher=shadow.teacher_action,
        teacher_model=teacher,
        teacher_usage=None if usage == Usage() else usage,
        teacher_price=prices.of(teacher),
        gold=shadow.gold,
        success=success,
        propensity=shadow.propensity,
        kind=shadow.kind,
        accepted=shadow.accepted,
        created_at=shadow.created_at,
    )


def _one_prompt(call: Call) -> Usage | None:
    """The prompt of one of the requests that a call is the bill of; None: it was not counted."""
    classes = (name for name in Usage.model_fields if name not in ("output", "reasoning"))
    prompt = Usage(**{name: round(getattr(call.usage, name) / call.requests) for name in classes})
    return prompt if prompt.prompt else None


def _with_tokens(samples: Sequence[LoggedSample], generated: int) -> tuple[LoggedSample, ...]:
    """The samples; those whose tokens are not known share evenly what is left of `generated`, if there is any."""
    made = list(samples)
    unknown = [i for i, sample in enumerate(made) if sample.tokens is None]
    left = max(0, generated - sum(sample.tokens or 0 for sample in made))
    if generated and unknown:
        each, over = divmod(left, len(unknown))
        for place, i in enumerate(unknown):
            made[i] = made[i].model_copy(update={"tokens": each + (place < over)})
    return tuple(made)


def records_of(step: LoggedStep, default_time: datetime) -> tuple[Decision, Shadow]:
    """Of several students the first is kept; a step whose id is not a decision's gets one that follows from it."""
    drawn, time = step.student, step.created_at or default_time
    audit = step.kind == "audit"
    kind: Literal["shadow", "audit"] = "audit" if audit else "shadow"
    id = step.id if step.id.startswith("de_") and len(step.id) <= 40 else _id(step)
    generated = sum(sample.tokens or 0 for sample in drawn.samples)
    asked = (drawn.prompt or Usage()) + Usage(output=generated)
    student = Call(
        role="student",
        purpose="sample" if audit else "shadow",
        model=drawn.model,
        usage=asked,
        dollars=_exact(dollars(drawn.price, asked if drawn.prompt else None)),
    )
    teacher = Call(
        role="teacher",
        purpose="audit" if audit else "act",
        model=step.teacher_model,
        usage=step.teacher_usage or Usage(),
        dollars=_exact(dollars(step.teacher_price, step.teacher_usage)),
    )
    votes = Counter(sample.action for sample in drawn.samples if sample.action is not None)
    best = votes.most_common(1)
    agreement = (best[0][1] if best else 0) / len(drawn.samples) if drawn.samples else None
    acted = (student,) if audit else (teacher,)
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
        samples=len(drawn.samples) if audit else 0,
        invalid_samples=sum(sample.action is None for sample in drawn.samples) if audit else 0,
        action=(best[0][0] if best else None) if audit else step.teacher,
        demonstrations=drawn.demonstrations if audit else (),
        calls=acted,
        dollars=total(acted),
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
        temperature=drawn.temperature,
        k=drawn.k,
        similarity=drawn.similarity,
        propensity=step.propensity,
        teacher_action=step.teacher,
        gold=step.gold,
        samples=drawn.samples,
        accepted=audit if step.accepted is None else step.accepted,
        agreement=agreement,
        demonstrations=drawn.demonstrations,
        calls=(teacher,) if audit else (student,),
        created_at=time,
    )
    return decision, shadow


def _id(step: LoggedStep) -> str:
    name = f"{len(step.namespace)}:{step.namespace}/{step.id}"
    return "de_" + hashlib.sha256(name.encode()).hexdigest()[:20]


def _exact(value: Decimal | None) -> Decimal | None:
    """As many places as the tables hold."""
    return None if value is None else value.quantize(Decimal(10) ** -12)
