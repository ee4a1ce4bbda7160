"""AnthropicClientModel: a chat model behind somebody's own Anthropic client, with its key, address and settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from anthropic import APIConnectionError, APIStatusError, AsyncStream, Stream
from anthropic._base_client import AsyncAPIClient

from agentcascade._util import known_secrets
from agentcascade._util.threads import apart
from agentcascade.errors import ProviderError
from agentcascade.models.anthropic import PREFIX
from agentcascade.models.anthropic_quirks import MessagesQuirks
from agentcascade.models.blocking_stream import open_stream, read_in_thread
from agentcascade.models.http_exchange import HttpExchange
from agentcascade.models.http_faults import what_happened
from agentcascade.models.http_limits import CODINGS
from agentcascade.models.messages_model import MessagesModel
from agentcascade.models.pricing import PriceTable

PATH = "/v1/messages"
SECRETS = ("api_key", "auth_token", "access_token", "aws_secret_key", "aws_session_token")
ACCEPTED = ", ".join(CODINGS)
"""What the limits of HTTP ask for: said before a request is signed (AWS), since its headers are signed as well."""
NOT_PASSED = ("extra_json", "post_parser", "follow_redirects")
"""Options of a request that the model's own requests have otherwise."""


class AnthropicClientModel(MessagesModel):
    """A chat model behind a client of Anthropic's SDK: ``Anthropic``, ``AsyncAnthropicBedrock`` and so on.

    Args:
        client: Its HTTP must be limited: see `http_limits`.
        model: Its name at the client's server.
        prices: Where its price is looked up.
        fixed: Options that go with every call, before all others.
        exact: Temperature is that of `fixed` or none, whatever a call says.
        options: Of the client's requests: headers, timeout and so on.
        path: Of its requests.
        post: Sends them; default: the client's own ``post``.
        quirks: What is known of the model there.
    """

    def __init__(
        self,
        client: Any,
        model: str,
        *,
        prices: PriceTable | None = None,
        fixed: Mapping[str, Any] | None = None,
        exact: bool = False,
        options: Mapping[str, Any] | None = None,
        path: str = PATH,
        post: Callable[..., Any] | None = None,
        quirks: MessagesQuirks | None = None,
    ) -> None:
        secrets = [getattr(client, name, None) for name in SECRETS]
        known_secrets.register(*(secret for secret in secrets if isinstance(secret, str)))
        name = f"{_provider(client)}/{model}"
        price = (prices or PriceTable()).lookup(name)
        super().__init__(
            SdkTransport(client, post or client.post, path, options or {}),
            model,
            name=name,
            dollars=lambda usage: price.dollars(usage) if price else None,
            fixed=fixed,
            exact=exact,
            quirks=quirks,
        )


def _provider(client: Any) -> str:
    """The provider in litellm's names where the client talks to it, else the host's name: its prices are not theirs."""
    host = client.base_url.host
    kinds = " ".join(kind.__name__ for kind in type(client).__mro__)
    hosts = ((PREFIX.rstrip("/"), "Anthropic", "anthropic.com"), ("bedrock", "Bedrock", "amazonaws.com"),
             ("vertex_ai", "Vertex", "googleapis.com"))  # fmt: skip
    return next((p for p, kind, own in hosts if kind in kinds and f".{host}".endswith(f".{own}")), host)


class SdkTransport:
    """Requests by an Anthropic client's own ``post``, whichever class of client it is."""

    def __init__(self, client: Any, post: Callable[..., Any], path: str, options: Mapping[str, Any]) -> None:
        self._is_async, self._post, self._path = isinstance(client, AsyncAPIClient), post, path
        self._options = {k: v for k, v in options.items() if k not in NOT_PASSED}
        self.address: str = f"{client.base_url}{path}?{options.get('params') or ''}"
        given = {**getattr(client, "_custom_headers", {}), **(self._options.get("headers") or {})}
        self.headers: Mapping[str, str] = {str(k): str(v) for k, v in given.items()}

    async def send(self, body: dict[str, Any], headers: Mapping[str, str], seconds: float | None) -> Any:
        """The answer to a request, as plain data."""
        arguments = self._arguments(body, headers)
        if self._is_async:
            return await self._post(**arguments)
        return await apart(self._post, **arguments)

    async def events(
        self, body: dict[str, Any], headers: Mapping[str, str], seconds: float | None
    ) -> AsyncIterator[Any]:
        """The events of a streamed answer, as plain data."""
        kind: Any = AsyncStream if self._is_async else Stream
        arguments = self._arguments(body, headers) | {"stream": True, "stream_cls": kind[object]}
        if self._is_async:
            async with await self._post(**arguments) as stream:
                async for event in stream:
                    yield event
            return
        blocking = await open_stream(self._post, arguments)
        async with aclosing(read_in_thread(blocking)) as events:
            async for event in events:
                yield event

    def translate(self, error: BaseException, exchange: HttpExchange) -> BaseException:
        """The error that says what happened: see `http_faults`; also one that came as an event of the stream."""
        happened = what_happened(
            error, exchange, "message", error.__cause__ if isinstance(error, APIConnectionError) else error
        )
        if happened is error and exchange.state == "answering" and isinstance(error, APIStatusError):
            return ProviderError(f"the provider answered with an error: {error.message[:300]}", _status(error))
        return happened

    def _arguments(self, body: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        given = self._options.get("headers") or {}
        options = {**self._options, "headers": {"accept-encoding": ACCEPTED, **given, **headers}}
        return {"path": self._path, "cast_to": object, "body": body, "options": options}


def _status(error: APIStatusError) -> int:
    from agentcascade.wire.anthropic_answer import STATUSES

    body = error.body if isinstance(error.body, Mapping) else {}
    inner = body.get("error")
    kind = inner.get("type") if isinstance(inner, Mapping) else None
    return STATUSES.get(str(kind), 502)
