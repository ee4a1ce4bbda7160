"""A deterministic chat model for tests and examples: it says what it was told to say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from agentcascade.errors import ConfigError, EmptyCompletion
from agentcascade.models import logprobs, message_fields
from agentcascade.models.pricing import Price
from agentcascade.models.tokens import count_messages, token_counter
from agentcascade.types import Completion, Delta, Message, Tool, Usage

Answer: TypeAlias = str | Message | BaseException
Script: TypeAlias = Callable[[Sequence[Message], int], Answer]


class ScriptedModel:
    """Answers from `script`: a list, told in turn (the last one for ever), or a function of (messages, sample index).

    Tokens are counted for real; an exception in the script is raised. `requests` keeps what was asked. A message's
    ``logprobs``, a list of its tokens', are told where they are asked for.
    """

    bills_failures = True
    """Nobody bills what failed, unless the error in the script says so."""

    def __init__(
        self,
        script: Sequence[Answer] | Script,
        *,
        name: str = "scripted",
        price: Price | None = None,
        delay: float = 0.0,
        supports_n: bool = True,
    ) -> None:
        if not callable(script) and (isinstance(script, str) or not script):
            raise ConfigError("the script of a ScriptedModel is a list of at least one answer, or a function")
        self.name, self.supports_n, self.price, self.delay = name, supports_n, price, delay
        self.requests: list[list[Message]] = []
        self._script, self._told = script, 0

    def dollars(self, usage: Usage) -> Decimal | None:
        return self.price.dollars(usage) if self.price else None

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
        self.requests.append(list(messages))
        async with asyncio.timeout(timeout):
            await asyncio.sleep(self.delay)
        answers = [self._next(messages, i) for i in range(n)]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        said = [dict(a) if isinstance(a, dict) else {"role": "assistant", "content": a} for a in answers]
        logs = [m.pop("logprobs", None) for m in said]
        count = token_counter()
        usage = Usage(input=count_messages(messages, count), output=sum(count_messages([m], count) for m in said))
        completion = Completion(
            model=self.name,
            messages=tuple(said),
            finish_reasons=("stop",) * n,
            usage=usage,
            dollars=self.dollars(usage),
            **(logprobs.completion_fields([_read_logprobs(log) for log in logs]) if options.get("logprobs") else {}),
        )
        if not any(message_fields.has_answer(m) for m in said):
            error = EmptyCompletion(f"{self.name} returned no message")
            error.completion = completion
            raise error
        return completion

    def _next(self, messages: Sequence[Message], sample: int) -> Answer:
        if callable(self._script):
            return self._script(messages, sample)
        answer = self._script[min(self._told, len(self._script) - 1)]
        self._told += 1
        return answer

    async def stream(
        self, messages: Sequence[Message], on_delta: Callable[[Delta], None], **options: Any
    ) -> Completion:
        """The same answer, a few words at a time."""
        from agentcascade.models.deltas import split_into_deltas

        completion = await self.complete(messages, **options)
        for delta in split_into_deltas(completion.messages[0]):
            on_delta(delta)
            await asyncio.sleep(0)
        return completion


def _read_logprobs(values: Any) -> logprobs.ChoiceLogprobs:
    return logprobs.read_logprobs({"logprobs": {"content": [{"logprob": v} for v in values or ()]}})
