"""A chat model behind somebody's own OpenAI client: its key, its base URL, its retries, its HTTP settings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from functools import lru_cache
from typing import Any

import httpx
from openai import APIConnectionError, APIError, APIStatusError, AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI

from agentcascade._util import known_secrets
from agentcascade._util.threads import apart
from agentcascade.errors import BrokenStream, ProviderError
from agentcascade.models import chat_completions, http_transport
from agentcascade.models.http_watch import Watch, watched
from agentcascade.models.pricing import Price, PriceTable
from agentcascade.models.quirks import Quirks, adapted
from agentcascade.types import Completion, Delta, Message, Tool, Usage

TRANSPORT = {"timeout": "timeout", "extra_headers": "headers", "extra_query": "params", "extra_body": "extra_json"}
"""Arguments of `create` that are no part of the request's body, and what the client's `post` calls them."""
OURS = ("messages", "stream_options", "logprobs", "top_logprobs")
"""What is adapted to the endpoint also where the arguments are the caller's own."""


class ClientModel:
    """`model` through `client`. `fixed` arguments go with every call; the client's own retries apply.

    The price is litellm's only where the client talks to OpenAI or Azure themselves; give `prices` for other servers.
    `name` is what records call the model. With `exact`, temperature and seed are those of `fixed` or none. `plain`
    answers are not made into the client's own objects, which costs more than the request itself: for an `AsyncOpenAI`
    that nobody else knows. (What instruments a program's client watches its `create`.) `quirks` are what is known of
    the endpoint. `create` is called instead of ``client.chat.completions.create``, which may be the very client that a
    cascade was wrapped around.

    Requests go through a twin of the client that shares its connections, refuses redirects to another origin and
    bounds what is read of an answer.
    """

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
        quirks: Quirks | None = None,
        create: Callable[..., Any] | None = None,
    ) -> None:
        client = guarded(client)
        self._client, self._model, self._fixed, self._exact = client, model, dict(fixed or {}), exact
        self._plain = plain
        key = getattr(client, "api_key", None)
        known_secrets.register(key if isinstance(key, str) else None)
        known_secrets.register_fields(self._fixed)
        self.name = name or f"{provider(client)}/{model}"
        self.quirks = quirks or Quirks()
        if self.quirks.supports_n is None:
            self.quirks.supports_n = True
        self._price = prices.lookup(self.name) if prices else _price(self.name)
        self._create: Any = create or client.chat.completions.create

    @property
    def supports_n(self) -> bool:
        return bool(self.quirks.supports_n)

    @supports_n.setter
    def supports_n(self, value: bool) -> None:
        self.quirks.supports_n = value

    @property
    def confirmed_n(self) -> bool:
        """Whether the server ever gave several answers to one request; else each may have to be asked for."""
        return self.quirks.confirmed_n

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The options that go with every call."""
        return self._fixed

    @property
    def requested(self) -> Mapping[str, Any]:
        """Of those, what the caller of a wrapped client asks for."""
        return self._fixed if self._exact else {}

    bills_failures = True
    """Errors carry what they cost (`errors.bill_of`); without a bill nothing was asked of the model."""

    async def close_client(self) -> None:
        """For whoever made the client; one that a program wrapped stays open."""
        closing: Any = self._client.close()
        if closing is not None:
            await closing

    def dollars(self, usage: Usage) -> Decimal | None:
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
        """One request for `n` answers, or several where the server takes no `n`, with seeds `seed`, `seed` + 1 ….

        Of several those that fail are left out while at least one succeeds. Raises openai's own errors,
        `ProviderError`, and `EmptyCompletion`; see `errors.bill_of`.
        """
        started = time.perf_counter()
        own = {"temperature": temperature, "tools": tools, "timeout": timeout, **options}

        async def ask(first: int, size: int) -> Completion:
            """Answers `first` to `first` + `size`."""
            seeded = None if seed is None else seed + first
            arguments = self._arguments(messages, n=size if size > 1 else None, seed=seeded, **own)
            request = chat_completions.Request(self.name, self.dollars, messages, tools, size)
            with watched() as watch:
                try:
                    response = await self._adapted(self._send, arguments)
                    watch.check()
                    return request.read(response)
                except BaseException as error:
                    found = _named(error, watch)
                    request.bill(found, watch)
                    if found is error:
                        raise
                    raise found from error

        parts = await chat_completions.fan_out(ask, self.name, n, self.quirks)
        return chat_completions.merged(self.name, parts, time.perf_counter() - started)

    async def _adapted(self, send: Callable[[dict[str, Any]], Any], arguments: dict[str, Any]) -> Any:
        fixed = {k: v for k, v in arguments.items() if k not in OURS} if self._exact else {}
        return await adapted(send, arguments, self.quirks, fixed)

    async def _send(self, arguments: dict[str, Any]) -> Any:
        if self._plain:
            return await self._post(arguments)
        if isinstance(self._client, AsyncOpenAI):
            return await self._create(**arguments)
        return await apart(self._create, **arguments)

    async def _post(self, arguments: dict[str, Any]) -> Any:
        body = {k: v for k, v in arguments.items() if k not in TRANSPORT}
        options = {name: arguments[k] for k, name in TRANSPORT.items() if k in arguments}
        client: Any = self._client
        return await client.post("/chat/completions", cast_to=object, body=body, options=options)

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
        """One answer, live. Raises what `complete` raises, and `BrokenStream` for a stream that breaks off."""
        started = time.perf_counter()
        arguments = self._arguments(messages, seed=seed, tools=tools, timeout=timeout, **options)
        arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        stream = chat_completions.Stream(chat_completions.Request(self.name, self.dollars, messages, tools), on_delta)
        with watched(streamed=True) as watch:
            try:
                async for chunk in self._chunks(arguments):
                    stream.take(chunk)
                watch.check()
                completion = stream.end(watch.done)
            except BaseException as error:
                found = _named(error, watch)
                stream.bill(found, watch)
                if found is error:
                    raise
                raise found from error
        return chat_completions.merged(self.name, [completion], time.perf_counter() - started)

    async def _chunks(self, arguments: dict[str, Any]) -> AsyncIterator[Any]:
        if isinstance(self._client, AsyncOpenAI):
            async with await self._adapted(lambda a: self._create(**a), arguments) as stream:
                async for chunk in stream:
                    yield chunk
            return
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue()
        stream = await self._adapted(self._opened, arguments)
        gone = False

        def put(chunk: Any, error: BaseException | None) -> None:
            loop.call_soon_threadsafe(chunks.put_nowait, (chunk, error))

        def read() -> None:
            try:
                with closing(stream):
                    for chunk in stream:
                        if gone:
                            return
                        put(chunk, None)
                put(_END, None)
            except BaseException as error:
                if not gone:
                    put(None, error)

        reading = asyncio.ensure_future(apart(read))
        try:
            while True:
                chunk, error = await chunks.get()
                if error is not None:
                    raise error
                if chunk is _END:
                    return
                yield chunk
        finally:
            gone = True
            if not reading.done():
                stream.close()

    async def _opened(self, arguments: dict[str, Any]) -> Any:
        """A blocking client's stream; one that opens when nobody waits for it any more is closed at once."""
        opening = asyncio.ensure_future(apart(self._create, **arguments))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise


_END = object()
"""Behind the last chunk: a server may send `null` among them."""


def _close(opening: asyncio.Future[Any]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _named(error: BaseException, watch: Watch) -> BaseException:
    """The error that says what happened: reading was given up, or the answer could not be parsed."""
    if not isinstance(error, Exception) or isinstance(error, ProviderError):
        return error
    if watch.broken:
        try:
            watch.check()
        except ProviderError as found:
            return found
    if watch.state != "answering":
        return error
    cause = error.__cause__ if isinstance(error, APIConnectionError) else error
    if isinstance(cause, (ValueError, TypeError, AttributeError, RecursionError, UnicodeError)):
        return ProviderError(f"the provider answered with no chat completion: {type(cause).__name__}")
    if isinstance(cause, httpx.TimeoutException):
        return error
    if isinstance(cause, httpx.HTTPError):
        kind = BrokenStream if watch.streamed else ProviderError
        return kind(f"the provider's answer broke off before its end: {type(cause).__name__}")
    if isinstance(cause, APIError) and not isinstance(cause, (APIStatusError, APIConnectionError)):
        code = str(cause.code)  # an error that came as an event of the stream
        status = int(code) if len(code) == 3 and code.isdecimal() and code >= "400" else 502
        return ProviderError(f"the provider answered with an error: {cause.message[:300]}", status)
    return error


def guarded(client: Any) -> Any:
    """A copy of an OpenAI client whose HTTP is bounded: see `transport`. The client itself stays as it is."""
    if http_transport.is_guarded(client._client):
        return client
    twin = client.copy()
    twin._client = http_transport.guarded(client._client)
    return twin


def provider(client: OpenAI | AsyncOpenAI) -> str:
    """``openai`` or ``azure`` where the client talks to them, else the host's name: its prices are not theirs."""
    if isinstance(client, (AzureOpenAI, AsyncAzureOpenAI)):
        return "azure"
    host = client.base_url.host
    return "openai" if host == "openai.com" or host.endswith(".openai.com") else host


@lru_cache(maxsize=256)
def _price(name: str) -> Price | None:
    return PriceTable().lookup(name)
