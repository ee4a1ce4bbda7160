"""Chat completions of providers, whole or streamed, read into a `Completion` with its bill, for every adapter.

Each request is priced on its own, so that a long-context tier is that request's; a failed request keeps its bill.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Protocol

from agentcascade.errors import BrokenStream, ProviderError, bill_of
from agentcascade.models import logprobs, message_fields
from agentcascade.models.deltas import MAX_TOOL_CALLS, DeltaAssembler
from agentcascade.models.fan_out import attach_bill
from agentcascade.models.http_exchange import HttpExchange
from agentcascade.models.quirks import ERROR_CODE_FIELDS
from agentcascade.models.usage import count_usage, usage_or_estimate
from agentcascade.types import Completion, Delta, Message, Tool, Usage

MAX_CHUNKS = 500_000
"""Of one stream; the longest answers of today's models have a quarter of that."""
ERROR_STATUSES = range(400, 600)


class Reader(Protocol):
    """Reads what came of one request, and knows what it may have cost."""

    def bill(self, error: BaseException, exchange: HttpExchange) -> None:
        """Note on `error` what the request may have cost, unless that is noted there already."""


@contextmanager
def billed_errors(
    reader: Reader, exchange: HttpExchange, translate: Callable[[BaseException, HttpExchange], BaseException]
) -> Iterator[None]:
    """Whatever is raised inside carries its bill; `translate` says by which error of ours it is replaced, if any."""
    try:
        yield
    except BaseException as error:
        raised = translate(error, exchange)
        reader.bill(raised, exchange)
        if raised is error:
            raise
        raise raised from error


class ResponseReader:
    """Reads the response to one request: who was asked, with what, at which price."""

    def __init__(
        self,
        model: str,
        dollars: Callable[[Usage], Decimal | None],
        messages: Sequence[Message],
        tools: Sequence[Tool] | None,
        n: int = 1,
    ) -> None:
        self.model: str = model
        self.messages: Sequence[Message] = messages
        self.tools: Sequence[Tool] | None = tools
        self.n: int = n
        self.dollars = dollars

    def read(self, response: Any) -> Completion:
        """The answers and the bill of a response. Raises `ProviderError`, which holds the bill, for what is none."""
        error = _error_in(response)
        listed = [] if error else _list_or_empty(message_fields.get_field(response, "choices"))
        said = [(c, message_fields.to_plain(message_fields.get_field(c, "message"))) for c in listed if c is not None]
        said = [(c, m) for c, m in said if isinstance(m, dict)][: self.n]
        choices, messages = [c for c, _ in said], [message_fields.read_message(m) for _, m in said]
        if not error and any(len(_list_or_empty(m.get("tool_calls"))) > MAX_TOOL_CALLS for m in messages):
            error = ProviderError(f"{self.model}: the answer has more than {MAX_TOOL_CALLS:,} tool calls")
        usage = message_fields.get_field(response, "usage")
        if error is not None:
            if usage is not None:
                error.completion = self.completion([], [], usage)
            raise error
        fields = message_fields.extra_fields(response, "answer")
        return self.completion(messages, choices, usage, fields)

    def completion(
        self,
        messages: Sequence[Message],
        choices: Sequence[Any],
        usage_report: Any,
        fields: Mapping[str, Any] | None = None,
    ) -> Completion:
        usage, estimated = usage_or_estimate(usage_report, self.messages, messages, self.tools)
        choice_fields = tuple(message_fields.extra_fields(c, "choice") for c in choices)
        return Completion(
            model=self.model,
            messages=tuple(_with_sound_calls(m) for m in messages),
            finish_reasons=tuple(_finish_reason(c, m) for c, m in zip(choices, messages)),
            usage=usage,
            dollars=self.dollars(usage),
            estimated=estimated,
            fields=fields or {},
            choice_fields=choice_fields if any(choice_fields) else (),
            **logprobs.completion_fields([logprobs.read_logprobs(c) for c in choices]),
        )

    def bill(self, error: BaseException, exchange: HttpExchange) -> None:
        """Note on `error` what the request may have cost, unless that is noted there already."""
        if bill_of(error) is None and exchange.may_be_billed(error):
            lost = Completion(
                model=self.model, messages=(), usage=Usage(), dollars=self.dollars(Usage()), estimated=True, lost=1
            )
            attach_bill(error, lost)


class StreamReader:
    """Reads one streamed answer: its deltas to `on_delta` as they come, its message and bill at any time."""

    def __init__(self, request: ResponseReader, on_delta: Callable[[Delta], None]) -> None:
        self._request, self._on_delta = request, on_delta
        self._assembler = DeltaAssembler()
        self._usage: Any = None
        self._finish_reason: str | None = None
        self._choice_fields: dict[str, Any] = {}
        self._answer_fields: dict[str, Any] = {}
        self._chunks = 0
        self.has_shown: bool = False
        """Whether the caller has seen anything."""

    def read(self, chunk: Any) -> None:
        """One chunk. Raises `ProviderError` for an error that comes as a chunk, and for too many of them."""
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise ProviderError(f"the stream of {self._request.model} has more than {MAX_CHUNKS:,} chunks")
        error = _error_in(chunk)
        if error is not None:
            raise error
        self._usage = message_fields.get_field(chunk, "usage") or self._usage
        fields = message_fields.extra_fields(chunk, "answer")
        new_fields = {k: v for k, v in fields.items() if self._answer_fields.get(k) != v}
        self._answer_fields |= new_fields
        for choice in _list_or_empty(message_fields.get_field(chunk, "choices")):
            if not _is_chunk_choice(choice) or message_fields.get_field(choice, "index"):
                continue
            self._finish_reason = message_fields.get_field(choice, "finish_reason") or self._finish_reason
            choice_fields = message_fields.extra_fields(choice, "choice")
            for name, value in choice_fields.items():
                joined = message_fields.join_choice_field(self._choice_fields.get(name), name, value)
                self._choice_fields[name] = joined
            delta = message_fields.read_delta(message_fields.get_field(choice, "delta"))
            self.show(delta, choice_fields, new_fields)
            new_fields = {}

    def show(
        self,
        delta: Delta,
        choice_fields: Mapping[str, Any] | None = None,
        answer_fields: Mapping[str, Any] | None = None,
    ) -> None:
        """A delta to the caller, with what the chunk says beside it."""
        if not delta.keys() - {"role"} and not (choice_fields and self.has_shown):
            return
        self._assembler.add(delta)
        self.has_shown = True
        both = (("choice", choice_fields), ("answer", answer_fields))
        extra = {name: dict(fields) for name, fields in both if fields}
        self._on_delta({**delta, message_fields.EXTRA: extra} if extra else delta)

    def finish(self, done: bool) -> Completion:
        """The whole answer. Raises `BrokenStream` unless there was a finish reason or the stream said `done`."""
        if self._finish_reason is None and not done:
            raise BrokenStream(f"the stream of {self._request.model} broke off before its end")
        return self._completion()

    def _completion(self) -> Completion:
        choice = {"finish_reason": self._finish_reason, **self._choice_fields}
        return self._request.completion([self._assembler.message], [choice], self._usage, self._answer_fields)

    def bill(self, error: BaseException, exchange: HttpExchange) -> None:
        """Note on `error` what came until then: counted, unless the server said more."""
        if bill_of(error) is not None:
            return
        if not self.has_shown and self._usage is None:
            self._request.bill(error, exchange)
            return
        completion = self._completion()
        counted = count_usage(self._request.messages, [self._assembler.message], self._request.tools)
        if completion.usage.completion < counted.completion:
            usage = completion.usage.model_copy(update={"output": counted.completion, "reasoning": 0})
            completion = completion.model_copy(update={"usage": usage, "dollars": self._request.dollars(usage)})
        attach_bill(error, completion.model_copy(update={"estimated": True, "messages": (), "finish_reasons": ()}))


def _list_or_empty(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _is_chunk_choice(choice: Any) -> bool:
    """A chunk's choice may lack its delta."""
    return isinstance(choice, dict) or hasattr(choice, "finish_reason")


def _finish_reason(choice: Any, message: Message) -> str:
    reason = message_fields.get_field(choice, "finish_reason")
    return str(reason) if reason else "tool_calls" if message.get("tool_calls") else "stop"


def _with_sound_calls(message: Message) -> Message:
    """The message with tool calls that are shaped like tool calls; arguments that are no text as JSON."""
    calls = message.get("tool_calls")
    if calls is None:
        return message
    sound = [c for c in (_sound_call(call) for call in _list_or_empty(calls)) if c is not None]
    if sound:
        return message if sound == calls else {**message, "tool_calls": sound}
    return {k: v for k, v in message.items() if k != "tool_calls"}


def _sound_call(call: Any) -> dict[str, Any] | None:
    call = message_fields.to_plain(call)
    if not isinstance(call, dict):
        return None
    function = message_fields.to_plain(call.get("function"))
    if not isinstance(function, dict):
        return call if call.get("type") not in (None, "function") else None
    arguments = function.get("arguments")
    if not isinstance(arguments, str):  # Ollama and others give an object
        function = {**function, "arguments": "" if arguments is None else json.dumps(arguments, default=str)}
    name = function.get("name")
    if not isinstance(name, str):
        function = {**function, "name": "" if name is None else str(name)}
    id = call.get("id")
    sound = {**call, "id": id if isinstance(id, str) else "" if id is None else str(id), "function": function}
    return sound if sound.get("type") else {**sound, "type": "function"}


def _error_in(response: Any) -> ProviderError | None:
    """The error that stands in a response with status 200, or what is no chat completion at all."""
    if isinstance(response, (str, bytes, int, float, list)) or response is None:
        text = " ".join(str(response)[:400].split())[:100]
        return ProviderError(f"the provider answered with something other than a chat completion: {text!r}")
    error = message_fields.get_field(response, "error")
    if not error:
        if message_fields.get_field(response, "object") != "error":  # vLLM's errors are whole objects, also as an event
            return None
        error = {
            "message": message_fields.get_field(response, "message") or "no reason given",
            "code": message_fields.get_field(response, "code"),
        }
    error = message_fields.to_plain(error)
    body = error if isinstance(error, dict) else {"message": error}
    code = next((body[name] for name in ERROR_CODE_FIELDS if body.get(name)), None)
    status = (
        int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal() and len(code) == 3) else 0
    )
    message = " ".join(str(body.get("message") or body)[:1000].split())[:300]
    return ProviderError(f"the provider answered with an error: {message}", status if status in ERROR_STATUSES else 502)
