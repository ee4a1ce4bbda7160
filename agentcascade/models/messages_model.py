"""MessagesModel: chat models behind Anthropic's Messages API, whoever sends the requests."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal
from typing import Any, Protocol

from agentcascade.errors import InvalidRequest
from agentcascade.models.anthropic_quirks import MessagesQuirks, with_defaults
from agentcascade.models.endpoint import EndpointQuirks
from agentcascade.models.fan_out import fan_out, join_completions
from agentcascade.models.http_exchange import HttpExchange, watch_http
from agentcascade.models.response_reader import ResponseReader, StreamReader, billed_errors
from agentcascade.types import Completion, Delta, Message, Tool, Usage
from agentcascade.wire.anthropic_answer import read_answer
from agentcascade.wire.anthropic_request import PASSED, write_request
from agentcascade.wire.anthropic_stream import ChunkReader

HEADERS = "extra_headers"

OPTIONS = PASSED | {
    *("max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "tool_choice", "parallel_tool_calls"),
    *("response_format", "reasoning_effort", "user", "metadata", "extra_headers", "extra_body"),
}
"""Options of a chat request that it can say: a configured model with others goes by litellm."""
OF_CALLS = frozenset({"n", "tools", "timeout", "stream_options", "extra_query"})
"""Those that are no part of a request's body, or have arguments of their own."""


class Transport(Protocol):
    """Sends requests of the Messages API, within limits, watched by `http_exchange`."""

    @property
    def address(self) -> str:
        """Where they are sent."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """That go with every one of them, but for credentials."""
        ...

    async def send(self, body: dict[str, Any], headers: Mapping[str, str], seconds: float | None) -> Any:
        """The answer to a request, as plain data. Raises the provider's errors."""
        ...

    def events(self, body: dict[str, Any], headers: Mapping[str, str], seconds: float | None) -> AsyncIterator[Any]:
        """The events of a streamed answer, as plain data."""
        ...

    def translate(self, error: BaseException, exchange: HttpExchange) -> BaseException:
        """The error that says what happened."""
        ...


class MessagesModel:
    """A chat model behind a `Transport` of Anthropic's Messages API.

    Args:
        transport: Sends its requests.
        model: Its name at the API.
        name: What records call it; its quirks and the length of its answers are known by it.
        dollars: What usage of one request costs; None where the price is not known.
        fixed: Options that go with every call, before all others.
        temperature: Of every call that gives none; None: the API's own.
        exact: Temperature and seed are those of `fixed` or none, whatever a call says.
        quirks: What is known of the endpoint, where several models share it.
    """

    bills_failures = True
    """Errors carry what they cost (`errors.bill_of`); without a bill nothing was asked of the model."""
    speaks_messages = True
    """It takes all that the Messages API has, and not only what Chat Completions has as well."""

    def __init__(
        self,
        transport: Transport,
        model: str,
        *,
        name: str,
        dollars: Callable[[Usage], Decimal | None],
        fixed: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        exact: bool = False,
        quirks: MessagesQuirks | None = None,
    ) -> None:
        self.name: str = name
        self.endpoint: EndpointQuirks = EndpointQuirks()
        self.endpoint.supports_n = False
        self._transport, self._model, self._price = transport, model, dollars
        self._fixed, self._exact, self._temperature = dict(fixed or {}), exact, temperature
        self._quirks = quirks or MessagesQuirks()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def supports_n(self) -> bool:
        """Never: samples are requests of their own, of which each pays for its prompt."""
        return False

    @supports_n.setter
    def supports_n(self, value: bool) -> None:
        """The API has no `n`."""

    @property
    def refused(self) -> set[str]:
        """Parameters that the endpoint refuses."""
        return self._quirks.refused

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The options that go with every call."""
        return self._fixed

    @property
    def requested(self) -> Mapping[str, Any]:
        """Of those, what the caller of a wrapped client asks for."""
        return self._fixed if self._exact else {}

    def drops(self, options: Mapping[str, Any]) -> set[str]:
        """Names of those `options` that the Messages API has not, or that its endpoint was seen to refuse."""
        given = {name for name, value in options.items() if value is not None}
        return (given - OPTIONS - OF_CALLS) | (given & self.refused)

    def asked_with(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """All that it sends beside the messages, with its address: by this, equal requests are known."""
        given = self._given(options, options.get("temperature"))
        address, own = self._transport.address, dict(self._transport.headers)
        return {**given, HEADERS: {**own, **(given.get(HEADERS) or {})}, "address": address, "model": self._model}

    def _given(self, options: Mapping[str, Any], temperature: float | None) -> dict[str, Any]:
        """Options as they are sent: a caller's own are fixed."""
        given = {k: v for k, v in {**self._fixed, **options}.items() if v is not None}
        if self._exact:
            return given | self._fixed
        return given | {"temperature": self._temperature if temperature is None else temperature}

    def dollars(self, usage: Usage) -> Decimal | None:
        """What such usage of one request costs; None where the price is not known."""
        return self._price(usage)

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
        tools: Sequence[Tool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """`n` samples, each by a request of its own.

        Args:
            messages: The conversation, in the core's shape.
            n: Number of samples.
            temperature: Default: the model's own.
            seed: The API has none.
            tools: Function definitions in OpenAI's shape, or Anthropic's own tools.
            timeout: The most seconds of a request, retries included.
            options: As Chat Completions calls them; in ``extra_body`` and ``extra_headers``, Anthropic's own.

        Returns:
            A completion with up to `n` messages: of several requests those that fail are left out while one succeeds.

        Raises:
            ProviderError: What the API refused, or an answer that is no message.
            EmptyCompletion: No message came that says anything.
            TimeoutError: The deadline passed.
        """
        started = time.perf_counter()
        body, headers = self._request(messages, tools, temperature, options)

        async def ask(first: int, size: int) -> Completion:
            reader = ResponseReader(self.name, self.dollars, messages, tools)
            with watch_http() as exchange, billed_errors(reader, exchange, self._transport.translate):
                send = lambda b: self._transport.send(b, headers, timeout)  # noqa: E731
                answer = await self._adapted(send, body)
                exchange.check()
                return reader.read(read_answer(answer))

        parts = await fan_out(ask, self.name, n, self.endpoint)
        return join_completions(self.name, parts, time.perf_counter() - started)

    async def stream(
        self,
        messages: Sequence[Message],
        on_delta: Callable[[Delta], None],
        *,
        temperature: float | None = None,
        seed: int | None = None,
        tools: Sequence[Tool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """One answer, each delta of it to `on_delta` as it comes.

        Args and what is returned and raised: as of `complete`.

        Raises:
            BrokenStream: The stream ended before its answer did.
        """
        started = time.perf_counter()
        body, headers = self._request(messages, tools, temperature, options)
        reader = StreamReader(ResponseReader(self.name, self.dollars, messages, tools), on_delta)
        with watch_http(streamed=True) as exchange, billed_errors(reader, exchange, self._transport.translate):

            async def read(asked: dict[str, Any]) -> ChunkReader:
                chunks = ChunkReader()
                async with aclosing(self._transport.events(asked, headers, timeout)) as events:  # type: ignore[type-var]
                    async for event in events:
                        for chunk in chunks.read(event):
                            reader.read(chunk)
                return chunks

            chunks = await self._adapted(read, {**body, "stream": True})
            exchange.check()
            completion = reader.finish(chunks.done)
        return join_completions(self.name, [completion], time.perf_counter() - started)

    def _request(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None,
        temperature: float | None,
        options: Mapping[str, Any],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        given = self._given(options, temperature)
        headers = {str(k).lower(): str(v) for k, v in (given.pop(HEADERS, None) or {}).items()}
        body = write_request(self._model, messages, tools, given)
        return with_defaults(body, self.name, messages, given), headers

    def request_body(self, messages: Sequence[Message], options: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON body of the request that `complete` would send, for a provider's batch.

        Args:
            messages: The conversation, in the core's shape.
            options: As of `complete`, for one answer.

        Returns:
            The body, with what the endpoint may be known to refuse (`quirks`).

        Raises:
            InvalidRequest: Headers go with the request, which a batch does not have for each.
        """
        given = {k: v for k, v in options.items() if k not in ("n", "seed", "timeout")}
        body, headers = self._request(messages, given.pop("tools", None), given.pop("temperature", None), given)
        if headers:
            raise InvalidRequest(f"extra_headers ({', '.join(headers)[:80]}) cannot go with a request of a batch")
        return body

    @property
    def quirks(self) -> MessagesQuirks:
        """What is known of the endpoint."""
        return self._quirks

    async def _adapted(self, send: Callable[[dict[str, Any]], Awaitable[Any]], body: dict[str, Any]) -> Any:
        """`send(body)`, again without what the endpoint refuses of it, as long as that is something new."""
        body = self._quirks.adapt(body)
        while True:
            try:
                return await send(body)
            except Exception as error:
                changed = self._quirks.learn(error, body)
                if changed is None:
                    raise
                body = changed
