"""The bill of a model call, whatever its server reports: never below what was received, never nothing in doubt.

Usage that is missing, zero beside a text, or absurd is replaced by what is counted here, and marked as estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import ceil

from agentcascade.billing.worst_case import Asked, dollars
from agentcascade.messages import text_of
from agentcascade.models.tokens import count_messages
from agentcascade.types import Completion, Delta, Message, Usage

CHARACTERS = 64
"""Of a text, at most, for a token that is reported: no tokenizer's mean is near it."""
MOST_PROMPT, MOST_ANSWER = 20_000_000, 2_000_000
"""Tokens of one request that a server is believed: twice the largest model's window."""
PRIORITY = 2
"""Factor on the price of an answer that says it was served as `priority`, though nobody asked for it."""


def billed(completion: Completion, asked: Asked) -> Completion:
    """The completion with a bill that can be booked; requests whose answers were lost are in it, at their worst."""
    answered = completion.calls - completion.lost
    usage, estimated = completion.usage, completion.estimated
    if answered > 0:
        usage = _believed(completion, asked, answered)
        estimated = estimated or usage != completion.usage
    price = _price(completion, usage, answered, asked)
    if completion.lost:
        each = max(1, ceil((asked.n - len(completion.messages)) / completion.lost))  # answers of each lost request
        worst = asked.most(each)
        usage += Usage(input=asked.prompt * completion.lost, output=asked.output * each * completion.lost)
        estimated = True
        price = None if price is None or worst is None else price + completion.lost * worst
    if price is not None and _dearer(completion, asked):
        price, estimated = price * PRIORITY, True
    if (usage, price, estimated, 0) == (completion.usage, completion.dollars, completion.estimated, completion.lost):
        return completion
    changes = {"usage": usage, "dollars": price, "estimated": estimated, "lost": 0}
    return completion.model_copy(update=changes)


def lost(asked: Asked) -> Completion:
    """The worst case of a call that nobody can say anything of."""
    n = max(1, asked.n)
    return billed(Completion(model=asked.model.name, messages=(), calls=n, lost=n), asked)


def heard(asked: Asked, deltas: Sequence[Delta]) -> Completion:
    """The bill of a stream that broke off: its prompt, and what was heard of the answer."""
    from agentcascade.models.deltas import DeltaAssembler

    said = DeltaAssembler()
    for delta in deltas:
        said.add(delta)
    message: Message = said.message or {"role": "assistant", "content": ""}
    usage = Usage(input=asked.prompt, output=_counted([message], asked))
    price = dollars(asked.model, usage)
    return Completion(model=asked.model.name, messages=(), usage=usage, dollars=price, estimated=True)


def _believed(completion: Completion, asked: Asked, answered: int) -> Usage:
    """The usage that is reported, side by side replaced where it cannot be true."""
    usage = completion.usage
    prompt, answer = usage.prompt, usage.completion
    said = sum(_characters(m) for m in completion.messages)
    if prompt == 0 or (completion.estimated and prompt < asked.prompt):
        prompt = max(prompt, asked.prompt)
    elif prompt > MOST_PROMPT * answered:
        prompt = asked.prompt * answered
    if answer * CHARACTERS < said:
        answer = max(answer, _counted(completion.messages, asked))
    elif answer > MOST_ANSWER * max(answered, len(completion.messages)):
        answer = max(_counted(completion.messages, asked), asked.output * max(1, asked.n))
    if prompt != usage.prompt:
        usage = Usage(input=prompt, output=usage.output, reasoning=usage.reasoning)
    if answer != usage.completion:
        usage = usage.model_copy(update={"output": answer, "reasoning": 0})
    return usage


def _price(completion: Completion, usage: Usage, answered: int, asked: Asked) -> Decimal | None:
    said = completion.dollars
    if usage == completion.usage and said is not None and said.is_finite() and said > 0:
        return said
    if answered < 1:
        known = said is not None and said.is_finite() and said >= 0
        return said if known else Decimal(0) if asked.one is not None else None
    each = usage if answered == 1 else Usage(**{k: ceil(v / answered) for k, v in usage.model_dump().items()})
    price = dollars(asked.model, each)
    return said if price is None and said is not None and said >= 0 else None if price is None else price * answered


def _dearer(completion: Completion, asked: Asked) -> bool:
    tier = completion.fields.get("service_tier")
    return tier == "priority" and not any(given.get("service_tier") for given in asked.every)


def _characters(message: Message) -> int:
    found = len(text_of(message))
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        found += len(str((function or {}).get("arguments") or ""))
    return found


def _counted(messages: Sequence[Message], asked: Asked) -> int:
    """Tokens of what was received, thinking included."""
    thought = (str(m.get("reasoning_content") or m.get("reasoning") or "") for m in messages)
    return sum(count_messages([m], asked.count) for m in messages) + sum(asked.count(t) for t in thought if t)
