"""OpenAIModel: OpenAI and servers that speak its API, by OpenAI's own client, with less work in between than litellm.

litellm translates for a hundred providers; where there is nothing to translate, the way through it costs several times
what the request itself does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentcascade._util import known_secrets
from agentcascade.models import message_fields
from agentcascade.models.clients_by_loop import ClientsByLoop
from agentcascade.models.endpoint import EndpointQuirks
from agentcascade.models.pricing import PriceTable
from agentcascade.models.provider_hosts import environment_base, is_at_provider
from agentcascade.models.quirks import ModelQuirks, model_quirks
from agentcascade.types import Completion, Delta, Message, Tool, Usage
from agentcascade.wire.chat_only import as_chat, tools_as_chat

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from agentcascade.models.openai_client import ClientModel

NOT_IN_BODIES = frozenset({"timeout", "extra_headers", "extra_query", "stream", "stream_options"})
TRANSPORT = frozenset({"timeout", "extra_headers", "extra_query", "extra_body"})
"""Arguments of `create` that are no part of the request's body."""
NO_KEY = "none"
"""Sent where a key must be sent and the server asks for none."""


def needs_no_translation(name: str, api_base: str | None, options: Mapping[str, Any]) -> bool:
    """Whether the model of a litellm name takes OpenAI's requests as they are: see `quirks.ModelQuirks.wire_format`."""
    quirks = model_quirks(name)
    is_openai = quirks.wire_format == "openai" or (
        quirks.wire_format == "openai at an address" and bool(api_base or _environment_address(quirks))
    )
    return is_openai and options.keys() <= create_parameters()


def _environment_address(quirks: ModelQuirks) -> str | None:
    variable = quirks.base_url_variable
    return environment_base("openai") if variable is None else os.environ.get(variable) or None


def loopback_key(name: str, api_base: str | None) -> str | None:
    """`NO_KEY` for ``openai/…`` at a loopback address when no key is set: servers of one's own rarely ask for one."""
    base = api_base or environment_base("openai")
    if not name.startswith("openai/") or not base or os.environ.get("OPENAI_API_KEY"):
        return None
    host = urlsplit(base).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return NO_KEY
    try:
        return NO_KEY if ip_address(host).is_loopback else None
    except ValueError:
        return None


@cache
def create_parameters() -> frozenset[str]:
    """What ``chat.completions.create`` of OpenAI's client takes, but for what every call gives.

    The SDK says it twice; the class of `create` comes with all others of its API, half of what a server loads of it.
    """
    from openai.types.chat.completion_create_params import CompletionCreateParamsBase as Fields

    return (Fields.__required_keys__ | Fields.__optional_keys__ | TRANSPORT) - {"messages", "model"}


class OpenAIModel:
    """A chat model at an OpenAI-compatible address, by OpenAI's own client, named as litellm names it.

    Args:
        name: ``openai/…`` or ``hosted_vllm/…``.
        prices: Where its price is looked up; default: litellm's bundled list. Without a price, dollars are None.
        temperature: Of every call that gives none; None: the server's own.
        max_tokens: The most tokens of an answer; None: the server's own limit.
        timeout: The most seconds of one call, retries included.
        retries: How often OpenAI's client tries a request again.
        api_base: The server's address; None: from ``OPENAI_BASE_URL`` (``OPENAI_API_BASE``) or, of ``hosted_vllm/…``,
            ``HOSTED_VLLM_API_BASE``; else OpenAI's own.
        api_key: None: from ``OPENAI_API_KEY`` or ``HOSTED_VLLM_API_KEY``.
        options: Goes with every call, such as ``{"top_p": 0.9}``.
    """

    bills_failures = True
    """Errors carry what they cost (`errors.bill_of`); without a bill nothing was asked of the model."""

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
    ) -> None:
        self.name: str = name
        self.endpoint: EndpointQuirks = EndpointQuirks(name)
        self.endpoint.supports_n = True
        self._provider, _, self._model = name.partition("/")
        self._quirks = model_quirks(name)
        self._prices = prices or PriceTable()
        self._price = self._prices.lookup(name)
        self._temperature, self._timeout, self._retries = temperature, timeout, retries
        self._base, self._key = api_base, api_key
        known_secrets.register(api_key, *known_secrets.secrets_in_url(api_base or ""), configured=True)
        known_secrets.register_fields(options or {}, configured=True)
        self._options = dict(options or {}) | ({} if max_tokens is None else {"max_tokens": max_tokens})
        self._clients = ClientsByLoop(self._new_client_model)

    def __repr__(self) -> str:
        return f"OpenAIModel({self.name!r})"

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
        return self._options

    @property
    def api_base(self) -> str | None:
        """The server's address, as it is configured."""
        return self._base

    def drops(self, options: Mapping[str, Any]) -> set[str]:
        """Names of those `options` that OpenAI itself has not, and would refuse."""
        if not self._is_at_openai:
            return set()
        return {name for name in options if name not in create_parameters() and options[name] is not None}

    def asked_with(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """All that it sends beside the messages, with its address: by this, equal requests are known."""
        base = self._address()
        given = {k: v for k, v in options.items() if v is not None}
        own = {"temperature": self._temperature, **self._options}
        return {**own, **given, "address": base or "", "adapter": type(self).__name__}

    def dollars(self, usage: Usage) -> Decimal | None:
        """What such usage of one request costs; None where the price is not known."""
        return self._price.dollars(usage) if self._price else None

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
        """`n` samples: one request, or parallel ones where the server ignores or refuses `n`.

        Args:
            messages: The conversation, in OpenAI's shape.
            n: Number of samples.
            temperature: Default: the model's own.
            seed: Of the first sample; parallel requests count on from it.
            tools: Function definitions in OpenAI's shape.
            timeout: The most seconds, retries included, if below the model's own.
            options: Anything else that ``create`` takes; what it does not goes into the body, but not to OpenAI itself.

        Returns:
            A completion with up to `n` messages. `usage` is in tokens, `dollars` in US dollars or None.

        Raises:
            openai.APIError: Or one of its subclasses: what the server refused.
            ProviderError: The server answered with what is no chat completion.
            EmptyCompletion: No message came that says anything.
            TimeoutError: The deadline passed.
        """
        limit = self._limit(timeout)
        async with asyncio.timeout(limit):
            return await self._client_model().complete(
                self._sendable(messages),
                n=n,
                temperature=self._temperature if temperature is None else temperature,
                seed=seed,
                tools=tools_as_chat(tools),
                timeout=limit + 1,
                **self._create_arguments(options),
            )

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
        limit = self._limit(timeout)
        options.setdefault("temperature", self._temperature)
        arguments = self._create_arguments(options)
        async with asyncio.timeout(limit):
            return await self._client_model().stream(
                self._sendable(messages),
                on_delta,
                seed=seed,
                tools=tools_as_chat(tools),
                timeout=limit + 1,
                **arguments,
            )

    def request_body(self, messages: Sequence[Message], options: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON body of the request that `complete` would send, for a provider's batch.

        Args:
            messages: The conversation, in OpenAI's shape.
            options: As of `complete`; `n` and `tools` among them.

        Returns:
            The body, with what the endpoint may be known to refuse (`endpoint`); headers and time limits are left out.
        """
        given = dict(options)
        n, tools = given.pop("n", None), tools_as_chat(given.pop("tools", None))
        given.setdefault("temperature", self._temperature)
        arguments = self._create_arguments({k: v for k, v in given.items() if k not in NOT_IN_BODIES})
        arguments |= {"n": n if n and n > 1 else None, "tools": list(tools) if tools else None}
        extra = arguments.pop("extra_body", None) or {}
        body = {"model": self._model, "messages": list(self._sendable(messages)), **arguments, **extra}
        return {k: v for k, v in body.items() if v is not None}

    def sdk_client(self) -> AsyncOpenAI:
        """OpenAI's client of the running event loop, with this model's key and address."""
        client: AsyncOpenAI = self._client_model().client
        return client

    def _sendable(self, messages: Sequence[Message]) -> Sequence[Message]:
        """OpenAI knows no thinking in messages; others want that of tool calls back (DeepSeek), or refuse it once."""
        messages = as_chat(messages)
        if all(message_fields.is_portable(m) for m in messages):
            return messages
        return [m if m.get("tool_calls") and not self._is_at_openai else message_fields.portable(m) for m in messages]

    def _limit(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else min(timeout, self._timeout)

    def _create_arguments(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options that the client takes; others go to the body, but not to OpenAI itself, which refuses them."""
        given = {k: v for k, v in (self._options | dict(options)).items() if v is not None}
        arguments = {k: v for k, v in given.items() if k in create_parameters()}
        others = {k: v for k, v in given.items() if k not in arguments}
        if others and not self._is_at_openai:
            arguments["extra_body"] = others | (arguments.get("extra_body") or {})
        return arguments

    def prepare(self) -> None:
        """Make the running event loop's client now, which else the first call does."""
        self._clients.current()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        model = self._clients.pop()
        if model is not None:
            await model.close_client()

    def _address(self) -> str | None:
        return self._base or _environment_address(self._quirks)

    @property
    def _is_at_openai(self) -> bool:
        """Whether OpenAI itself is asked, which refuses what it does not know."""
        own = self._base is None and self._provider == "openai"
        return own and is_at_provider("openai/any", None)

    def _client_model(self) -> ClientModel:
        return self._clients.current()

    def _new_client_model(self) -> ClientModel:
        from openai import AsyncOpenAI

        from agentcascade.models.http_client import model_client

        base = self._address()
        key_variable = self._quirks.api_key_variable
        key = self._key or (os.environ.get(key_variable) or NO_KEY if key_variable else None)
        seconds = self._timeout + 1
        # the SDK's own client would close itself in whichever loop runs when it is collected, and fail there
        http = model_client(seconds)
        return self._chat_client(
            AsyncOpenAI(api_key=key, base_url=base, max_retries=self._retries, timeout=seconds, http_client=http)
        )

    def _chat_client(self, client: Any) -> ClientModel:
        """What asks for the model through a client that is this model's own."""
        from agentcascade.models.openai_client import ClientModel

        return ClientModel(
            client, self._model, prices=self._prices, name=self.name, plain=True, endpoint=self.endpoint
        )  # fmt: skip
