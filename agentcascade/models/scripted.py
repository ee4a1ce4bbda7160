"""A deterministic chat model for tests and examples: it says what it was told to say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from agentcascade.config.effort import LEVELS
from agentcascade.errors import ConfigError, EmptyCompletion
from agentcascade.models import logprobs, message_fields
from agentcascade.models.pricing import Price
from agentcascade.models.tokens import count_messages, token_counter
from agentcascade.types import Completion, Delta, Message, Tool, Usage

Answer: TypeAlias = str | Message | BaseException
Script: TypeAlias = Callable[[Sequence[Message], int], Answer]


class ScriptedModel:
    """A deterministic chat model that says what it was told to say, for tests and examples; its tokens are counted.

    `requests` keeps the messages of each call.

    Args:
        script: A list of answers, given in turn (the last one for ever), or a function of (messages, sample index). An
            answer is a text, a message, or an exception, which is raised. A message's ``logprobs``, a list of its
            tokens', are told where they are asked for.
        name: What records call the model.
        price: Of its tokens; None: dollars are None.
        delay: Seconds before each answer.
        supports_n: Whether it takes several samples in one request.

    Raises:
        ConfigError: The script is a text, or empty.

    >>> import asyncio
    >>> model = ScriptedModel(["go north", "take the lamp"])
    >>> completion = asyncio.run(model.complete([{"role": "user", "content": "What next?"}]))
    >>> completion.messages[0]["content"]
    'go north'
    """

    bills_failures = True
    """Nobody bills what failed, unless the error in the script says so."""
    efforts = LEVELS
    """It takes all of them, and its script goes on as it is."""

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
        self.name: str = name
        self.supports_n: bool = supports_n
        self.price: Price | None = price
        self.delay: float = delay
        self.requests: list[list[Message]] = []
        self._script, self._position = script, 0

    def dollars(self, usage: Usage) -> Decimal | None:
        """What such usage of one request costs; None without a price."""
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
        """The next `n` answers of the script.

        Args:
            messages: Kept in `requests`, and counted.
            n: Number of samples.
            temperature: Ignored, as are `seed` and `tools`.
            seed: Ignored.
            tools: Ignored.
            timeout: Seconds; None: no limit.
            options: With ``logprobs=True``, log-probabilities that the script has are told.

        Raises:
            EmptyCompletion: No answer says anything.
            TimeoutError: `delay` is longer than `timeout`.
            BaseException: What the script says is raised.
        """
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
        answer = self._script[min(self._position, len(self._script) - 1)]
        self._position += 1
        return answer

    async def stream(
        self, messages: Sequence[Message], on_delta: Callable[[Delta], None], **options: Any
    ) -> Completion:
        """Stream one answer to `on_delta`, a few words at a time, with the arguments of `ScriptedModel.complete`."""
        from agentcascade.models.deltas import split_into_deltas

        completion = await self.complete(messages, **options)
        for delta in split_into_deltas(completion.messages[0]):
            on_delta(delta)
            await asyncio.sleep(0)
        return completion


def _read_logprobs(values: Any) -> logprobs.ChoiceLogprobs:
    return logprobs.read_logprobs({"logprobs": {"content": [{"logprob": v} for v in values or ()]}})
