"""AnthropicModel: Claude, and servers that speak Anthropic's Messages API, over HTTP without anything in between."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentcascade._util import known_secrets
from agentcascade.errors import ConfigError, ProviderError
from agentcascade.models.anthropic_quirks import MessagesQuirks
from agentcascade.models.clients_by_loop import ClientsByLoop
from agentcascade.models.http_exchange import HttpExchange, current_exchange, watch_http
from agentcascade.models.http_faults import what_happened
from agentcascade.models.messages_model import OPTIONS, MessagesModel
from agentcascade.models.pricing import PriceTable
from agentcascade.models.quirks import RETRIED, model_quirks
from agentcascade.models.retries import attempts
from agentcascade.models.server_events import read_events
from agentcascade.types import Message, Tool

if TYPE_CHECKING:
    import httpx

PREFIX = "anthropic/"
ADDRESS = "https://api.anthropic.com"
VERSION = "2023-06-01"
CREDENTIALS = frozenset({"x-api-key", "authorization"})
BASE_VARIABLES = ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL")
COUNTED = frozenset(
    {
        *("model", "messages", "system", "tools", "tool_choice", "thinking", "cache_control", "output_config", "speed"),
        *("context_management", "mcp_servers"),
    }
)
"""Fields of a request that make its prompt."""


class AnthropicRefusal(ProviderError):
    """An error of the Messages API, with its HTTP status, its ``body`` and ``response``."""

    def __init__(self, message: str, status_code: int, body: Any = None, response: Any = None) -> None:
        super().__init__(message, status_code)
        self.body: Any = body
        self.response: Any = response

    def __reduce__(self) -> tuple[type[AnthropicRefusal], tuple[Any, ...]]:
        return type(self), (str(self), self.status_code, self.body)


class AnthropicModel(MessagesModel):
    """A chat model at Anthropic's Messages API, named as litellm names it.

    Args:
        name: ``anthropic/claude-…``.
        prices: Where its price is looked up; default: litellm's bundled list. Without a price, dollars are None.
        temperature: Of every call that gives none; None: the API's own.
        max_tokens: The most tokens of an answer; None: the model's own, 32,000 at most.
        timeout: The most seconds of one call, retries included.
        retries: How often a request that failed in passing (HTTP 429, 5xx, 529, lost connections) is tried again.
        api_base: The server's address; None: from ``ANTHROPIC_API_BASE`` or ``ANTHROPIC_BASE_URL``, else Anthropic's.
        api_key: None: from ``ANTHROPIC_API_KEY``, or a token from ``ANTHROPIC_AUTH_TOKEN``.
        options: Goes with every call, such as ``{"thinking": {"type": "adaptive"}}``.
        model: Its name at the API; None: `name` without its prefix.

    >>> from agentcascade import Usage
    >>> float(AnthropicModel("anthropic/claude-sonnet-4-5").dollars(Usage(input=1_000_000)))
    3.0
    """

    def __init__(
        self,
        name: str,
        *,
        prices: PriceTable | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        api_base: str | None = None,
        api_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        model: str | None = None,
        quirks: MessagesQuirks | None = None,
        transport: AnthropicHttp | None = None,
    ) -> None:
        price = (prices or PriceTable()).lookup(name)
        known_secrets.register_fields(options or {}, configured=True)
        self.http: AnthropicHttp = transport or AnthropicHttp(api_base, api_key, timeout=timeout, retries=retries)
        super().__init__(
            self.http,
            model or name.removeprefix(PREFIX),
            name=name,
            dollars=lambda usage: price.dollars(usage) if price else None,
            fixed=dict(options or {}) | ({} if max_tokens is None else {"max_tokens": max_tokens}),
            temperature=temperature,
            quirks=quirks,
        )

    async def count_tokens(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None, options: Mapping[str, Any]
    ) -> int:
        """Tokens of a prompt, as the API counts them; nobody is billed for that.

        Raises:
            ProviderError: What the API refused, or an answer without a count.
        """
        body, headers = self._request(messages, tools, None, options)
        sent = {k: v for k, v in body.items() if k in COUNTED}
        with watch_http():
            answer = await self.http.send(sent, headers, None, "/messages/count_tokens")
        tokens = answer.get("input_tokens") if isinstance(answer, Mapping) else None
        if isinstance(tokens, bool) or not isinstance(tokens, int):
            raise ProviderError("the provider counts no tokens: its answer has no input_tokens")
        return tokens

    @property
    def api_base(self) -> str | None:
        """The server's address, as it is configured."""
        return self.http.api_base

    def prepare(self) -> None:
        """Make the running event loop's client now, which else the first call does."""
        self.http.prepare()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self.http.aclose()


class AnthropicHttp:
    """Requests to ``/v1/messages`` of one address, with one key or token.

    Args:
        base: The address; default: as of `AnthropicModel`.
        key: Likewise.
        timeout: The most seconds of one request, retries included.
        retries: How often a request that failed in passing is tried again.
    """

    def __init__(self, base: str | None, key: str | None, *, timeout: float, retries: int) -> None:
        self.api_base: str | None = base
        self._key, self._timeout, self._retries = key, timeout, retries
        known_secrets.register(key, *known_secrets.secrets_in_url(base or ""), configured=True)
        self._clients = ClientsByLoop(self._new_client)

    def url(self, path: str = "/messages") -> str:
        """The address of a route, whether or not the configured one names the API's version."""
        base = self.api_base or next((os.environ[v] for v in BASE_VARIABLES if os.environ.get(v)), ADDRESS)
        base = base.rstrip("/").removesuffix("/messages").removesuffix("/v1")
        return f"{base}/v1{path}"

    @property
    def address(self) -> str:
        """The address of its messages."""
        return self.url()

    @property
    def headers(self) -> Mapping[str, str]:
        """None of its own."""
        return {}

    async def send(
        self, body: dict[str, Any], headers: Mapping[str, str], seconds: float | None, path: str = "/messages"
    ) -> Any:
        """The answer to a request, as plain data."""

        async def ask() -> Any:
            response = await self._client().post(self.url(path), content=_encoded(body), headers=self._headers(headers))
            _raise_for_status(response)
            return json.loads(response.content)

        return await self._tried(ask, seconds)

    async def ask(self, method: str, path: str, content: bytes | None = None, *, seconds: float | None = None) -> Any:
        """The answer to a request of another route than messages, as plain data; tried once where `seconds` are given.

        Args:
            method: Of HTTP.
            path: Behind the API's version.
            content: A JSON body.
            seconds: The most seconds of the only attempt; None: passing failures are tried again.
        """

        async def once() -> Any:
            headers = self._headers({})
            response = await self._client().request(method, self.url(path), content=content, headers=headers)
            _raise_for_status(response)
            return json.loads(response.content)

        if seconds is None:
            return await self._tried(once, None)
        async with asyncio.timeout(seconds):
            return await once()

    async def read(self, path: str) -> AsyncIterator[bytes]:
        """The bytes of a file behind the API, as they come."""
        client = self._client()
        request = client.build_request("GET", self.url(path), headers=self._headers({}))
        response = await client.send(request, stream=True)
        try:
            if not response.is_success:
                await response.aread()
            _raise_for_status(response)
            async for chunk in response.aiter_bytes():
                yield chunk
        finally:
            await response.aclose()

    async def events(
        self, body: dict[str, Any], headers: Mapping[str, str], seconds: float | None
    ) -> AsyncIterator[Any]:
        """The events of a streamed answer, as plain data."""
        client = self._client()

        async def ask() -> Any:
            request = client.build_request("POST", self.url(), content=_encoded(body), headers=self._headers(headers))
            response = await client.send(request, stream=True)
            if not response.is_success:
                try:
                    await response.aread()
                    _raise_for_status(response)
                finally:
                    await response.aclose()
            return response

        async with asyncio.timeout(self._limit(seconds)):
            response = await self._tried(ask, None)
            try:
                async for event in read_events(response.aiter_bytes()):
                    yield event
            finally:
                await response.aclose()

    def translate(self, error: BaseException, exchange: HttpExchange) -> BaseException:
        """The error that says what happened: see `http_faults`."""
        return what_happened(error, exchange, "message")

    def prepare(self) -> None:
        """Make the running event loop's client now, which else the first call does."""
        self._clients.current()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        client = self._clients.pop()
        if client is not None:
            await client.aclose()

    def _limit(self, seconds: float | None) -> float:
        return self._timeout if seconds is None else min(seconds, self._timeout)

    def _headers(self, given: Mapping[str, str]) -> dict[str, str]:
        """Those of a request; what the caller gave wins, its own credentials too."""
        own: dict[str, str] = {}
        if not given.keys() & CREDENTIALS:
            key = self._key or os.environ.get("ANTHROPIC_API_KEY")
            token = os.environ.get("ANTHROPIC_AUTH_TOKEN")
            if not key and not token:
                raise ConfigError("there is no key for Anthropic's API: set api_key, or ANTHROPIC_API_KEY")
            known_secrets.register(key or token, configured=True)
            own = {"x-api-key": key} if key else {"authorization": f"Bearer {token}"}
        return {"anthropic-version": VERSION, "content-type": "application/json", **own, **given}

    async def _tried(self, ask: Any, seconds: float | None) -> Any:
        """What `ask` gives, tried again on passing failures within the deadline."""
        import httpx

        deadline = asyncio.get_running_loop().time() + self._limit(seconds)

        def is_passing(error: Exception) -> bool:
            exchange = current_exchange()
            if exchange is not None and exchange.broken:
                return False
            lost = isinstance(error, (httpx.TransportError, ConnectionError))
            return lost or getattr(error, "status_code", None) in RETRIED

        async with asyncio.timeout_at(deadline):
            async for attempt in attempts(is_passing, self._retries, deadline):
                with attempt:
                    return await ask()
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _client(self) -> httpx.AsyncClient:
        return self._clients.current()

    def _new_client(self) -> httpx.AsyncClient:
        from agentcascade.models.http_client import model_client

        return model_client(self._timeout + 1)


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=str).encode(errors="replace")


def _raise_for_status(response: httpx.Response) -> None:
    if response.is_success:
        return
    text = response.text[:100_000]
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    error = body.get("error") if isinstance(body, Mapping) else None
    said = error.get("message") if isinstance(error, Mapping) else error
    message = str(said or " ".join(text[:400].split()) or "no reason given")[:1000]
    raise AnthropicRefusal(f"the provider refused (status {response.status_code}): {message}", response.status_code,
                           body, response)  # fmt: skip


def takes_as_messages(name: str, options: Mapping[str, Any]) -> bool:
    """Whether `AnthropicModel` asks the model of a litellm name; not with options that only litellm knows."""
    return model_quirks(name).wire_format == "messages" and options.keys() <= OPTIONS
