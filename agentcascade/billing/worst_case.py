"""The worst case of a model call: the most tokens, and so dollars, that its provider may bill."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

from agentcascade.errors import InvalidRequest, UnknownPrice
from agentcascade.models.pricing import output_limit
from agentcascade.models.tokens import count_messages
from agentcascade.protocols import ChatModel, TokenCounter
from agentcascade.types import Message, Usage

OUTPUT_TOKENS = 4096
"""Of an answer without a limit, from a model whose own is not known; a call within a budget is sent with it."""
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
COUNTS_OTHERWISE = Decimal("1.35")
"""Tokens of other tokenizers for one of ours, at most: Claude's needs about a third more, for most texts."""
NEW_LIMIT = re.compile(r"(?:openai|azure)/(?:ft:)?(?:o\d|gpt-[5-9])")
"""Models that refuse `max_tokens` and want `max_completion_tokens`."""

IMAGE = {"low": 300, "": 5_000}
"""Tokens of one image by its `detail`: no provider's worst case is above, as far as published …"""
DEAR_IMAGE = {"low": 2_833, "": 48_169}
"""… but for gpt-4o-mini's, which bills an image as if it were a large model's."""
IMAGES = ("image_url", "image", "input_image")


class Asked:
    """One model call as it is sent: what may come of it.

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
        self.model, self.messages, self.n = model, messages, n
        self.count, self._assumed = count, output_tokens
        standing = getattr(model, "defaults", None)
        self.given = [options, *([standing] if isinstance(standing, Mapping) else [])]
        self.every = [o for given in self.given for o in _with_body(given)]
        own = getattr(model, "requested", None)
        self.requested = [o for given in (options, own) if isinstance(given, Mapping) for o in _with_body(given)]

    @cached_property
    def prompt(self) -> int:
        """The most tokens of one request's prompt."""
        found = count_messages(self.messages, self.count) + sum(self._beside(m) for m in self.messages)
        for options in self.every:
            for name in ("tools", "functions", "response_format", "guided_json", "structured_outputs"):
                if options.get(name):
                    found += self.count(_written(options[name]))
        if not self.model.name.startswith(("openai/", "azure/")):
            found = int(found * COUNTS_OTHERWISE) + 1
        return found

    def _beside(self, message: Message) -> int:
        """What `count_messages` passes over: images, thinking, parts of other kinds."""
        found = 0
        images = DEAR_IMAGE if "gpt-4o-mini" in self.model.name else IMAGE
        for name in ("thinking_blocks", "reasoning_content", "reasoning", "name"):
            if message.get(name):
                found += self.count(_written(message[name]))
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind in IMAGES:
                source = part.get("image_url")
                detail = source.get("detail") if isinstance(source, Mapping) else part.get("detail")
                found += images["low" if detail == "low" else ""]
            elif kind not in ("text", "refusal", "input_text", "output_text"):
                found += self.count(_written(part))
        return found

    @cached_property
    def limit(self) -> int | None:
        """The largest limit that the request sets for one answer. Raises `InvalidRequest` for one that is none."""
        found: list[int] = []
        for options in self.every:
            for name in LIMITS:
                value = options.get(name)
                if value is None:
                    continue
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise InvalidRequest(f"{name} is {str(value)[:40]!r}: within a budget it is a number of at least 1")
                found.append(value)
        return max(found, default=None)

    @property
    def cap(self) -> Mapping[str, int]:
        """The limit that a call within a budget must be sent with, since it sets none and the model's is not known."""
        if self.limit is not None or (self._assumed is None and output_limit(self.model.name) is not None):
            return {}
        name = "max_completion_tokens" if NEW_LIMIT.match(self.model.name) else "max_tokens"
        return {name: self._assumed or OUTPUT_TOKENS}

    @cached_property
    def output(self) -> int:
        """The most tokens of one answer."""
        try:
            limit = self.limit
        except InvalidRequest:
            limit = None  # its provider will refuse it
        most = limit or self._assumed or output_limit(self.model.name) or OUTPUT_TOKENS
        for options in self.every:
            thinking, predicted = options.get("thinking"), options.get("prediction")
            budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
            most += budget if isinstance(budget, int) and budget > 0 else 0
            if isinstance(predicted, Mapping):  # what is predicted and not said is billed like an answer
                most += self.count(_written(predicted.get("content")))
        return most

    @cached_property
    def one(self) -> Decimal | None:
        """The most dollars of one request with one answer; None where the price is not known."""
        return self.most(1)

    def most(self, answers: int) -> Decimal | None:
        """The same of one request with so many answers."""
        prompts: list[Usage] = [Usage(input=self.prompt)]
        if self._writes_cache:
            prompts += [Usage(cache_write=self.prompt), Usage(cache_write_1h=self.prompt)]
        output = self.output * answers
        prices = [dollars(self.model, p + a) for p in prompts for a in (Usage(output=output), Usage(reasoning=output))]
        return None if None in prices else max(p for p in prices if p is not None)

    @property
    def _writes_cache(self) -> bool:
        if any("cache_control" in options or "cache_control_injection_points" in options for options in self.every):
            return True
        return any(_marked(m) for m in self.messages)

    def worst(self) -> Decimal:
        """The most dollars of the whole call. Raises `UnknownPrice`.

        As many requests as answers, unless the server is known to give several at once: it may take `n`, ignore it,
        and have to be asked for the others one by one.
        """
        whole = self.most(self.n) if getattr(self.model, "confirmed_n", False) else None
        if whole is not None:
            return whole
        if self.one is None:
            raise UnknownPrice(
                f"the price of {self.model.name} is not known, so no budget can hold: set price: {{input: …, output: "
                "…}} in dollars per million tokens for this model, or take the budget away"
            )
        return self.one * self.n


def _with_body(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The options, and those that go into the request's body past the client."""
    body = options.get("extra_body")
    return [options, body] if isinstance(body, Mapping) else [options]


def dollars(model: ChatModel, usage: Usage) -> Decimal | None:
    """What the model says that such usage costs; None for anything but a price."""
    price: object = model.dollars(usage)
    return price if isinstance(price, Decimal) and price.is_finite() and price >= 0 else None


def _marked(message: Message) -> bool:
    content = message.get("content")
    parts: Iterator[Any] = iter(content) if isinstance(content, list) else iter(())
    return "cache_control" in message or any(isinstance(p, Mapping) and "cache_control" in p for p in parts)


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(value)
