"""Worst case of a model call: the most tokens, and so dollars, that its provider may bill."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

from agentcascade.errors import InvalidRequest, UnknownPrice
from agentcascade.models.breakpoints import has_breakpoints
from agentcascade.models.message_fields import THINKING_FIELDS
from agentcascade.models.pricing import max_output_tokens
from agentcascade.models.quirks import LIMIT_PARAMETERS, ROOM_TO_ANSWER, THINKING_BUDGETS, model_quirks
from agentcascade.models.tokens import count_messages
from agentcascade.protocols import ChatModel, TokenCounter
from agentcascade.types import Message, Usage

DEFAULT_OUTPUT_TOKENS = 4096
"""Of an answer without a limit, from a model whose own is not known; a call within a budget is sent with it."""
IMAGE_PARTS = ("image_url", "image", "input_image")
TEXT_PARTS = ("text", "refusal", "input_text", "output_text")
"""Types of message parts that `count_messages` counts."""
PROMPT_OPTIONS = ("tools", "functions", "response_format", "guided_json", "structured_outputs")
"""Options that become part of the prompt."""


class PlannedCall:
    """One model call before it is sent: the most that may come of it.

    `options` is all that goes with it, `tools` and the model's own defaults included.
    """

    def __init__(
        self,
        model: ChatModel,
        messages: Sequence[Message],
        options: Mapping[str, Any],
        n: int,
        count: TokenCounter,
        output_tokens: int | None = None,
    ) -> None:
        self.model: ChatModel = model
        self.messages: Sequence[Message] = messages
        self.n: int = n
        self.count: TokenCounter = count
        self._configured_limit = output_tokens
        self._quirks = model_quirks(model.name)
        defaults = getattr(model, "defaults", None)
        self.all_options: list[Mapping[str, Any]] = _with_bodies([options, defaults])
        self.caller_options: list[Mapping[str, Any]] = _with_bodies([options, getattr(model, "requested", None)])
        """Of all options, those that the caller asks for."""

    @cached_property
    def prompt_tokens(self) -> int:
        """The most tokens of one request's prompt."""
        tokens = count_messages(self.messages, self.count) + sum(self._uncounted(m) for m in self.messages)
        for options in self.all_options:
            for name in PROMPT_OPTIONS:
                if options.get(name):
                    tokens += self.count(_as_text(options[name]))
        factor = self._quirks.token_factor
        return tokens if factor == 1 else int(tokens * factor) + 1

    def _uncounted(self, message: Message) -> int:
        """The tokens of what `count_messages` passes over: images, thinking, parts of other kinds."""
        tokens = 0
        images = self._quirks.image_tokens
        for name in (*THINKING_FIELDS, "name"):
            if message.get(name):
                tokens += self.count(_as_text(message[name]))
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind in IMAGE_PARTS:
                source = part.get("image_url")
                detail = source.get("detail") if isinstance(source, Mapping) else part.get("detail")
                tokens += images["low" if detail == "low" else ""]
            elif kind not in TEXT_PARTS:
                tokens += self.count(_as_text(part))
        return tokens

    @cached_property
    def requested_limit(self) -> int | None:
        """The largest limit, in tokens, that the request sets for one answer. Raises `InvalidRequest` for nonsense."""
        limits: list[int] = []
        for options in self.all_options:
            for name in LIMIT_PARAMETERS:
                value = options.get(name)
                if value is None:
                    continue
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise InvalidRequest(f"{name} is {str(value)[:40]!r}: within a budget it is a number of at least 1")
                limits.append(value)
        return max(limits, default=None)

    @property
    def limit_to_set(self) -> Mapping[str, int]:
        """The option with which a call within a budget is sent, since it sets no limit and the model's is not known."""
        if self.requested_limit is not None:
            return {}
        if self._configured_limit is None and max_output_tokens(self.model.name) is not None:
            return {}
        return {self._quirks.limit_parameter: self._configured_limit or DEFAULT_OUTPUT_TOKENS}

    @cached_property
    def output_tokens(self) -> int:
        """The most tokens of one answer."""
        try:
            limit = self.requested_limit
        except InvalidRequest:
            limit = None  # its provider will refuse it
        most = limit or self._configured_limit or max_output_tokens(self.model.name) or DEFAULT_OUTPUT_TOKENS
        for options in self.all_options:
            thinking, predicted = options.get("thinking"), options.get("prediction")
            budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
            most += budget if isinstance(budget, int) and budget > 0 else 0
            most = max(most, self._limit_with(options.get("reasoning_effort")))
            if isinstance(predicted, Mapping):  # what is predicted and not said is billed like an answer
                most += self.count(_as_text(predicted.get("content")))
        return most

    def _limit_with(self, effort: object) -> int:
        """The least limit that a request to Claude with such an effort has: it holds thoughts and answer."""
        if not self._quirks.signs_thinking or effort in (None, "none", "minimal"):
            return 0
        if not isinstance(effort, int) and self._quirks.thinks_adaptively:
            return 0
        budget = effort if isinstance(effort, int) else THINKING_BUDGETS.get(str(effort), THINKING_BUDGETS["high"])
        return budget + ROOM_TO_ANSWER

    def request_dollars(self, answers: int = 1) -> Decimal | None:
        """The most dollars of one request with so many answers; None where the price is not known."""
        prompts: list[Usage] = [Usage(input=self.prompt_tokens)]
        has_marks = self._has_breakpoints
        if has_marks or self._quirks.prompt_cache == "automatic":
            prompts.append(Usage(cache_write=self.prompt_tokens))
        if has_marks:
            prompts.append(Usage(cache_write_1h=self.prompt_tokens))
        output = self.output_tokens * answers
        outputs = (Usage(output=output), Usage(reasoning=output))
        prices = [model_dollars(self.model, prompt + output) for prompt in prompts for output in outputs]
        return None if None in prices else max(price for price in prices if price is not None)

    @property
    def _has_breakpoints(self) -> bool:
        """Whether the prompt is marked for the provider's cache, writing to which can be dearer than the input."""
        tools = (options.get("tools") for options in self.all_options)
        return has_breakpoints(self.messages, options=self.all_options) or any(has_breakpoints((), t) for t in tools)

    @property
    def most_requests(self) -> int:
        """As many as answers, unless the server is known, at this moment, to give several at once.

        It may take `n`, ignore it, and have to be asked for the others one by one, this call's among them.
        """
        together = getattr(self.model, "confirmed_n", False) and self.model.supports_n
        return 1 if together else max(1, self.n)

    def worst_case_dollars(self) -> Decimal:
        """The most dollars of the whole call. Raises `UnknownPrice`."""
        requests = self.most_requests
        each = self.request_dollars(max(1, self.n) // requests)
        if each is None:
            raise UnknownPrice(
                f"the price of {self.model.name} is not known, so no budget can hold: set price: {{input: …, output: "
                "…}} in dollars per million tokens for this model, or take the budget away"
            )
        return each * requests


def _with_bodies(sources: Sequence[object]) -> list[Mapping[str, Any]]:
    """Options, each followed by those in it that go into the request's body past the client."""
    options = [source for source in sources if isinstance(source, Mapping)]
    return [part for given in options for part in (given, given.get("extra_body")) if isinstance(part, Mapping)]


def model_dollars(model: ChatModel, usage: Usage) -> Decimal | None:
    """What the model says that such usage costs; None for anything but a price."""
    price: object = model.dollars(usage)
    return price if isinstance(price, Decimal) and price.is_finite() and price >= 0 else None


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(value)
