"""ClientModel: a chat model behind somebody's own OpenAI client, with its key, base URL, retries and HTTP settings."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal
from functools import lru_cache
from typing import Any

from openai import APIConnectionError, APIError, APIStatusError, AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI

from agentcascade._util import known_secrets
from agentcascade._util.threads import apart
from agentcascade.errors import ProviderError
from agentcascade.models import http_limits
from agentcascade.models.blocking_stream import open_stream, read_in_thread
from agentcascade.models.endpoint import EndpointQuirks, send_adapted
from agentcascade.models.fan_out import fan_out, join_completions
from agentcascade.models.http_exchange import HttpExchange, watch_http
from agentcascade.models.http_faults import what_happened
from agentcascade.models.openai_create import without_walk
from agentcascade.models.openai_requests import OpenAIRequests
from agentcascade.models.pricing import Price, PriceTable
from agentcascade.models.provider_hosts import is_at_provider
from agentcascade.models.response_reader import ResponseReader, StreamReader, billed_errors
from agentcascade.types import Completion, Delta, Message, Tool, Usage

POST_OPTIONS = {
    "timeout": "timeout",
    "extra_headers": "headers",
    "extra_query": "params",
    "extra_body": "extra_json",
}
"""Arguments of `create` that are no part of the request's body, and what the client's `post` calls them."""
ALWAYS_ADAPTED = ("messages", "stream_options", "logprobs", "top_logprobs")
"""What is adapted to the endpoint also where the arguments are the caller's own."""


class ClientModel:
    """A chat model behind somebody's own OpenAI client, whose key, base URL, retries and HTTP settings apply.

    Requests go through a twin of the client that shares its connections, refuses redirects to another origin and
    limits what is read of an answer.

    Args:
        client: An ``OpenAI``, ``AsyncOpenAI`` or Azure client.
        model: Its name at the client's server.
        prices: Where its price is looked up. Default: litellm's bundled list where the client talks to OpenAI or Azure
            themselves; other servers have no price without it, and dollars are None.
        fixed: Arguments of ``create`` that go with every call, before all others.
        exact: Temperature and seed are those of `fixed` or none, whatever a call says.
        name: What records call the model; default: ``openai/MODEL``, ``azure/MODEL`` or ``HOST/MODEL``.
        plain: Answers are not made into the client's own objects, which costs more than the request itself. For an
            ``AsyncOpenAI`` that nobody else knows: what instruments a program's client watches its ``create``.
        endpoint: What is known of the endpoint, where several models share it.
        create: Called instead of ``client.chat.completions.create``, which may be that of a wrapped client.
    """

    bills_failures = True
    """Errors carry what they cost (`errors.bill_of`); without a bill nothing was asked of the model."""

    def __init__(
        self,
        client: OpenAI | AsyncOpenAI,
        model: str,
        *,
        prices: PriceTable | None = None,
        fixed: Mapping[str, Any] | None = None,
        exact: bool = False,
        name: str | None = None,
        plain: bool = False,
        endpoint: EndpointQuirks | None = None,
        create: Callable[..., Any] | None = None,
    ) -> None:
        client = limited_twin(client)
        self._client, self._model, self._fixed, self._exact = client, model, dict(fixed or {}), exact
        self._requests = OpenAIRequests(client) if plain and isinstance(client, AsyncOpenAI) else None
        key = getattr(client, "api_key", None)
        known_secrets.register(key if isinstance(key, str) else None)
        known_secrets.register_fields(self._fixed)
        self.name: str = name or f"{provider(client)}/{model}"
        self.endpoint: EndpointQuirks = endpoint or EndpointQuirks()
        if self.endpoint.supports_n is None:
            self.endpoint.supports_n = True
        self._price = prices.lookup(self.name) if prices else _listed_price(self.name)
        self._create: Any = None if self._requests else without_walk(create or client.chat.completions.create)

    @property
    def supports_n(self) -> bool:
        """Whether the server takes `n`, and so bills the prompt once for all samples."""
        return bool(self.endpoint.supports_n)

    @supports_n.setter
    def supports_n(self, value: bool) -> None:
        self.endpoint.supports_n = value

    @property
    def confirmed_n(self) -> bool:
        """Whether the server ever gave several answers to one request; else each may have to be asked for."""
        return self.endpoint.confirmed_n

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The options that go with every call."""
        return self._fixed

    @property
    def requested(self) -> Mapping[str, Any]:
        """Of those, what the caller of a wrapped client asks for."""
        return self._fixed if self._exact else {}

    def asked_with(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """All that it sends beside the messages, with its address: by this, equal requests are known."""
        sent = self._arguments((), **options)
        del sent["messages"]
        own = {str(k): str(v) for k, v in getattr(self._client, "_custom_headers", {}).items()}
        query = {str(k): str(v) for k, v in getattr(self._client, "_custom_query", {}).items()}
        headers = {**own, **(sent.get("extra_headers") or {})}
        api = getattr(self._create, "__qualname__", type(self._create).__name__)  # chat's, or that of Responses
        return {**sent, "extra_headers": headers, "address": str(self._client.base_url), "query": query, "api": api}

    @property
    def client(self) -> Any:
        """The client by which it asks: a twin of the one that was given, with limits on HTTP inside `watch_http`."""
        return self._client

    async def close_client(self) -> None:
        """For whoever made the client; one that a program wrapped stays open."""
        closing: Any = self._client.close()
        if closing is not None:
            await closing

    def dollars(self, usage: Usage) -> Decimal | None:
        """What such usage of one request costs; None where the price is not known."""
        return self._price.dollars(usage) if self._price else None

    def _arguments(self, messages: Sequence[Message], **given: Any) -> dict[str, Any]:
        """With `exact`, temperature and seed are the caller's own or none."""
        if self._exact:
            given = {k: v for k, v in given.items() if k not in ("seed", "temperature", "timeout")}
        given = {k: v for k, v in given.items() if v is not None and v != []}
        return {"model": self._model, "messages": list(messages), **given, **self._fixed}

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
        """`n` samples: one request, or several where the server takes no `n`, with seeds `seed`, `seed` + 1 ….

        Args:
            messages: The conversation, in OpenAI's shape.
            n: Number of samples.
            temperature: None: the server's own.
            seed: Of the first sample.
            tools: Function definitions in OpenAI's shape.
            timeout: Seconds of one request, as the client counts them.
            options: Anything else that ``create`` takes.

        Returns:
            A completion with up to `n` messages: of several requests those that fail are left out while at least one
            succeeds. `usage` is in tokens, `dollars` in US dollars or None, `seconds` wall-clock.

        Raises:
            openai.APIError: Or one of its subclasses: what the server refused.
            ProviderError: The server answered with what is no chat completion.
            EmptyCompletion: No message came that says anything.
        """
        started = time.perf_counter()
        given = {"temperature": temperature, "tools": tools, "timeout": timeout, **options}

        async def ask(first: int, size: int) -> Completion:
            """Samples `first` to `first` + `size`."""
            seeded = None if seed is None else seed + first
            arguments = self._arguments(messages, n=size if size > 1 else None, seed=seeded, **given)
            reader = ResponseReader(self.name, self.dollars, messages, tools, size)
            with watch_http() as exchange, billed_errors(reader, exchange, _what_happened):
                response = await self._send_adapted(self._send, arguments)
                exchange.check()
                return reader.read(response)

        parts = await fan_out(ask, self.name, n, self.endpoint)
        return join_completions(self.name, parts, time.perf_counter() - started)

    async def _send_adapted(self, send: Callable[[dict[str, Any]], Any], arguments: dict[str, Any]) -> Any:
        fixed = {k: v for k, v in arguments.items() if k not in ALWAYS_ADAPTED} if self._exact else {}
        return await send_adapted(send, arguments, self.endpoint, fixed)

    async def _send(self, arguments: dict[str, Any]) -> Any:
        if self._requests is not None:
            return await self._requests.post("/chat/completions", *_body_and_options(arguments))
        if isinstance(self._client, AsyncOpenAI):
            return await self._create(**arguments)
        return await apart(self._create, **arguments)

    async def stream(
        self,
        messages: Sequence[Message],
        on_delta: Callable[[Delta], None],
        *,
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
        arguments = self._arguments(messages, seed=seed, tools=tools, timeout=timeout, **options)
        arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        reader = StreamReader(ResponseReader(self.name, self.dollars, messages, tools), on_delta)
        with watch_http(streamed=True) as exchange, billed_errors(reader, exchange, _what_happened):
            async for chunk in self._chunks(arguments):
                reader.read(chunk)
            exchange.check()
            completion = reader.finish(exchange.done)
        return join_completions(self.name, [completion], time.perf_counter() - started)

    async def _open_stream(self, arguments: dict[str, Any]) -> Any:
        if self._requests is not None:
            return await self._requests.stream("/chat/completions", *_body_and_options(arguments))
        return await self._create(**arguments)

    async def _chunks(self, arguments: dict[str, Any]) -> AsyncIterator[Any]:
        if isinstance(self._client, AsyncOpenAI):
            async with await self._send_adapted(self._open_stream, arguments) as stream:
                async for chunk in stream:
                    yield chunk
            return
        blocking_stream = await self._send_adapted(lambda a: open_stream(self._create, a), arguments)
        async with aclosing(read_in_thread(blocking_stream)) as chunks:
            async for chunk in chunks:
                yield chunk


def _body_and_options(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of `create` as the body of its request, and as options of the client's `post`."""
    body = {k: v for k, v in arguments.items() if k not in POST_OPTIONS}
    return body, {name: arguments[k] for k, name in POST_OPTIONS.items() if k in arguments}


def _what_happened(error: BaseException, exchange: HttpExchange) -> BaseException:
    """`http_faults.what_happened`, and an error that came as an event of the stream."""
    cause = error.__cause__ if isinstance(error, APIConnectionError) else error
    happened = what_happened(error, exchange, "chat completion", cause)
    if happened is not error or exchange.state != "answering":
        return happened
    if isinstance(error, APIError) and not isinstance(error, (APIStatusError, APIConnectionError)):
        code = str(error.code)
        status = int(code) if len(code) == 3 and code.isdecimal() and code >= "400" else 502
        return ProviderError(f"the provider answered with an error: {error.message[:300]}", status)
    return error


def limited_twin(client: Any) -> Any:
    """A copy of an OpenAI client whose HTTP is limited: see `http_limits`. The client itself stays as it is."""
    if http_limits.is_limited(client._client):
        return client
    twin = client.copy()
    twin._client = http_limits.limited_twin(client._client)
    return twin


def provider(client: OpenAI | AsyncOpenAI) -> str:
    """``openai`` or ``azure`` where the client talks to them, else the host's name: its prices are not theirs."""
    host = client.base_url.host
    if isinstance(client, (AzureOpenAI, AsyncAzureOpenAI)):
        return "azure" if is_at_provider("azure/", str(client.base_url)) else host
    return "openai" if host == "openai.com" or host.endswith(".openai.com") else host


@lru_cache(maxsize=256)
def _listed_price(name: str) -> Price | None:
    return PriceTable().lookup(name)
