"""Match model calls of foreign logs into steps: calls with the same messages are one step, whichever model answered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any

from agentcascade import conversation
from agentcascade.actions.base import ActionFormat, AutoActions
from agentcascade.actions.refusals import refusal
from agentcascade.errors import InvalidAction, InvalidRequest
from agentcascade.messages import text_of, text_with_calls
from agentcascade.models.pricing import PriceTable
from agentcascade.prompts.drafts import shows_drafts
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import Action, LoggedSample, Message, Usage


@dataclass(frozen=True)
class ModelCall:
    """Model call of a foreign log: the request's messages and the model's answers."""

    model: str
    messages: Sequence[Message]
    answers: Sequence[Message]
    usage: Usage | None = None
    episode: str = ""
    temperature: float | None = None
    success: bool | None = None
    at: datetime | None = None
    id: str = ""
    """Id of the call, the same where it was exported twice"""
    unusable: str = ""
    """Why the call cannot be used, e.g. its answer came from a cache"""


DRAFTS_SEEN = "answers of a teacher that saw the student's drafts"


@dataclass
class MatchedSteps:
    """Steps that were matched, and the calls that were left out."""

    steps: list[LoggedStep]
    left_out: Counter[str] = field(default_factory=Counter)
    """Numbers of calls that were left out, by reason"""


def match_calls(
    calls: Iterable[ModelCall],
    teacher: str,
    students: Sequence[str] = (),
    *,
    formats: ActionFormat | None = None,
    prices: PriceTable | None = None,
) -> MatchedSteps:
    """Match calls into steps that the teacher and at least one student answered, in the order of the log.

    `teacher` and `students` name models as the log does, with or without a provider's prefix; without `students` every
    other model is one. Requests are the same when their messages are, but for the ids of tool calls. Raises
    `InvalidRequest` when the log has no call of the teacher or of a student, or when one model is both.
    """
    formats = formats or AutoActions()
    matched = MatchedSteps([])
    groups: dict[str, list[ModelCall]] = {}
    seen: set[str] = set()
    ids: set[str] = set()
    if both := [name for name in students if _is_model(name, teacher)]:
        raise InvalidRequest(f"'{both[0]}' is student and teacher: it would be compared with itself")
    for call in calls:
        if call.id and call.id in ids:
            matched.left_out["calls that were there already"] += 1
            continue
        ids.add(call.id)
        if call.unusable:
            matched.left_out[call.unusable] += 1
            continue
        if not call.answers:
            matched.left_out["calls without an answer"] += 1
            continue
        if saw_drafts(call):
            matched.left_out[DRAFTS_SEEN] += 1
            continue
        seen.add(call.model)
        try:
            conversation.check(call.messages)
            key = _request_key(call.messages)
        except (InvalidRequest, AttributeError, TypeError, ValueError, RecursionError):
            matched.left_out["calls whose messages cannot be read"] += 1
            continue
        groups.setdefault(key, []).append(call)
    for role, name in (("teacher", teacher), *(("student", name) for name in students)):
        if seen and not any(_is_model(model, name) for model in seen):
            raise InvalidRequest(f"the log has no call of the {role} '{name}': it knows {', '.join(sorted(seen))}")
    names = students or sorted(model for model in seen if not _is_model(model, teacher))
    for group in groups.values():
        teacher_calls = [c for c in group if _is_model(c.model, teacher)]
        student_calls = {name: [c for c in group if _is_model(c.model, name)] for name in names}
        if not teacher_calls or not any(student_calls.values()):
            who = "the teacher" if not teacher_calls else "a student"
            matched.left_out[f"calls that {who} did not answer too"] += len(group)
            continue
        matched.steps.append(
            _step(
                teacher_calls[0],
                {n: calls_of_student for n, calls_of_student in student_calls.items() if calls_of_student},
                formats,
                prices,
            )
        )
        matched.left_out["further answers of the teacher"] += len(teacher_calls) - 1
    matched.left_out = +matched.left_out
    return matched


def teacher_steps(
    calls: Iterable[ModelCall], teacher: str = "", *, formats: ActionFormat, prices: PriceTable | None = None
) -> tuple[list[tuple[LoggedStep, Sequence[Message]]], Counter[str]]:
    """The teacher's calls as steps without samples, each with its messages; and numbers of calls left out by reason.

    `teacher` may be left out where the log has one model alone. Raises `InvalidRequest`.
    """
    steps: dict[str, tuple[LoggedStep, Sequence[Message]]] = {}
    left_out: Counter[str] = Counter()
    models: set[str] = set()
    for call in calls:
        models.add(call.model)
        if teacher and not _is_model(call.model, teacher):
            continue
        if call.unusable or not call.answers:
            left_out[call.unusable or "calls without an answer"] += 1
            continue
        if saw_drafts(call):
            left_out[DRAFTS_SEEN] += 1
            continue
        try:
            conversation.check(call.messages)
            step = _step(call, {}, formats, prices)
        except (InvalidRequest, AttributeError, TypeError, ValueError, RecursionError):
            left_out["calls whose messages cannot be read"] += 1
            continue
        if step.id in steps:
            left_out["further answers of the teacher"] += 1
            continue
        steps[step.id] = step, call.messages
    named = ", ".join(sorted(models))
    if not teacher and len(models) > 1:
        raise InvalidRequest(f"the log has calls of several models ({named}): --teacher says which is the teacher")
    if teacher and models and not any(_is_model(model, teacher) for model in models):
        raise InvalidRequest(f"the log has no call of the teacher '{teacher}': it knows {named}")
    return list(steps.values()), left_out


def saw_drafts(call: ModelCall) -> bool:
    """Whether the request showed a student's drafts (`prompt.teacher_sees_drafts`), so that its answer is no label."""
    return isinstance(call.messages, Sequence) and shows_drafts(call.messages)


def _step(
    teacher_call: ModelCall,
    student_calls: Mapping[str, Sequence[ModelCall]],
    formats: ActionFormat,
    prices: PriceTable | None,
) -> LoggedStep:
    situation = conversation.read(teacher_call.messages, formats)
    table = prices or PriceTable()
    return LoggedStep(
        id=_request_key(teacher_call.messages),
        episode=teacher_call.episode,
        step=situation.step,
        goal=situation.goal,
        observation=situation.observation,
        students=tuple(_student_samples(calls, formats, table) for calls in student_calls.values()),
        teacher=_sample(teacher_call.answers[0], formats).action,
        teacher_model=teacher_call.model,
        teacher_usage=teacher_call.usage,
        teacher_price=table.lookup(teacher_call.model),
        success=teacher_call.success,
        created_at=teacher_call.at,
    )


def _student_samples(calls: Sequence[ModelCall], formats: ActionFormat, table: PriceTable) -> StudentSamples:
    samples: list[LoggedSample] = []
    for call in calls:
        tokens = None if call.usage is None else round(call.usage.completion / len(call.answers))
        samples += [_student_sample(a, formats).model_copy(update={"tokens": tokens}) for a in call.answers]
    first = calls[0]
    usage, price = first.usage, table.lookup(first.model)
    prompt = None if usage is None else usage.model_copy(update={"output": 0, "reasoning": 0})
    return StudentSamples(
        model=first.model,
        samples=tuple(samples),
        n=len(samples),
        temperature=first.temperature,
        prompt=prompt,
        price=price,
    )


def _sample(message: Message, formats: ActionFormat) -> LoggedSample:
    try:
        action = formats.parse(message)
    except InvalidAction as error:
        return LoggedSample(action=None, text=text_with_calls(message), invalid=str(error))
    return LoggedSample(action=action.key, text=action.text)


def _student_sample(message: Message, formats: ActionFormat) -> LoggedSample:
    """A refusal votes for nothing, as in a cascade."""
    sample = _sample(message, formats)
    read = None if sample.action is None else Action(key=sample.action, text=sample.text)
    refused = refusal(message, read)
    return sample if refused is None else sample.model_copy(update={"action": None, "invalid": refused})


def _is_model(model: str, name: str) -> bool:
    """Whether `model` is called `name`; where only one of them names a provider, any provider matches."""
    (provider, _, bare), (wanted_provider, _, wanted) = model.rpartition("/"), name.rpartition("/")
    return bare == wanted and (provider == wanted_provider or not provider or not wanted_provider)


def _request_key(messages: Sequence[Message]) -> str:
    """Digest of a request's messages, in which ids of tool calls are replaced by their order."""
    ids: dict[str, str] = {}

    def named(id: Any) -> str:
        return ids.setdefault(str(id), f"call {len(ids)}")

    canonical = []
    for message in messages:
        calls = [
            (named(c.get("id")), (c.get("function") or {}).get("name"), _arguments(c))
            for c in message.get("tool_calls") or ()
        ]
        result = named(message["tool_call_id"]) if message.get("tool_call_id") else None
        content = message.get("content")
        parts = [p for p in content if p.get("type") != "text"] if isinstance(content, list) else []  # images, files
        canonical.append((message.get("role"), text_of(message), calls, result, parts))
    written = json.dumps(canonical, ensure_ascii=False, sort_keys=True)
    return blake2b(written.encode(errors="replace"), digest_size=12).hexdigest()


def _arguments(call: Mapping[str, Any]) -> Any:
    """Canonical arguments of a tool call: JSON by value, else as they are."""
    raw = (call.get("function") or {}).get("arguments")
    try:
        return json.dumps(json.loads(raw), sort_keys=True) if isinstance(raw, str) else json.dumps(raw, sort_keys=True)
    except (ValueError, TypeError, RecursionError):
        return str(raw)
