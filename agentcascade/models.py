"""Real chat models, through litellm: n samples, retries within one deadline, full usage, exact dollars."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from agentcascade import logprobs
from agentcascade.errors import EmptyCompletion
from agentcascade.exchange import thinking_is_broken
from agentcascade.prices import PriceTable
from agentcascade.streaming import Shown
from agentcascade.tokens import count_messages, token_counter
from agentcascade.types import Completion, Delta, Message, Tool, Usage
from agentcascade.usage import usage_from

RETRIED = {408, 409, 429, 500, 502, 503, 504, 529}
"""HTTP statuses worth another try."""

REFUSES_N = {"groq"}
"""Providers whose endpoint refuses n > 1 although litellm lists the parameter."""

KEPT = ("role", "content", "tool_calls", "reasoning_content", "thinking_blocks", "refusal")
"""What of an assistant message is handed on; thinking blocks carry the signatures that providers check."""


def import_litellm() -> Any:
    """litellm, without its price-list download and chatter."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    return litellm


class _Answer(NamedTuple):
    """One provider request: its bill, and how many choices came, empty ones included."""

    completion: Completion
    choices: int


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
        self._supports_n: bool | None = None
        self.tells_logprobs = True  # litellm leaves out what it knows that the provider does not take
        self._price = (prices or PriceTable()).lookup(name)
        self._temperature, self._timeout, self._retries = temperature, timeout, retries
        given = {"max_tokens": max_tokens, "api_base": api_base, "api_key": api_key}
        self._options = {k: v for k, v in given.items() if v is not None} | dict(options or {})

    def __repr__(self) -> str:
        return f"LiteLLMModel({self.name!r})"

    @property
    def supports_n(self) -> bool:
        """Whether the provider takes `n`, and so bills the prompt once for all samples."""
        if self._supports_n is None:
            listed = import_litellm().get_supported_openai_params(self.name) or ()
            self._supports_n = "n" in listed and self.name.split("/")[0] not in REFUSES_N
        return self._supports_n

    @supports_n.setter
    def supports_n(self, value: bool) -> None:
        self._supports_n = value

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
        started, deadline, request = self._request(messages, tools, timeout, options)

        async def ask(first: int, at_once: int) -> list[_Answer | BaseException]:
            """Samples `first` to `n`, in requests for `at_once` each."""
            calls = [
                self._call(litellm, request | _sampling(at_once, seed, i), deadline) for i in range(first, n, at_once)
            ]
            return await asyncio.gather(*calls, return_exceptions=True)

        results = await ask(0, n if self.supports_n else 1)
        if n > 1 and len(results) == 1 and isinstance(results[0], _Answer) and results[0].choices == 1:
            # Some providers accept `n` and ignore it.
            self.supports_n = False
            results += await ask(1, 1)
        answers = [r.completion for r in results if isinstance(r, _Answer)]
        if not answers:
            raise next(r for r in results if isinstance(r, BaseException))
        return _merged(self.name, answers, time.perf_counter() - started)

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

        Raises what `complete` raises, and `ConnectionError` for a stream that ends before its answer does.
        """
        litellm = import_litellm()
        started, deadline, request = self._request(messages, tools, timeout, options)
        request |= {"stream": True, "stream_options": {"include_usage": True}} | _sampling(1, seed, 0)
        shown = Shown(on_delta)
        async with asyncio.timeout_at(deadline):
            response = await self._with_retries(litellm, request, deadline, shown)
        return _merged(self.name, [self._answer(response, request).completion], time.perf_counter() - started)

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
        temperature = request.get("temperature", self._temperature)
        if temperature is not None:
            request["temperature"] = temperature
        if tools:
            # litellm would load its MCP gateway (seconds, and packages that it does not install) to look for MCP tools.
            request |= {"tools": list(tools), "_skip_mcp_handler": True}
        if "claude" in self.name and thinking_is_broken(messages):
            request = {k: v for k, v in request.items() if k not in ("thinking", "reasoning_effort")}
        return time.perf_counter(), asyncio.get_running_loop().time() + limit, request

    async def _call(self, litellm: Any, request: dict[str, Any], deadline: float) -> _Answer:
        """One provider request, tried again on passing failures."""
        async with asyncio.timeout_at(deadline):
            response = await logprobs.asked(lambda r: self._with_retries(litellm, r, deadline), request, self)
        return self._answer(response, request)

    def _answer(self, response: Any, request: Mapping[str, Any]) -> _Answer:
        choices = getattr(response, "choices", None) or []
        kept = [(m, c) for c in choices if (m := _message(c)) is not None]
        usage = usage_from(getattr(response, "usage", None))
        reported = usage is not None and usage.prompt > 0
        if usage is None or not reported:
            count = token_counter()
            usage = Usage(
                input=count_messages(request["messages"], count),
                output=sum(count_messages([m], count) for m, _ in kept),
            )
        completion = Completion(
            model=self.name,
            messages=tuple(m for m, _ in kept),
            finish_reasons=tuple(str(c.finish_reason or "stop") for c in ([c for _, c in kept] or choices)),
            usage=usage,
            # An estimated count is not a bill.
            dollars=self.dollars(usage) if reported else None,
            **logprobs.fields([logprobs.told(c) for _, c in kept]),
        )
        return _Answer(completion, len(choices))

    async def _send(self, litellm: Any, request: Mapping[str, Any]) -> Any:
        return await litellm.acompletion(**request)

    async def _with_retries(
        self, litellm: Any, request: dict[str, Any], deadline: float, shown: Shown | None = None
    ) -> Any:
        import stamina

        def again(error: Exception) -> bool | float:
            """Whether to try again; a number of seconds where the provider names one, unless they are not left."""
            if not _is_passing(litellm, error) or (shown is not None and shown.begun):
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
                return answer if shown is None else await shown.whole(answer)
        raise AssertionError("unreachable: the last attempt returns or raises")


def _merged(model: str, answers: Sequence[Completion], seconds: float) -> Completion:
    """All answers as one, with one bill; raises `EmptyCompletion`, which holds the bill, when none says anything."""
    bills = [a.dollars for a in answers]
    completion = Completion(
        model=model,
        messages=tuple(m for a in answers for m in a.messages),
        finish_reasons=tuple(f for a in answers if a.messages for f in a.finish_reasons),
        usage=sum((a.usage for a in answers), Usage()),
        dollars=None if None in bills else sum((b for b in bills if b is not None), Decimal(0)),
        seconds=seconds,
        calls=len(answers),
        **logprobs.merged(answers),
    )
    if completion.messages:
        return completion
    reasons = ", ".join(sorted({f for a in answers for f in a.finish_reasons})) or "none"
    empty = EmptyCompletion(
        f"{model} returned no message (finish reason {reasons}): see max_tokens, content filters and the model's name"
    )
    empty.completion = completion
    raise empty


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


def _message(choice: Any) -> Message | None:
    """The choice's message as a plain dictionary; None when it says nothing."""
    raw = getattr(choice, "message", None)
    if raw is None:
        return None
    fields = raw.model_dump() if hasattr(raw, "model_dump") else dict(raw)
    own = fields.get("provider_specific_fields") or {}  # where litellm puts a refusal
    fields["refusal"] = fields.get("refusal") or own.get("refusal")
    message = {k: v for k in KEPT if (v := fields.get(k)) is not None}
    said = message.get("content") or message.get("tool_calls") or message.get("refusal")
    return message | {"role": "assistant"} if said else None
