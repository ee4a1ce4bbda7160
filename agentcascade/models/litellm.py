"""Real chat models, through litellm: n samples, retries within one deadline, full usage, exact dollars."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from agentcascade._util import known_secrets
from agentcascade.errors import BrokenStream, ProviderError
from agentcascade.models import chat_completions, litellm_http, litellm_stream
from agentcascade.models.http_watch import Watch, watched
from agentcascade.models.json_schema import check_inlined
from agentcascade.models.pricing import PriceTable
from agentcascade.models.quirks import Quirks, adapted
from agentcascade.models.tool_call_ids import ends_in_unthinking_calls
from agentcascade.types import Completion, Delta, Message, Tool, Usage

RETRIED = {408, 409, 429, 500, 502, 503, 504, 529}
"""HTTP statuses worth another try."""

INLINES = ("gemini", "vertex", "bedrock", "fireworks")
"""In names of models for whose APIs litellm inlines the references of schemas, without a bound."""
REFUSES_N = {"groq"}
"""Providers whose endpoint refuses n > 1 although litellm lists the parameter."""


def import_litellm() -> Any:
    """litellm, without its price-list download and chatter."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm_http.install(litellm)
    return litellm


class LiteLLMModel:
    """Any model that litellm knows, e.g. ``openai/gpt-4.1-mini``, ``anthropic/…`` or ``hosted_vllm/…``.

    `timeout` is the wall-clock limit in seconds of one `complete`, retries included. `prices` defaults to litellm's
    bundled list; without a price, dollars are None.
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
        self.name = name
        self.quirks = Quirks()  # litellm leaves out what it knows that the provider does not take
        self._price = (prices or PriceTable()).lookup(name)
        self._temperature, self._timeout, self._retries = temperature, timeout, retries
        given = {"max_tokens": max_tokens, "api_base": api_base, "api_key": api_key}
        self._options = {k: v for k, v in given.items() if v is not None} | dict(options or {})
        known_secrets.register_fields(self._options)

    def __repr__(self) -> str:
        return f"LiteLLMModel({self.name!r})"

    @property
    def supports_n(self) -> bool:
        """Whether the provider takes `n`, and so bills the prompt once for all samples."""
        if self.quirks.supports_n is None:
            listed = import_litellm().get_supported_openai_params(self.name) or ()
            self.quirks.supports_n = "n" in listed and self.name.split("/")[0] not in REFUSES_N
        return self.quirks.supports_n

    @supports_n.setter
    def supports_n(self, value: bool) -> None:
        self.quirks.supports_n = value

    @property
    def confirmed_n(self) -> bool:
        """Whether the provider ever gave several answers to one request; else each may have to be asked for."""
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
        """`n` samples: one request where the provider takes `n`, else parallel ones with seeds `seed`, `seed` + 1 ….

        Of parallel requests those that fail are left out while at least one succeeds. Raises the provider's own error
        (litellm's classes), `TimeoutError` past the deadline, `EmptyCompletion` when no message came.
        """
        litellm = import_litellm()
        if temperature is not None:
            options["temperature"] = temperature
        started, deadline, asked = self._request(messages, tools, timeout, options)

        async def ask(first: int, size: int) -> Completion:
            """Answers `first` to `first` + `size`, in one request that is tried again on passing failures."""
            request = chat_completions.Request(self.name, self.dollars, messages, tools, size)
            with watched() as watch:
                try:
                    async with asyncio.timeout_at(deadline):
                        send = lambda r: self._with_retries(litellm, r, deadline, watch)  # noqa: E731
                        response = await adapted(send, asked | _sampling(size, seed, first), self.quirks, {})
                    watch.check()
                    return request.read(response)
                except BaseException as error:
                    found = _named(error, watch)
                    request.bill(found, watch)
                    if found is error:
                        raise
                    raise found from error

        self.quirks.supports_n = self.supports_n
        parts = await chat_completions.fan_out(ask, self.name, n, self.quirks)
        return chat_completions.merged(self.name, parts, time.perf_counter() - started)

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
        """One answer, each part of it to `on_delta` as it comes. Tried again only while nothing was handed out.

        Raises what `complete` raises, and `BrokenStream` for a stream that ends before its answer does.
        """
        litellm = import_litellm()
        started, deadline, asked = self._request(messages, tools, timeout, options)
        asked |= {"stream": True, "stream_options": {"include_usage": True}} | _sampling(1, seed, 0)
        stream = chat_completions.Stream(chat_completions.Request(self.name, self.dollars, messages, tools), on_delta)
        with watched(streamed=True) as watch:
            try:
                async with asyncio.timeout_at(deadline):
                    send = lambda r: self._with_retries(litellm, r, deadline, watch, stream)  # noqa: E731
                    completion = await adapted(send, asked, self.quirks, {})
            except BaseException as error:
                found = _named(error, watch)
                stream.bill(found, watch)
                if found is error:
                    raise
                raise found from error
        return chat_completions.merged(self.name, [completion], time.perf_counter() - started)

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
        request |= {"model": self.name, "messages": list(messages), "timeout": limit + 1}
        request |= {"num_retries": 0, "max_retries": 0, "drop_params": True}
        if any(api in self.name for api in INLINES):
            for what, schema in (("tools", tools), ("response_format", request.get("response_format"))):
                if schema and '"$ref"' in json.dumps(schema, default=str):
                    check_inlined(schema, what)
        temperature = request.get("temperature", self._temperature)
        if temperature is not None:
            request["temperature"] = temperature
        if tools:
            # litellm would load its MCP gateway (seconds, and packages that it does not install) to look for MCP tools.
            request |= {"tools": list(tools), "_skip_mcp_handler": True}
        if "claude" in self.name and ends_in_unthinking_calls(messages):
            request = {k: v for k, v in request.items() if k not in ("thinking", "reasoning_effort")}
        return time.perf_counter(), asyncio.get_running_loop().time() + limit, request

    async def _send(self, litellm: Any, request: Mapping[str, Any]) -> Any:
        return await litellm.acompletion(**request)

    async def _with_retries(
        self,
        litellm: Any,
        request: dict[str, Any],
        deadline: float,
        watch: Watch,
        stream: chat_completions.Stream | None = None,
    ) -> Any:
        """litellm's response; with `stream`, the whole answer that went there."""
        import stamina

        def again(error: Exception) -> bool | float:
            """Whether to try again; a number of seconds where the provider names one, unless they are not left."""
            if watch.broken or not _is_passing(litellm, error) or (stream is not None and stream.begun):
                return False
            wait = retry_after(error)
            if wait is None:
                return True
            return wait if asyncio.get_running_loop().time() + wait < deadline else False

        async for attempt in stamina.retry_context(
            on=again, attempts=self._retries + 1, timeout=None, wait_initial=0.25, wait_max=20.0, wait_jitter=0.5
        ):
            with attempt:
                answer = await self._send(litellm, request)
                if stream is None:
                    return answer
                finished = await litellm_stream.read(answer, stream)
                watch.check()
                if not finished and not watch.done:
                    raise BrokenStream(f"the stream of {self.name} broke off before its end")
                return stream.end(True)
        raise AssertionError("unreachable: the last attempt returns or raises")


def _sampling(n: int, seed: int | None, offset: int) -> dict[str, Any]:
    sampling: dict[str, Any] = {"n": n} if n > 1 else {}
    return sampling if seed is None else sampling | {"seed": seed + offset}


def _is_passing(litellm: Any, error: Exception) -> bool:
    if isinstance(error, litellm.exceptions.ContextWindowExceededError):
        return False
    return getattr(error, "status_code", None) in RETRIED or isinstance(error, (ConnectionError, TimeoutError))


def retry_after(error: Exception) -> float | None:
    """Seconds that the provider's Retry-After header asks for."""
    response = getattr(error, "response", None)
    headers = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None) or {}
    value = str(headers.get("retry-after"))
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until.tzinfo else None


def _named(error: BaseException, watch: Watch) -> BaseException:
    """What stopped the reading of an answer, rather than what litellm made of the rest; else `error` itself."""
    if isinstance(error, Exception) and watch.broken:
        try:
            watch.check()
        except ProviderError as found:
            return found
    return error
