"""Bill of a model call, whatever its server reports: never below what was received, never nothing in doubt.

Usage that is missing, zero beside a text, or absurd is replaced by what is counted here, and marked as estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import ceil

from agentcascade.billing.worst_case import PlannedCall, model_dollars
from agentcascade.messages import text_of
from agentcascade.models.message_fields import thinking_of
from agentcascade.models.tokens import count_messages
from agentcascade.types import Completion, Delta, Message, Usage

MAX_CHARACTERS_PER_TOKEN = 64
"""Of a token that is reported, on the average of a text: no tokenizer's mean is near it."""
MAX_PROMPT_TOKENS, MAX_ANSWER_TOKENS = 20_000_000, 2_000_000
"""Of one request, that a server is believed: twice the largest model's window."""
PRIORITY_FACTOR = 2
"""On the price of an answer that says it was served as `priority`, though nobody asked for it."""


def bookable(completion: Completion, call: PlannedCall) -> Completion:
    """The completion with a bill that can be booked; requests whose answers were lost are in it, at their worst.

    It is the bill of the model that was asked. What the answer calls itself (``gpt-4o-mini-2024-07-18``) is kept among
    its fields: two members of a committee may share it.
    """
    if completion.model != call.model.name:
        fields = {"model": completion.model, **completion.fields}
        completion = completion.model_copy(update={"model": call.model.name, "fields": fields})
    answered = completion.calls - completion.lost
    usage, estimated = completion.usage, completion.estimated
    if answered > 0:
        usage = _believable_usage(completion, call, answered)
        estimated = estimated or usage != completion.usage
    price = _price(completion, usage, answered, call)
    if completion.lost:
        each = max(1, ceil((call.n - len(completion.messages)) / completion.lost))  # answers of each lost request
        worst = call.request_dollars(each)
        prompt, output = call.prompt_tokens * completion.lost, call.output_tokens * each * completion.lost
        usage += Usage(input=prompt, output=output)
        estimated = True
        price = None if price is None or worst is None else price + completion.lost * worst
    if price is not None and _is_unasked_priority(completion, call):
        price, estimated = price * PRIORITY_FACTOR, True
    if (usage, price, estimated, 0) == (completion.usage, completion.dollars, completion.estimated, completion.lost):
        return completion
    changes = {"usage": usage, "dollars": price, "estimated": estimated, "lost": 0}
    return completion.model_copy(update=changes)


def bill_of_lost(call: PlannedCall) -> Completion:
    """The worst case of a call that nobody can say anything of, as it was reserved."""
    requests = call.most_requests
    return bookable(Completion(model=call.model.name, messages=(), calls=requests, lost=requests), call)


def bill_of_deltas(call: PlannedCall, deltas: Sequence[Delta]) -> Completion:
    """The bill of a stream that broke off: its prompt, and what came of the answer."""
    from agentcascade.models.deltas import DeltaAssembler

    assembler = DeltaAssembler()
    for delta in deltas:
        assembler.add(delta)
    usage = Usage(input=call.prompt_tokens, output=_count_answers([assembler.message], call))
    price = model_dollars(call.model, usage)
    return Completion(model=call.model.name, messages=(), usage=usage, dollars=price, estimated=True)


def _believable_usage(completion: Completion, call: PlannedCall, answered: int) -> Usage:
    """The usage that is reported; its prompt and its answers each replaced where they cannot be true."""
    usage = completion.usage
    prompt, answer = usage.prompt, usage.completion
    received = sum(_characters(m) for m in completion.messages)
    if prompt == 0 or (completion.estimated and prompt < call.prompt_tokens):
        prompt = max(prompt, call.prompt_tokens)
    elif prompt > MAX_PROMPT_TOKENS * answered:
        prompt = call.prompt_tokens * answered
    if answer * MAX_CHARACTERS_PER_TOKEN < received:
        answer = max(answer, _count_answers(completion.messages, call))
    elif answer > MAX_ANSWER_TOKENS * max(answered, len(completion.messages)):
        answer = max(_count_answers(completion.messages, call), call.output_tokens * max(1, call.n))
    if prompt != usage.prompt:
        usage = Usage(input=prompt, output=usage.output, reasoning=usage.reasoning)
    if answer != usage.completion:
        usage = usage.model_copy(update={"output": answer, "reasoning": 0})
    return usage


def _price(completion: Completion, usage: Usage, answered: int, call: PlannedCall) -> Decimal | None:
    """Dollars of the requests that were answered: as the adapter says where its usage holds, else of `usage`."""
    reported = completion.dollars
    if usage == completion.usage and reported is not None and reported.is_finite() and reported > 0:
        return reported
    if answered < 1:
        if reported is not None and reported.is_finite() and reported >= 0:
            return reported
        return Decimal(0) if call.request_dollars() is not None else None
    each = usage if answered == 1 else Usage(**{k: ceil(v / answered) for k, v in usage.model_dump().items()})
    price = model_dollars(call.model, each)
    if price is None:
        return reported if reported is not None and reported >= 0 else None
    return price * answered


def _is_unasked_priority(completion: Completion, call: PlannedCall) -> bool:
    tier = completion.fields.get("service_tier")
    return tier == "priority" and not any(options.get("service_tier") for options in call.all_options)


def _characters(message: Message) -> int:
    characters = len(text_of(message))
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        characters += len(str((function or {}).get("arguments") or ""))
    return characters


def _count_answers(messages: Sequence[Message], call: PlannedCall) -> int:
    """Tokens of what was received, thinking included."""
    thinking = (thinking_of(m, opaque=False) for m in messages)
    return sum(count_messages([m], call.count) for m in messages) + sum(call.count(t) for t in thinking if t)
