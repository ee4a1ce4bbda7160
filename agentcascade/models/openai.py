"""OpenAI and servers that speak its API, by OpenAI's own client: the same answers and bills, less work in between.

litellm translates for a hundred providers; where there is nothing to translate, the way through it costs several times
what the request itself does.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from agentcascade._util import known_secrets
from agentcascade.models import message_fields
from agentcascade.models.pricing import PriceTable
from agentcascade.models.quirks import Quirks
from agentcascade.types import Completion, Delta, Message, Tool, Usage

if TYPE_CHECKING:
    from agentcascade.models.openai_client import ClientModel

TRANSLATED = re.compile(r"(?:ft:)?(?:gpt-[5-9]|o\d|codex|computer-use|gpt-audio|gpt-4o.*(?:audio|search))|.*/")
"""OpenAI's models whose requests differ, and names with a route in them: left to litellm."""
OWN = re.compile(r"(?:ft:)?(?:gpt-3\.5|gpt-4|chatgpt-4)")
"""OpenAI's models that take requests as they are, at OpenAI's own address."""


def speaks_plainly(name: str, api_base: str | None, options: Mapping[str, Any]) -> bool:
    """Whether a litellm name needs no translation: ``hosted_vllm/…``, ``openai/…`` with an address or of the GPT-4s."""
    provider, _, model = name.partition("/")
    if not options.keys() <= arguments() | {"extra_body", "extra_headers"}:
        return False
    if provider == "hosted_vllm":
        return bool(api_base or os.environ.get("HOSTED_VLLM_API_BASE"))
    if provider != "openai" or (not api_base and not OWN.match(model)):
        return False
    return TRANSLATED.match(model) is None


NO_KEY = "none"
"""Sent where a key must be sent and the server asks for none."""


def stand_in_key(name: str, api_base: str | None) -> str | None:
    """`NO_KEY` for ``openai/…`` at a loopback address when no key is set: servers of one's own rarely ask for one."""
    base = api_base or os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
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
def arguments() -> frozenset[str]:
    """What OpenAI's client takes."""
    from openai.resources.chat.completions import AsyncCompletions

    return frozenset(inspect.signature(AsyncCompletions.create).parameters) - {"self", "messages", "model", "stream"}


class OpenAIModel:
    """A chat model at an OpenAI-compatible address, named as litellm names it. The arguments are `LiteLLMModel`'s.

    Raises openai's own errors (of which litellm's are subclasses), `TimeoutError` past the deadline of one call,
    retries included, and `EmptyCompletion`.
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
    ) -> None:
        self.name, self.quirks = name, Quirks()
        self.quirks.supports_n = True
        self._provider, _, self._model = name.partition("/")
        self._prices = prices or PriceTable()
        self._price = self._prices.lookup(name)
        self._temperature, self._timeout, self._retries = temperature, timeout, retries
        self._base, self._key = api_base, api_key
        known_secrets.register(api_key, *known_secrets.of_url(api_base or ""))
        known_secrets.register_fields(options or {})
        self._options = dict(options or {}) | ({} if max_tokens is None else {"max_tokens": max_tokens})
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, ClientModel] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"OpenAIModel({self.name!r})"

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
        return self._options

    bills_failures = True
    """Errors carry what they cost (`errors.bill_of`); without a bill nothing was asked of the model."""

    def dollars(self, usage: Usage) -> Decimal | None:
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
        """`n` samples: one request, or parallel ones where the server ignores `n`."""
        limit = self._limit(timeout)
        async with asyncio.timeout(limit):
            return await self._here().complete(
                self._sent(messages),
                n=n,
                temperature=self._temperature if temperature is None else temperature,
                seed=seed,
                tools=tools,
                timeout=limit + 1,
                **self._known(options),
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
        """One answer, live. Raises `ConnectionError` for a stream that breaks off."""
        limit = self._limit(timeout)
        options.setdefault("temperature", self._temperature)
        async with asyncio.timeout(limit):
            return await self._here().stream(
                self._sent(messages), on_delta, seed=seed, tools=tools, timeout=limit + 1, **self._known(options)
            )

    def _sent(self, messages: Sequence[Message]) -> Sequence[Message]:
        """OpenAI knows no thinking in messages; others want that of tool calls back (DeepSeek), or refuse it once."""
        if not any(message_fields.own(m) for m in messages):
            return messages
        theirs = self._base is not None or self._provider != "openai" or "OPENAI_API_BASE" in os.environ
        return [m if theirs and m.get("tool_calls") else message_fields.public(m) for m in messages]

    def _limit(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else min(timeout, self._timeout)

    def _known(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options that the client takes; others go to the body, but not to OpenAI itself, which refuses them."""
        asked = {k: v for k, v in (self._options | dict(options)).items() if v is not None}
        known = {k: v for k, v in asked.items() if k in arguments()}
        others = {k: v for k, v in asked.items() if k not in known}
        if others and (self._base or self._provider == "hosted_vllm"):
            known["extra_body"] = others | (known.get("extra_body") or {})
        return known

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        model = self._clients.pop(asyncio.get_running_loop(), None)
        if model is not None:
            await model.close_client()

    def _here(self) -> ClientModel:
        """A client's connections belong to one event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient

            from agentcascade.models.http_transport import guard
            from agentcascade.models.openai_client import ClientModel

            hosted = self._provider == "hosted_vllm"
            base = self._base or os.environ.get("HOSTED_VLLM_API_BASE" if hosted else "OPENAI_API_BASE") or None
            key = self._key or (os.environ.get("HOSTED_VLLM_API_KEY") or NO_KEY if hosted else None)
            # the SDK's own client would close itself in whichever loop runs when it is collected, and fail there
            http = DefaultAsyncHttpxClient()
            guard(http)
            client = AsyncOpenAI(
                api_key=key, base_url=base, max_retries=self._retries, timeout=self._timeout + 1, http_client=http
            )
            self._clients[loop] = ClientModel(
                client, self._model, prices=self._prices, name=self.name, plain=True, quirks=self.quirks
            )
        return self._clients[loop]
