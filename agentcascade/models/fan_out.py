"""Fan-out of n samples to a provider: one request where it takes `n`, else parallel ones; a completion of all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from agentcascade.errors import EmptyCompletion, bill_of
from agentcascade.models import logprobs, message_fields
from agentcascade.models.endpoint import EndpointQuirks
from agentcascade.models.quirks import N_REFUSED, PARAMETER_REFUSED
from agentcascade.types import Completion, Usage

WITHOUT_ANSWERS: Mapping[str, Any] = {
    "messages": (), "finish_reasons": (), "logprobs": (), "tokens": (), "choice_fields": (), "fields": {}
}  # fmt: skip
"""Changes that leave of a completion its bill."""

Ask = Callable[[int, int], Awaitable[Completion]]
"""`ask(first, size)`: one request for the samples `first` to `first` + `size`."""


async def fan_out(ask: Ask, model: str, n: int, quirks: EndpointQuirks) -> list[Completion]:
    """`n` samples: in one request where the endpoint takes `n`, else in parallel ones. What it takes, `quirks` learns.

    Of parallel requests those that fail are left out while one succeeds; their bills stay. When all fail the first
    error is raised, with the bill of all.
    """
    if n == 1:
        return [await ask(0, 1)]
    if not quirks.supports_n:
        return await _ask_in_parallel(ask, model, range(n))
    try:
        first = await ask(0, n)
    except Exception as error:
        if getattr(error, "status_code", None) not in PARAMETER_REFUSED or not N_REFUSED.search(str(error)):
            raise
        try:
            first = await ask(0, 1)  # it may be `n` that is refused
        except Exception:
            raise error from None
    if len(first.messages) > 1 or first.calls > 1:
        quirks.confirmed_n = quirks.confirmed_n or len(first.messages) > 1
        return [first]
    if len(first.messages) == 1:  # some servers take `n` and ignore it
        was_confirmed, quirks.supports_n = quirks.confirmed_n, False
        if was_confirmed:  # one of several behind a name: more was not reserved
            return [first]
        try:
            return [first, *await _ask_in_parallel(ask, model, range(1, n))]
        except Exception as error:
            return [first, *_bills_of([error])]
        except asyncio.CancelledError as error:
            attach_bill(error, sum_completions(model, [first.model_copy(update=WITHOUT_ANSWERS), *_bills_of([error])]))
            raise
    return [first]


async def _ask_in_parallel(ask: Ask, model: str, samples: range) -> list[Completion]:
    tasks = [asyncio.ensure_future(ask(sample, 1)) for sample in samples]
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError as error:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        done = [t.result() for t in tasks if not t.cancelled() and t.exception() is None]
        bills = [c.model_copy(update=WITHOUT_ANSWERS) for c in done] + _bills_of([_error_of(t) for t in tasks])
        if bills:
            attach_bill(error, sum_completions(model, bills))
        raise
    results = [t.result() for t in tasks if t.exception() is None]
    errors = [e for t in tasks if (e := t.exception()) is not None]
    bills = _bills_of(errors)
    if results:
        return [*results, *bills]
    if bills:
        attach_bill(errors[0], sum_completions(model, bills))
    raise errors[0]


def _error_of(task: asyncio.Future[Completion]) -> BaseException | None:
    try:
        return task.exception()
    except asyncio.CancelledError as error:
        return error


def _bills_of(errors: Sequence[BaseException | None]) -> list[Completion]:
    bills = [bill_of(error) for error in errors if error is not None]
    return [bill.model_copy(update=WITHOUT_ANSWERS) for bill in bills if bill is not None]


def attach_bill(error: BaseException, bill: Completion) -> None:
    """Note on `error` what the call that failed has cost: see `errors.bill_of`."""
    error.completion = bill  # type: ignore[attr-defined]


def sum_completions(model: str, parts: Sequence[Completion], seconds: float = 0.0) -> Completion:
    """All parts as one completion, with one bill; dollars are None where those of a part are not known."""
    dollars = [p.dollars for p in parts]
    choice_fields = tuple(c for p in parts for c in p.choice_fields or ({},) * len(p.messages))
    return Completion(
        model=model,
        messages=tuple(m for p in parts for m in p.messages),
        finish_reasons=tuple(f for p in parts for f in p.finish_reasons),
        usage=sum((p.usage for p in parts), Usage()),
        dollars=None if None in dollars else sum((d for d in dollars if d is not None), Decimal(0)),
        seconds=seconds,
        calls=sum(p.calls for p in parts),
        estimated=any(p.estimated for p in parts),
        lost=sum(p.lost for p in parts),
        fields=next((p.fields for p in parts if p.fields), {}),
        choice_fields=choice_fields if any(choice_fields) else (),
        **logprobs.join_fields(parts),
    )


def join_completions(model: str, parts: Sequence[Completion], seconds: float) -> Completion:
    """`sum_completions`; raises `EmptyCompletion`, which holds all of it, when no message has an answer."""
    if len(parts) == 1:
        completion = parts[0].model_copy(update={"seconds": seconds})
    else:
        completion = sum_completions(model, parts, seconds)
    if any(message_fields.has_answer(m) for m in completion.messages):
        return completion
    reasons = ", ".join(sorted(set(completion.finish_reasons))) or "none"
    empty = EmptyCompletion(
        f"{model} returned no message (finish reason {reasons}): see max_tokens, content filters and the model's name"
    )
    empty.completion = completion
    raise empty
