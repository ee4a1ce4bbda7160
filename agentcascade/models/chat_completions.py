"""Chat completions read, whatever client they came through: a `Completion` per provider request, and one bill.

Each request is priced on its own, so that a long-context tier is that request's; a failed request keeps its bill.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from agentcascade.errors import BrokenStream, EmptyCompletion, ProviderError, bill_of
from agentcascade.models import logprobs, message_fields
from agentcascade.models.deltas import MAX_TOOL_CALLS, DeltaAssembler
from agentcascade.models.http_watch import Watch
from agentcascade.models.quirks import ABOUT_N, REFUSED, Quirks
from agentcascade.models.usage import billed, counted
from agentcascade.types import Completion, Delta, Message, Tool, Usage

Dollars = Callable[[Usage], Decimal | None]
MOST_CHUNKS = 500_000
"""Chunks of one stream; the longest answers of today's models have a quarter of that."""
RETRY_LATER = range(400, 600)


class Request:
    """One request to a provider: who is asked, with what, at which price."""

    def __init__(
        self, model: str, dollars: Dollars, messages: Sequence[Message], tools: Sequence[Tool] | None, n: int = 1
    ) -> None:
        self.model, self.dollars, self.messages, self.tools, self.n = model, dollars, messages, tools, n

    def read(self, response: Any) -> Completion:
        """The answers and the bill of a response. Raises `ProviderError`, which holds the bill, for what is none."""
        complaint = _complaint(response)
        found = (
            []
            if complaint
            else [c for c in _listed(message_fields.get(response, "choices")) if _is_choice(c)][: self.n]
        )
        messages = [message_fields.message(message_fields.get(c, "message")) for c in found]
        if not complaint and any(len(_listed(m.get("tool_calls"))) > MAX_TOOL_CALLS for m in messages):
            complaint = ProviderError(f"{self.model}: the answer has more than {MAX_TOOL_CALLS:,} tool calls")
        raw = message_fields.get(response, "usage")
        if complaint is not None:
            if raw is not None:
                complaint.completion = self._completion([], [], [], raw)
            raise complaint
        answer = self._completion(messages, [_reason(c, m) for c, m in zip(found, messages)], found, raw)
        return answer.model_copy(update={"fields": message_fields.beside(response, "answer")})

    def _completion(
        self, messages: Sequence[Message], reasons: Sequence[str], choices: Sequence[Any], raw: Any
    ) -> Completion:
        usage, estimated = billed(raw, self.messages, messages, self.tools)
        beside = tuple(message_fields.beside(c, "choice") for c in choices)
        return Completion(
            model=self.model,
            messages=tuple(_sound(m) for m in messages),
            finish_reasons=tuple(reasons),
            usage=usage,
            dollars=self.dollars(usage),
            estimated=estimated,
            choice_fields=beside if any(beside) else (),
            **logprobs.fields([logprobs.told(c) for c in choices]),
        )

    def bill(self, error: BaseException, watch: Watch) -> None:
        """Note on `error` what the request may have cost, unless that is noted there already."""
        if bill_of(error) is None and watch.may_be_billed(error):
            nothing = Usage()
            _attach(
                error,
                Completion(
                    model=self.model, messages=(), usage=nothing, dollars=self.dollars(nothing), estimated=True, lost=1
                ),
            )


class Stream:
    """One streamed answer as it comes: its parts to `on_delta`, its message and bill at any time."""

    def __init__(self, request: Request, on_delta: Callable[[Delta], None]) -> None:
        self._request, self._on_delta = request, on_delta
        self._assembler = DeltaAssembler()
        self._usage: Any = None
        self._reason: str | None = None
        self._choice: dict[str, Any] = {}
        self._answer: dict[str, Any] = {}
        self._chunks = 0
        self.begun = False
        """Whether the caller has seen anything."""

    def take(self, chunk: Any) -> None:
        """One chunk. Raises `ProviderError` for an error that comes as a chunk, and for too many of them."""
        self._chunks += 1
        if self._chunks > MOST_CHUNKS:
            raise ProviderError(f"the stream of {self._request.model} has more than {MOST_CHUNKS:,} chunks")
        complaint = _complaint(chunk)
        if complaint is not None:
            raise complaint
        self._usage = message_fields.get(chunk, "usage") or self._usage
        answer = {k: v for k, v in message_fields.beside(chunk, "answer").items() if self._answer.get(k) != v}
        self._answer |= answer
        for choice in _listed(message_fields.get(chunk, "choices")):
            if not _is_choice(choice, "delta") or message_fields.get(choice, "index"):
                continue
            self._reason = message_fields.get(choice, "finish_reason") or self._reason
            beside = message_fields.beside(choice, "choice")
            for name, value in beside.items():
                self._choice[name] = message_fields.joined(self._choice.get(name), name, value, message_fields.CHOICE)
            self.show(message_fields.delta(message_fields.get(choice, "delta")), beside, answer)
            answer = {}

    def show(
        self, delta: Delta, choice: Mapping[str, Any] | None = None, answer: Mapping[str, Any] | None = None
    ) -> None:
        """A part of the message to the caller, with what the chunk says beside it."""
        if not delta.keys() - {"role"} and not (choice and self.begun):
            return
        self._assembler.add(delta)
        self.begun = True
        beside = {name: dict(found) for name, found in (("choice", choice), ("answer", answer)) if found}
        self._on_delta({**delta, message_fields.BESIDE: beside} if beside else delta)

    def end(self, done: bool) -> Completion:
        """The whole answer. Raises `BrokenStream` unless there was a finish reason or the stream said `done`."""
        if self._reason is None and not done:
            raise BrokenStream(f"the stream of {self._request.model} broke off before its end")
        return self._completion()

    def _completion(self) -> Completion:
        message = self._assembler.message
        choice = {"finish_reason": self._reason, **self._choice}
        made = self._request._completion([message], [_reason(choice, message)], [choice], self._usage)
        return made.model_copy(update={"fields": self._answer})

    def bill(self, error: BaseException, watch: Watch) -> None:
        """Note on `error` what came until then: counted, unless the server said more."""
        if bill_of(error) is not None:
            return
        if not self.begun and self._usage is None:
            self._request.bill(error, watch)
            return
        made = self._completion()
        least = counted(self._request.messages, [self._assembler.message], self._request.tools)
        if made.usage.completion < least.completion:
            usage = made.usage.model_copy(update={"output": least.completion, "reasoning": 0})
            made = made.model_copy(update={"usage": usage, "dollars": self._request.dollars(usage)})
        _attach(error, made.model_copy(update={"estimated": True, "messages": (), "finish_reasons": ()}))


async def fan_out(
    ask: Callable[[int, int], Awaitable[Completion]], model: str, n: int, quirks: Quirks
) -> list[Completion]:
    """`n` answers by `ask(first, how many)`: in one request where the server takes `n`, else in parallel ones.

    Of parallel requests those that fail are left out while one succeeds; their bills stay. When all fail the first
    error is raised, with the bill of all.
    """
    if n == 1 or not quirks.supports_n:
        return [await ask(0, 1)] if n == 1 else await _together(ask, model, range(n))
    try:
        first = await ask(0, n)
    except Exception as error:
        if getattr(error, "status_code", None) not in REFUSED or not ABOUT_N.search(str(error)):
            raise
        try:
            first = await ask(0, 1)  # it may be `n` that is refused: llama.cpp, Groq
        except Exception:
            raise error from None
    if len(first.messages) > 1 or first.calls > 1:
        quirks.confirmed_n = quirks.confirmed_n or len(first.messages) > 1
        return [first]
    if len(first.messages) == 1:  # some servers take `n` and ignore it
        known, quirks.supports_n = quirks.confirmed_n, False
        if known:  # one of several behind a name: more was not reserved
            return [first]
        try:
            return [first, *await _together(ask, model, range(1, n))]
        except Exception as error:
            return [first, *_bills([error])]
        except asyncio.CancelledError as error:
            _attach(error, summed(model, [first.model_copy(update=SILENT), *_bills([error])]))
            raise
    return [first]


SILENT: Mapping[str, Any] = {
    "messages": (), "finish_reasons": (), "logprobs": (), "tokens": (), "choice_fields": (), "fields": {}
}  # fmt: skip
"""A bill without what it was for."""


async def _together(ask: Callable[[int, int], Awaitable[Completion]], model: str, places: range) -> list[Completion]:
    tasks = [asyncio.ensure_future(ask(i, 1)) for i in places]
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError as error:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        came = [t.result().model_copy(update=SILENT) for t in tasks if not t.cancelled() and t.exception() is None]
        failed = _bills([_error_of(t) for t in tasks])
        if came or failed:
            _attach(error, summed(model, [*came, *failed]))
        raise
    results = [t.result() for t in tasks if t.exception() is None]
    errors = [e for t in tasks if (e := t.exception()) is not None]
    if results:
        return [*results, *_bills(errors)]
    bills = _bills(errors)
    if bills:
        _attach(errors[0], summed(model, bills))
    raise errors[0]


def _error_of(task: asyncio.Task[Completion] | asyncio.Future[Completion]) -> BaseException | None:
    try:
        return task.exception()
    except asyncio.CancelledError as error:
        return error


def _bills(errors: Sequence[BaseException | None]) -> list[Completion]:
    found = [bill_of(e) for e in errors if e is not None]
    return [bill.model_copy(update=SILENT) for bill in found if bill is not None]


def summed(model: str, parts: Sequence[Completion], seconds: float = 0.0) -> Completion:
    """All parts as one, with one bill."""
    bills = [p.dollars for p in parts]
    beside = tuple(c for p in parts for c in p.choice_fields or ({},) * len(p.messages))
    return Completion(
        model=model,
        messages=tuple(m for p in parts for m in p.messages),
        finish_reasons=tuple(f for p in parts for f in p.finish_reasons),
        usage=sum((p.usage for p in parts), Usage()),
        dollars=None if None in bills else sum((b for b in bills if b is not None), Decimal(0)),
        seconds=seconds,
        calls=sum(p.calls for p in parts),
        estimated=any(p.estimated for p in parts),
        lost=sum(p.lost for p in parts),
        fields=next((p.fields for p in parts if p.fields), {}),
        choice_fields=beside if any(beside) else (),
        **logprobs.merged(parts),
    )


def merged(model: str, parts: Sequence[Completion], seconds: float) -> Completion:
    """`summed`; raises `EmptyCompletion`, which holds all of it, when no answer says anything."""
    alone = len(parts) == 1
    completion = parts[0].model_copy(update={"seconds": seconds}) if alone else summed(model, parts, seconds)
    if any(message_fields.says_something(m) for m in completion.messages):
        return completion
    reasons = ", ".join(sorted(set(completion.finish_reasons))) or "none"
    empty = EmptyCompletion(
        f"{model} returned no message (finish reason {reasons}): see max_tokens, content filters and the model's name"
    )
    empty.completion = completion
    raise empty


def _attach(error: BaseException, bill: Completion) -> None:
    error.completion = bill  # type: ignore[attr-defined]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _is_choice(choice: Any, part: str = "message") -> bool:
    """Whether there is a message in it; a chunk's choice may lack its delta."""
    if part == "delta":
        return isinstance(choice, dict) or hasattr(choice, "finish_reason")
    return isinstance(message_fields.plain(message_fields.get(choice, part)), dict) if choice is not None else False


def _reason(choice: Any, message: Message) -> str:
    told = message_fields.get(choice, "finish_reason")
    return str(told) if told else "tool_calls" if message.get("tool_calls") else "stop"


def _sound(message: Message) -> Message:
    """The message with tool calls that are shaped like tool calls; arguments that are no text as JSON."""
    found = message.get("tool_calls")
    if found is None:
        return message
    calls = [c for c in (_call(call) for call in _listed(found)) if c is not None]
    if calls:
        return message if calls == found else {**message, "tool_calls": calls}
    return {k: v for k, v in message.items() if k != "tool_calls"}


def _call(call: Any) -> dict[str, Any] | None:
    call = message_fields.plain(call)
    if not isinstance(call, dict):
        return None
    function = message_fields.plain(call.get("function"))
    if not isinstance(function, dict):
        return call if call.get("type") not in (None, "function") else None
    arguments = function.get("arguments")
    if not isinstance(arguments, str):  # Ollama and others give an object
        function = {**function, "arguments": "" if arguments is None else json.dumps(arguments, default=str)}
    name = function.get("name")
    if not isinstance(name, str):
        function = {**function, "name": "" if name is None else str(name)}
    id = call.get("id")
    found = {**call, "id": id if isinstance(id, str) else "" if id is None else str(id), "function": function}
    return found if found.get("type") else {**found, "type": "function"}


def _complaint(response: Any) -> ProviderError | None:
    """The error that stands in a response with status 200, or what is no chat completion at all."""
    if isinstance(response, (str, bytes, int, float, list)) or response is None:
        said = " ".join(str(response)[:400].split())[:100]
        return ProviderError(f"the provider answered with something other than a chat completion: {said!r}")
    error = message_fields.get(response, "error")
    if not error:
        if message_fields.get(response, "object") != "error":  # vLLM's errors are whole objects, also as an event
            return None
        error = {
            "message": message_fields.get(response, "message") or "no reason given",
            "code": message_fields.get(response, "code"),
        }
    error = message_fields.plain(error)
    told = error if isinstance(error, dict) else {"message": error}
    code = told.get("code") or told.get("status") or told.get("status_code")
    code = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal() and len(code) == 3) else 0
    message = " ".join(str(told.get("message") or told)[:1000].split())[:300]
    return ProviderError(f"the provider answered with an error: {message}", code if code in RETRY_LATER else 502)
