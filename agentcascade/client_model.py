"""A chat model behind somebody's own OpenAI client: its key, its base URL, its retries, its HTTP settings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from functools import lru_cache
from typing import Any

from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI

from agentcascade import logprobs
from agentcascade.deltas import Assembly
from agentcascade.errors import EmptyCompletion
from agentcascade.prices import Price, PriceTable
from agentcascade.tokens import count_messages, token_counter
from agentcascade.types import Completion, Delta, Message, Tool, Usage
from agentcascade.usage import usage_from

TRANSPORT = {"timeout": "timeout", "extra_headers": "headers", "extra_query": "params", "extra_body": "extra_json"}
"""Arguments of `create` that are no part of the request's body, and what the client's `post` calls them."""
KEPT = ("content", "tool_calls", "refusal", "reasoning_content", "annotations", "audio")


class ClientModel:
    """`model` through `client`. `fixed` arguments go with every call; the client's own retries apply.

    The price is litellm's only where the client talks to OpenAI or Azure themselves; give `prices` for other servers.
    `name` is what records call the model. With `exact`, temperature and seed are those of `fixed` or none. `plain`
    answers are not made into the client's own objects, which costs more than the request itself: for an `AsyncOpenAI`
    that nobody else knows. (What instruments a program's client watches its `create`.)
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
    ) -> None:
        self._client, self._model, self._fixed, self._exact = client, model, dict(fixed or {}), exact
        self._plain = plain
        self.name = name or f"{provider(client)}/{model}"
        self.supports_n = self.tells_logprobs = True
        self._price = prices.lookup(self.name) if prices else _price(self.name)
        # The class's own method: `client` may be the very client that a cascade was wrapped around.
        self._create: Any = client.chat.completions.create

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
        """One request for `n` answers, or several where the server ignores `n`, with seeds `seed`, `seed` + 1 ….

        Of several those that fail are left out while at least one succeeds. Raises openai's own errors.
        """
        started = time.perf_counter()
        own = {"temperature": temperature, "tools": tools, "timeout": timeout, **options}

        async def ask(first: int, at_once: int) -> list[Any]:
            """Answers `first` to `n`, in requests for `at_once` each."""
            asked = [
                self._arguments(
                    messages, n=at_once if at_once > 1 else None, seed=None if seed is None else seed + i, **own
                )
                for i in range(first, n, at_once)
            ]
            if len(asked) == 1:
                return [await self._ask(asked[0])]
            return list(await asyncio.gather(*(self._ask(a) for a in asked), return_exceptions=True))

        results = await ask(0, n if self.supports_n else 1)
        if n > 1 and self.supports_n and len(_get(results[0], "choices") or ()) == 1:
            self.supports_n = False  # some servers take `n` and ignore it
            results += await ask(1, 1)
        responses = [r for r in results if not isinstance(r, BaseException)]
        if not responses:
            raise next(r for r in results if isinstance(r, BaseException))
        return self._completion(messages, responses, time.perf_counter() - started)

    async def _ask(self, arguments: dict[str, Any]) -> Any:
        return await logprobs.asked(self._send, arguments, self)

    async def _send(self, arguments: dict[str, Any]) -> Any:
        if self._plain:
            return await self._post(arguments)
        if isinstance(self._client, AsyncOpenAI):
            return await self._create(**arguments)
        return await asyncio.to_thread(self._create, **arguments)

    async def _post(self, arguments: dict[str, Any]) -> dict[str, Any]:
        body = {k: v for k, v in arguments.items() if k not in TRANSPORT}
        options = {name: arguments[k] for k, name in TRANSPORT.items() if k in arguments}
        client: Any = self._client
        found: object = await client.post("/chat/completions", cast_to=object, body=body, options=options)
        if not isinstance(found, dict):
            raise ConnectionError(f"{self.name} answered with something other than a JSON object")
        return found

    def _completion(self, messages: Sequence[Message], responses: Sequence[Any], seconds: float) -> Completion:
        choices = [c for r in responses for c in _get(r, "choices") or ()]
        answers = [(_message(_get(c, "message")), str(_get(c, "finish_reason") or "stop"), c) for c in choices]
        kept = [(m, reason, c) for m, reason, c in answers if m is not None]
        usages = [usage_from(_get(r, "usage")) for r in responses]
        known = [u for u in usages if u is not None]
        usage = sum(known, Usage()) if len(known) == len(usages) else self._estimate(messages, [m for m, *_ in kept])
        completion = Completion(
            model=self.name,
            messages=tuple(m for m, *_ in kept),
            finish_reasons=tuple(reason for _, reason, _ in kept),
            usage=usage,
            dollars=self.dollars(usage) if len(known) == len(usages) else None,
            seconds=seconds,
            calls=len(responses),
            **logprobs.fields([logprobs.told(c) for *_, c in kept]),
        )
        return _said(completion, [reason for _, reason, _ in answers])

    def _estimate(self, messages: Sequence[Message], answers: Sequence[Message]) -> Usage:
        """Counted here, where the server does not: no bill."""
        count = token_counter()
        return Usage(input=count_messages(messages, count), output=sum(count_messages([m], count) for m in answers))

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
        """One answer, live. Raises openai's own errors, `ConnectionError` for a stream that breaks off."""
        started = time.perf_counter()
        arguments = self._arguments(messages, seed=seed, tools=tools, timeout=timeout, **options)
        arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        assembly, usage, reason = Assembly(), None, None
        async for chunk in self._chunks(arguments):
            usage = usage_from(chunk.usage) or usage
            for choice in chunk.choices or ():
                if choice.index:
                    continue
                delta = {k: v for k, v in choice.delta.model_dump(exclude_none=True).items() if v not in ("", [])}
                reason = choice.finish_reason or reason
                if delta.keys() - {"role"}:
                    assembly.add(delta)
                    on_delta(delta)
        if reason is None:
            raise ConnectionError(f"the stream of {self.name} broke off before its end")
        message = assembly.message
        counted = usage or self._estimate(messages, [message] if message else [])
        completion = Completion(
            model=self.name,
            messages=(message,) if message else (),
            finish_reasons=(str(reason),),
            usage=counted,
            dollars=self.dollars(counted) if usage else None,
            seconds=time.perf_counter() - started,
        )
        return _said(completion, [str(reason)])

    async def _chunks(self, arguments: dict[str, Any]) -> AsyncIterator[Any]:
        if isinstance(self._client, AsyncOpenAI):
            async with await self._create(**arguments) as stream:
                async for chunk in stream:
                    yield chunk
            return
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue()
        opened: list[Any] = []
        gone = False

        def put(chunk: Any, error: BaseException | None) -> None:
            loop.call_soon_threadsafe(chunks.put_nowait, (chunk, error))

        def read() -> None:
            try:
                with closing(self._create(**arguments)) as stream:
                    opened.append(stream)
                    for chunk in stream:
                        if gone:
                            return
                        put(chunk, None)
                put(None, None)
            except BaseException as error:
                if not gone:
                    put(None, error)

        reading = loop.run_in_executor(None, read)
        try:
            while True:
                chunk, error = await chunks.get()
                if error is not None:
                    raise error
                if chunk is None:
                    return
                yield chunk
        finally:
            gone = True
            if not reading.done() and opened:
                opened[0].close()


def provider(client: OpenAI | AsyncOpenAI) -> str:
    """``openai`` or ``azure`` where the client talks to them, else the host's name: its prices are not theirs."""
    if isinstance(client, (AzureOpenAI, AsyncAzureOpenAI)):
        return "azure"
    host = client.base_url.host
    return "openai" if host == "openai.com" or host.endswith(".openai.com") else host


@lru_cache(maxsize=256)
def _price(name: str) -> Price | None:
    return PriceTable().lookup(name)


def _get(part: Any, name: str) -> Any:
    """A field of a response that is the client's object or plain data."""
    return part.get(name) if isinstance(part, dict) else getattr(part, name, None)


def _message(raw: Any) -> Message | None:
    fields = raw if isinstance(raw, dict) else raw.model_dump(exclude_none=True)
    message = {"role": "assistant", **{k: fields[k] for k in KEPT if fields.get(k) is not None}}
    said = message.get("content") or message.get("tool_calls") or message.get("refusal")
    return message if said else None


def _said(completion: Completion, reasons: Sequence[str]) -> Completion:
    """Raises `EmptyCompletion`, which holds the bill, when no answer says anything."""
    if completion.messages:
        return completion
    why = ", ".join(sorted(set(reasons))) or "none"
    empty = EmptyCompletion(f"{completion.model} returned no message (finish reason {why}): see max_tokens and filters")
    empty.completion = completion
    raise empty
