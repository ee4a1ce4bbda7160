"""LiteLLMModel: any provider's chat models through litellm, with retries within one deadline and exact dollars."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

from agentcascade._util import known_secrets
from agentcascade.errors import BrokenStream, ProviderError
from agentcascade.models import litellm_stream
from agentcascade.models.endpoint import EndpointQuirks, send_adapted
from agentcascade.models.fan_out import fan_out, join_completions
from agentcascade.models.http_exchange import HttpExchange, watch_http
from agentcascade.models.json_schema import check_inlined
from agentcascade.models.litellm_setup import import_litellm
from agentcascade.models.pricing import PriceTable
from agentcascade.models.quirks import RETRIED, model_quirks
from agentcascade.models.response_reader import ResponseReader, StreamReader, billed_errors
from agentcascade.models.retries import attempts
from agentcascade.models.tool_call_ids import ends_in_unthinking_calls
from agentcascade.types import Completion, Delta, Message, Tool, Usage
from agentcascade.wire.chat_only import as_chat, tools_as_chat

ADDRESS_VARIABLE = re.compile(r"(?:_BASE|_BASE_URL|_ENDPOINT|_REGION|_REGION_NAME|_PROJECT|_LOCATION|_API_VERSION)$")
"""Environment variables in which litellm looks for where a model is."""


class LiteLLMModel:
    """A chat model of any provider that litellm knows, e.g. ``openai/gpt-4.1-mini`` or ``anthropic/…``.

    Args:
        name: litellm's name of the model.
        prices: Where its price is looked up; default: litellm's bundled list. Without a price, dollars are None.
        temperature: Of every call that gives none; None: the provider's own.
        max_tokens: The most tokens of an answer; None: the provider's own limit.
        timeout: The most seconds of one call, retries included.
        retries: How often a request that failed in passing (HTTP 429, 5xx, lost connections) is tried again.
        api_base: The provider's address; None: litellm's own, or what its environment variables say.
        api_key: The provider's key; None: from litellm's environment variables.
        options: Goes with every call, such as ``{"top_p": 0.9}``.

    >>> from agentcascade import LiteLLMModel, Usage
    >>> float(LiteLLMModel("openai/gpt-4.1-mini").dollars(Usage(input=1_000_000, output=1_000_000)))
    2.0
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
        self.name = name
        self.endpoint: EndpointQuirks = EndpointQuirks(
            name
        )  # litellm leaves out what it knows that the provider does not take
        self._quirks = model_quirks(name)
        self._price = (prices or PriceTable()).lookup(name)
        self._temperature, self._timeout, self._retries = temperature, timeout, retries
        given = {"max_tokens": max_tokens, "api_base": api_base, "api_key": api_key}
        self._options = {k: v for k, v in given.items() if v is not None} | dict(options or {})
        known_secrets.register_fields(self._options, configured=True)

    def __repr__(self) -> str:
        return f"LiteLLMModel({self.name!r})"

    @property
    def supports_n(self) -> bool:
        """Whether the provider takes `n`, and so bills the prompt once for all samples."""
        if self.endpoint.supports_n is None:
            supports_n = self._quirks.supports_n
            if supports_n is None:
                supports_n = "n" in (import_litellm().get_supported_openai_params(self.name) or ())
            self.endpoint.supports_n = supports_n
        return self.endpoint.supports_n

    @supports_n.setter
    def supports_n(self, value: bool) -> None:
        self.endpoint.supports_n = value

    @property
    def confirmed_n(self) -> bool:
        """Whether the provider ever gave several answers to one request; else each may have to be asked for."""
        return self.endpoint.confirmed_n

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The options that go with every call."""
        return self._options

    def drops(self, options: Mapping[str, Any]) -> set[str]:
        """Of `options` that OpenAI's API has, those that litellm leaves out: the provider has no such parameter."""
        return {name for name in options if name in self._unsupported and options[name] is not None}

    @cached_property
    def _unsupported(self) -> frozenset[str]:
        from agentcascade.models.openai import create_parameters

        ours = {"timeout", "extra_headers", "extra_query", "extra_body", "stream_options", "n"}
        all_names = create_parameters() | {"thinking"}
        supported = import_litellm().get_supported_openai_params(self.name) or all_names
        return all_names - ours - set(supported)

    def asked_with(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """All that it sends beside the messages, with its addresses: by this, equal requests are known.

        Args:
            options: Of a call.
        """
        given = {k: v for k, v in options.items() if v is not None}
        return {"temperature": self._temperature, **self._options, **given, "addresses": self._addresses}

    @cached_property
    def _addresses(self) -> list[tuple[str, str]]:
        return sorted((name, value) for name, value in os.environ.items() if ADDRESS_VARIABLE.search(name))

    def dollars(self, usage: Usage) -> Decimal | None:
        """What such usage of one request costs; None where the price is not known."""
        return self._price.dollars(usage) if self._price else None

    def prepare(self) -> None:
        """Import litellm now, which else the first call does."""
        import_litellm()

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
        """`n` samples: one request where the provider takes `n`, else parallel ones with seeds `seed`, `seed` + 1 ….

        Args:
            messages: The conversation, in OpenAI's shape.
            n: Number of samples.
            temperature: Default: the model's own.
            seed: Of the first sample.
            tools: Function definitions in OpenAI's shape.
            timeout: The most seconds, retries included, if below the model's own.
            options: Anything else that litellm takes, such as ``max_tokens`` or ``response_format``.

        Returns:
            A completion with up to `n` messages: of parallel requests those that fail are left out while at least one
            succeeds. `usage` is in tokens, `dollars` in US dollars or None, `seconds` wall-clock.

        Raises:
            litellm.exceptions.APIError: Or another class of litellm's: what the provider refused.
            ProviderError: The provider answered with what is no chat completion.
            EmptyCompletion: No message came that says anything.
            TimeoutError: The deadline passed.
        """
        litellm = import_litellm()
        if temperature is not None:
            options["temperature"] = temperature
        started, deadline, request = self._request(messages, tools, timeout, options)

        async def ask(first: int, size: int) -> Completion:
            """Samples `first` to `first` + `size`, in one request that is tried again on passing failures."""
            reader = ResponseReader(self.name, self.dollars, messages, tools, size)
            with watch_http() as exchange, billed_errors(reader, exchange, _what_stopped_reading):
                async with asyncio.timeout_at(deadline):
                    send = lambda r: self._with_retries(litellm, r, deadline, exchange)  # noqa: E731
                    response = await send_adapted(send, request | _sampling(size, seed, first), self.endpoint, {})
                exchange.check()
                return reader.read(response)

        self.endpoint.supports_n = self.supports_n
        parts = await fan_out(ask, self.name, n, self.endpoint)
        return join_completions(self.name, parts, time.perf_counter() - started)

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
        """Stream one answer to `on_delta`, with the arguments, result and errors of `LiteLLMModel.complete`.

        Each delta is handed out as it comes; a request is tried again only while none was.

        Raises:
            BrokenStream: The stream ended before its answer did.
        """
        litellm = import_litellm()
        started, deadline, request = self._request(messages, tools, timeout, options)
        request |= {"stream": True, "stream_options": {"include_usage": True}} | _sampling(1, seed, 0)
        reader = StreamReader(ResponseReader(self.name, self.dollars, messages, tools), on_delta)
        with watch_http(streamed=True) as exchange, billed_errors(reader, exchange, _what_stopped_reading):
            async with asyncio.timeout_at(deadline):
                send = lambda r: self._with_retries(litellm, r, deadline, exchange, reader)  # noqa: E731
                completion = await send_adapted(send, request, self.endpoint, {})
        return join_completions(self.name, [completion], time.perf_counter() - started)

    def _request(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None,
        timeout: float | None,
        options: Mapping[str, Any],
    ) -> tuple[float, float, dict[str, Any]]:
        """When it began, the deadline on the loop's clock, and what litellm is asked."""
        limit = self._timeout if timeout is None else min(timeout, self._timeout)
        request = dict(self._options) | dict(options)
        # litellm's own limit only stops what a cancelled task cannot: the thread of a provider without async code.
        caches = self._quirks.signs_thinking  # Claude behind Bedrock, Vertex and others
        tools = tools_as_chat(tools, caches=caches)
        request |= {"model": self.name, "messages": list(as_chat(messages, caches=caches)), "timeout": limit + 1}
        request |= {"num_retries": 0, "max_retries": 0, "drop_params": True}
        if self._quirks.inlines_references:
            for what, schema in (("tools", tools), ("response_format", request.get("response_format"))):
                if schema and '"$ref"' in json.dumps(schema, default=str):
                    check_inlined(schema, what)
        temperature = request.get("temperature", self._temperature)
        if temperature is not None:
            request["temperature"] = temperature
        if tools:
            # litellm would load its MCP gateway (seconds, and packages that it does not install) to look for MCP tools.
            request |= {"tools": list(tools), "_skip_mcp_handler": True}
        if self._quirks.signs_thinking and ends_in_unthinking_calls(messages):
            request = {k: v for k, v in request.items() if k not in ("thinking", "reasoning_effort")}
        return time.perf_counter(), asyncio.get_running_loop().time() + limit, request

    async def _send(self, litellm: Any, request: Mapping[str, Any]) -> Any:
        return await litellm.acompletion(**request)

    async def _with_retries(
        self,
        litellm: Any,
        request: dict[str, Any],
        deadline: float,
        exchange: HttpExchange,
        reader: StreamReader | None = None,
    ) -> Any:
        """litellm's response; with `reader`, the whole answer that went there."""

        def is_passing(error: Exception) -> bool:
            if exchange.broken or (reader is not None and reader.has_shown):
                return False
            return _is_passing(litellm, error)

        async for attempt in attempts(is_passing, self._retries, deadline):
            with attempt:
                response = await self._send(litellm, request)
                if reader is None:
                    return response
                finished = await litellm_stream.read_stream(response, reader)
                exchange.check()
                if not finished and not exchange.done:
                    raise BrokenStream(f"the stream of {self.name} broke off before its end")
                return reader.finish(True)
        raise AssertionError("unreachable: the last attempt returns or raises")


def _sampling(n: int, seed: int | None, offset: int) -> dict[str, Any]:
    sampling: dict[str, Any] = {"n": n} if n > 1 else {}
    return sampling if seed is None else sampling | {"seed": seed + offset}


def _is_passing(litellm: Any, error: Exception) -> bool:
    if isinstance(error, litellm.exceptions.ContextWindowExceededError):
        return False
    return getattr(error, "status_code", None) in RETRIED or isinstance(error, (ConnectionError, TimeoutError))


def _what_stopped_reading(error: BaseException, exchange: HttpExchange) -> BaseException:
    """What stopped the reading of an answer, rather than what litellm made of the rest; else `error` itself."""
    if isinstance(error, Exception) and exchange.broken:
        try:
            exchange.check()
        except ProviderError as stopped:
            return stopped
    return error
