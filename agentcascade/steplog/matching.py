"""Model calls of foreign logs, put together: calls that were asked the same are one step, whoever answered them."""

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
from agentcascade.errors import InvalidAction, InvalidRequest
from agentcascade.messages import text_of
from agentcascade.models.pricing import PriceTable
from agentcascade.steplog.types import Drawn, LoggedStep
from agentcascade.types import LoggedSample, Message, Usage


@dataclass(frozen=True)
class ModelCall:
    """One request to a model, however it was logged."""

    model: str
    messages: Sequence[Message]
    answers: Sequence[Message]
    usage: Usage | None = None
    episode: str = ""
    temperature: float | None = None
    success: bool | None = None
    at: datetime | None = None
    id: str = ""
    """The same for a call that was exported twice"""
    unusable: str = ""
    """Why the call says nothing, though it looks like one"""


@dataclass
class Imported:
    """What came of an import."""

    steps: list[LoggedStep]
    left_out: Counter[str] = field(default_factory=Counter)
    """Calls that could not be used, by reason"""


def matched(
    calls: Iterable[ModelCall],
    teacher: str,
    students: Sequence[str] = (),
    *,
    formats: ActionFormat | None = None,
    prices: PriceTable | None = None,
) -> Imported:
    """Steps that the teacher and at least one student answered, in the order in which they come.

    `teacher` and `students` name models as the log does, with or without a provider's prefix; without `students` every
    other model is one. Requests are the same when their messages are, but for the ids of tool calls. Raises
    `InvalidRequest` when the log has no call of the teacher or of a student, or when one model is both.
    """
    formats = formats or AutoActions()
    found = Imported([])
    groups: dict[str, list[ModelCall]] = {}
    seen: set[str] = set()
    ids: set[str] = set()
    if both := [name for name in students if _is(name, teacher)]:
        raise InvalidRequest(f"'{both[0]}' is student and teacher: it would be compared with itself")
    for call in calls:
        if call.id and call.id in ids:
            found.left_out["calls that were there already"] += 1
            continue
        ids.add(call.id)
        if call.unusable:
            found.left_out[call.unusable] += 1
            continue
        if not call.answers:
            found.left_out["calls without an answer"] += 1
            continue
        seen.add(call.model)
        try:
            conversation.check(call.messages)
            key = _key(call.messages)
        except (InvalidRequest, AttributeError, TypeError, ValueError, RecursionError):
            found.left_out["calls whose messages cannot be read"] += 1
            continue
        groups.setdefault(key, []).append(call)
    for role, name in (("teacher", teacher), *(("student", name) for name in students)):
        if seen and not any(_is(model, name) for model in seen):
            raise InvalidRequest(f"the log has no call of the {role} '{name}': it knows {', '.join(sorted(seen))}")
    names = students or sorted(model for model in seen if not _is(model, teacher))
    for same in groups.values():
        taught = [c for c in same if _is(c.model, teacher)]
        asked = {name: [c for c in same if _is(c.model, name)] for name in names}
        if not taught or not any(asked.values()):
            who = "the teacher" if not taught else "a student"
            found.left_out[f"calls that {who} did not answer too"] += len(same)
            continue
        found.steps.append(_step(taught[0], {n: own for n, own in asked.items() if own}, formats, prices))
        found.left_out["further answers of the teacher"] += len(taught) - 1
    found.left_out = +found.left_out
    return found


def taught_steps(
    calls: Iterable[ModelCall], teacher: str = "", *, formats: ActionFormat, prices: PriceTable | None = None
) -> tuple[list[tuple[LoggedStep, Sequence[Message]]], Counter[str]]:
    """The teacher's calls as steps that no student has answered yet, each with its messages; and what was left out.

    `teacher` may be left out where the log has one model alone. Raises `InvalidRequest`.
    """
    found: dict[str, tuple[LoggedStep, Sequence[Message]]] = {}
    left_out: Counter[str] = Counter()
    models: set[str] = set()
    for call in calls:
        models.add(call.model)
        if teacher and not _is(call.model, teacher):
            continue
        if call.unusable or not call.answers:
            left_out[call.unusable or "calls without an answer"] += 1
            continue
        try:
            conversation.check(call.messages)
            step = _step(call, {}, formats, prices)
        except (InvalidRequest, AttributeError, TypeError, ValueError, RecursionError):
            left_out["calls whose messages cannot be read"] += 1
            continue
        if step.id in found:
            left_out["further answers of the teacher"] += 1
            continue
        found[step.id] = step, call.messages
    named = ", ".join(sorted(models))
    if not teacher and len(models) > 1:
        raise InvalidRequest(f"the log has calls of several models ({named}): --teacher says which is the teacher")
    if teacher and models and not any(_is(model, teacher) for model in models):
        raise InvalidRequest(f"the log has no call of the teacher '{teacher}': it knows {named}")
    return list(found.values()), left_out


def _step(
    taught: ModelCall, asked: Mapping[str, Sequence[ModelCall]], formats: ActionFormat, prices: PriceTable | None
) -> LoggedStep:
    situation = conversation.read(taught.messages, formats)
    table = prices or PriceTable()
    return LoggedStep(
        id=_key(taught.messages),
        episode=taught.episode,
        step=situation.step,
        goal=situation.goal,
        observation=situation.observation,
        students=tuple(_drawn(calls, formats, table) for calls in asked.values()),
        teacher=_sample(taught.answers[0], formats).action,
        teacher_model=taught.model,
        teacher_usage=taught.usage,
        teacher_price=table.lookup(taught.model),
        success=taught.success,
        created_at=taught.at,
    )


def _drawn(calls: Sequence[ModelCall], formats: ActionFormat, table: PriceTable) -> Drawn:
    samples: list[LoggedSample] = []
    for call in calls:
        own = None if call.usage is None else round(call.usage.completion / len(call.answers))
        samples += [_sample(a, formats).model_copy(update={"tokens": own}) for a in call.answers]
    first = calls[0]
    usage, price = first.usage, table.lookup(first.model)
    prompt = None if usage is None else usage.model_copy(update={"output": 0, "reasoning": 0})
    return Drawn(
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
        return LoggedSample(action=None, text=text_of(message), invalid=str(error))
    return LoggedSample(action=action.key, text=action.text)


def _is(model: str, name: str) -> bool:
    """Whether `model` is what `name` calls it; where only one of them names a provider, any provider's is meant."""
    (provider, _, bare), (asked, _, wanted) = model.rpartition("/"), name.rpartition("/")
    return bare == wanted and (provider == asked or not provider or not asked)


def _key(messages: Sequence[Message]) -> str:
    """The same for the same messages: ids of tool calls count by where they stand."""
    ids: dict[str, str] = {}

    def named(id: Any) -> str:
        return ids.setdefault(str(id), f"call {len(ids)}")

    said = []
    for message in messages:
        calls = [
            (named(c.get("id")), (c.get("function") or {}).get("name"), _arguments(c))
            for c in message.get("tool_calls") or ()
        ]
        result = named(message["tool_call_id"]) if message.get("tool_call_id") else None
        content = message.get("content")
        parts = [p for p in content if p.get("type") != "text"] if isinstance(content, list) else []  # images, files
        said.append((message.get("role"), text_of(message), calls, result, parts))
    written = json.dumps(said, ensure_ascii=False, sort_keys=True)
    return blake2b(written.encode(errors="replace"), digest_size=12).hexdigest()


def _arguments(call: Mapping[str, Any]) -> Any:
    """By value where they are JSON."""
    raw = (call.get("function") or {}).get("arguments")
    try:
        return json.dumps(json.loads(raw), sort_keys=True) if isinstance(raw, str) else json.dumps(raw, sort_keys=True)
    except (ValueError, TypeError, RecursionError):
        return str(raw)
