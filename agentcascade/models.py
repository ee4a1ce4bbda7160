"""Real chat models, through litellm: n samples, retries within one deadline, full usage, exact dollars."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from agentcascade.errors import EmptyCompletion, MissingExtra
from agentcascade.prices import PriceTable
from agentcascade.tokens import count_messages, token_counter
from agentcascade.types import Completion, Message, Tool, Usage
from agentcascade.usage import usage_from

RETRIED = {408, 409, 429, 500, 502, 503, 504, 529}
"""HTTP statuses worth another try."""

KEPT = ("role", "content", "tool_calls", "reasoning_content", "thinking_blocks", "refusal")
"""What of an assistant message is handed on; thinking blocks carry the signatures that providers check."""


def import_litellm() -> Any:
    """litellm, without its price-list download and chatter."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        import litellm
    except ImportError as error:
        raise MissingExtra("litellm", "all", "calling a real model") from error
    litellm.telemetry = False
    litellm.suppress_debug_info = True
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
        self._price = (prices or PriceTable()).lookup(name)
        self._temperature, self._timeout, self._retries = temperature, timeout, retries
        given = {"max_tokens": max_tokens, "api_base": api_base, "api_key": api_key}
        self._options = {k: v for k, v in given.items() if v is not None} | dict(options or {})

    def __repr__(self) -> str:
        return f"LiteLLMModel({self.name!r})"

    @property
    def supports_n(self) -> bool:
        """Whether the provider takes `n`, and so bills the prompt once for all samples."""
        return "n" in (import_litellm().get_supported_openai_params(self.name) or ())

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
        started = time.perf_counter()
        request = dict(self._options) | options
        request |= {"model": self.name, "messages": list(messages), "num_retries": 0, "max_retries": 0}
        temperature = self._temperature if temperature is None else temperature
        if temperature is not None:
            request["temperature"] = temperature
        if tools:
            request["tools"] = list(tools)
        at_once = n if self.supports_n else 1
        async with asyncio.timeout(self._timeout if timeout is None else min(timeout, self._timeout)):
            calls = [
                self._call(litellm, request | _sampling(at_once, seed, i), messages) for i in range(0, n, at_once)
            ]
            results = await asyncio.gather(*calls, return_exceptions=True)
        answers = [r for r in results if isinstance(r, Completion)]
        if not answers:
            raise next(r for r in results if isinstance(r, BaseException))
        bills = [a.dollars for a in answers]
        completion = Completion(
            model=self.name,
            messages=tuple(m for a in answers for m in a.messages),
            finish_reasons=tuple(f for a in answers for f in a.finish_reasons),
            usage=sum((a.usage for a in answers), Usage()),
            dollars=None if None in bills else sum((b for b in bills if b is not None), Decimal(0)),
            seconds=time.perf_counter() - started,
            calls=len(answers),
        )
        if not completion.messages:
            empty = EmptyCompletion(
                f"{self.name} returned no message (finish reason {', '.join(completion.finish_reasons) or 'none'}): "
                "see max_tokens, content filters and the model's name"
            )
            empty.completion = completion
            raise empty
        return completion

    async def _call(self, litellm: Any, request: dict[str, Any], messages: Sequence[Message]) -> Completion:
        """One provider request, tried again on passing failures."""
        response = await self._with_retries(litellm, request)
        choices = getattr(response, "choices", None) or []
        kept = [(m, c.finish_reason) for c in choices if (m := _message(c)) is not None]
        usage = usage_from(getattr(response, "usage", None))
        reported = usage is not None and usage.prompt > 0
        if usage is None or not reported:
            count = token_counter()
            usage = Usage(
                input=count_messages(messages, count), output=sum(count_messages([m], count) for m, _ in kept)
            )
        return Completion(
            model=self.name,
            messages=tuple(m for m, _ in kept),
            finish_reasons=tuple(str(c.finish_reason or "stop") for c in choices if not kept)
            or tuple(str(f or "stop") for _, f in kept),
            usage=usage,
            # An estimated count is not a bill.
            dollars=self.dollars(usage) if reported else None,
        )

    async def _with_retries(self, litellm: Any, request: dict[str, Any]) -> Any:
        import stamina

        delays: list[float] = []

        def passing(error: Exception) -> bool | float:
            """Whether to try again; a number of seconds where the provider names one."""
            if not _is_passing(litellm, error):
                return False
            wait = _retry_after(error)
            delays.append(wait or 0.0)
            return wait if wait is not None else True

        async for attempt in stamina.retry_context(
            on=passing, attempts=self._retries + 1, timeout=None, wait_initial=0.25, wait_max=20.0, wait_jitter=0.5
        ):
            with attempt:
                return await litellm.acompletion(**request, drop_params=True)
        raise AssertionError("unreachable: the last attempt returns or raises")


def _sampling(n: int, seed: int | None, offset: int) -> dict[str, Any]:
    sampling: dict[str, Any] = {"n": n} if n > 1 else {}
    return sampling if seed is None else sampling | {"seed": seed + offset}


def _is_passing(litellm: Any, error: Exception) -> bool:
    if isinstance(error, litellm.exceptions.ContextWindowExceededError):
        return False
    return getattr(error, "status_code", None) in RETRIED or isinstance(error, (ConnectionError, TimeoutError))


def _retry_after(error: Exception) -> float | None:
    """Seconds that the provider's Retry-After header asks for."""
    response = getattr(error, "response", None)
    headers = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None) or {}
    try:
        return max(0.0, float(headers.get("retry-after")))
    except (TypeError, ValueError):
        return None


def _message(choice: Any) -> Message | None:
    """The choice's message as a plain dictionary; None when it says nothing."""
    raw = getattr(choice, "message", None)
    if raw is None:
        return None
    fields = raw.model_dump() if hasattr(raw, "model_dump") else dict(raw)
    message = {k: v for k in KEPT if (v := fields.get(k)) is not None}
    return message | {"role": "assistant"} if message.get("content") or message.get("tool_calls") else None
