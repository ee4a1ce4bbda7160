"""Error feedback (`sampling.feed_back`): where all samples are invalid the student is asked once more, with the reason.

Before the step is deferred the validator's reason is shown to the student ("Distilling LLM Agents into Small Models",
section "self-consistent action generation": where no sample is valid, the error is fed back), and the router judges the
new samples as it judged the first. ``auto`` does so where another round is expected to cost less than it saves:

    what the student's samples cost just now  <  P(accepted then) × the teacher's call

The probability is learnt from the cascade's own steps; where a price is not known, nothing is fed back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentcascade.actions.refusals import REFUSED, is_stock_phrase
from agentcascade.messages import text_of
from agentcascade.models.quirks import model_quirks
from agentcascade.prompts.refused import with_refused
from agentcascade.protocols import Router, Verdict
from agentcascade.step.demonstration_cache import teacher_dollars
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.step.student import StudentPolicy
from agentcascade.types import Sample, Situation, total


async def vote(
    policy: StudentPolicy,
    router: Router,
    situation: Situation,
    n: int,
    request: Request,
    record: StepRecord,
    samples: list[Sample],
) -> Verdict:
    """`StudentPolicy.sample_and_vote`, and once more where all samples are invalid; `samples` are the new ones then."""
    record.add_fed_back(())
    verdict = await policy.sample_and_vote(router, situation, n, request, record, samples=samples)
    again = None if verdict is Verdict.ACCEPT else asked_again(policy, request, record, samples)
    if again is None:
        return verdict
    first, samples[:] = list(samples), []
    record.add_fed_back(first)
    try:
        verdict = await policy.sample_and_vote(router, situation, n, again, record, samples=samples)
    finally:
        if not samples:
            record.add_fed_back(())
            samples += first
    policy.learned.feedback.add(verdict is Verdict.ACCEPT)
    return verdict


def asked_again(
    policy: StudentPolicy, request: Request, record: StepRecord, samples: Sequence[Sample]
) -> Request | None:
    """The request with the first fault among `samples`; None where one is valid, or asking again does not pay."""
    context = policy.context
    faulty = next((s for s in samples if _has_a_fault(s)), None)
    if context.config.sampling.feed_back == "never" or faulty is None or any(s.action is not None for s in samples):
        return None
    if context.config.sampling.feed_back == "auto" and not _pays(policy, request, record):
        return None
    models = [context.student, *(further.model for further in context.students)]
    messages = with_refused(
        request.prompt,
        faulty.message,
        faulty.invalid or "",
        prompts=context.prompts,
        user_after_tools=all(model_quirks(model.name).user_after_tools for model in models if model is not None),
    )
    return None if messages is None else replace(request, prompt=messages)


def _has_a_fault(sample: Sample) -> bool:
    """Whether the student said something that a validator complained about: no refusal, and no answer that failed."""
    text, reason = text_of(sample.message), sample.invalid or REFUSED
    said = bool(text.strip() or sample.message.get("tool_calls"))
    return said and not reason.startswith(REFUSED) and not is_stock_phrase(text)


def _pays(policy: StudentPolicy, request: Request, record: StepRecord) -> bool:
    names = {model.name for model in policy.models}
    calls = [call for call in record.calls if call.purpose in ("sample", "shadow") and call.model in names]
    student = total(calls) if calls else None
    teacher = teacher_dollars(policy.context, request, round(policy.learned.statistics.answer_tokens))
    if student is None or teacher is None:
        return False
    return float(student) < policy.learned.feedback.accepted * teacher
