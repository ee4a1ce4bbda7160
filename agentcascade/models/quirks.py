"""What one endpoint refuses or ignores of a request: learnt from its first refusal, left out from then on.

Servers that speak OpenAI's API differ in what they take: llama.cpp and Groq no `n`, Gemini and Mistral no `seed`, older
vLLM no `stream_options`, many no log-probabilities; DeepSeek wants thoughts back with tool calls, Groq refuses them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agentcascade.messages import text_of
from agentcascade.models import message_fields
from agentcascade.types import Message

REFUSED = {400, 404, 422, 501}
"""HTTP statuses of a parameter that a server does not take."""
OPTIONAL: Mapping[str, re.Pattern[str]] = {
    "logprobs": re.compile(r"logprob"),
    "top_logprobs": re.compile(r"logprob"),
    "seed": re.compile(r"\bseed\b"),
    "stream_options": re.compile(r"stream_options|include_usage"),
}
"""Options that an answer can do without, and how a refusal names them."""
ABOUT_N = re.compile(r"\bn\b|choice|candidate|sample|best_of|multiple", re.IGNORECASE)
WANTED = re.compile(r"must be (?:passed|provided|included|present|sent)|required|missing|pass(?:ed)? back")
NO_THOUGHT = " "
"""Stands where a server wants the thoughts of a call that another model made without thinking."""


class Quirks:
    """Of one model at one endpoint. Shared by all that ask there."""

    def __init__(self) -> None:
        self.supports_n: bool | None = None
        """Whether it takes `n`; None as long as nobody knows."""
        self.confirmed_n = False
        """Whether it ever gave several answers to one request."""
        self.refused: set[str] = set()
        self.thoughts: str | None = None
        """Name of the field in which it wants the thoughts of every tool call."""
        self.public_only = False
        """Whether it refuses what is not part of OpenAI's messages."""

    def applied(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request as this endpoint takes it; the same object where nothing is to be changed."""
        if self.refused & request.keys():
            request = {k: v for k, v in request.items() if k not in self.refused}
        if self.public_only or self.thoughts:
            request = {**request, "messages": self._messages(request["messages"])}
        return request

    def _messages(self, messages: Sequence[Message]) -> list[Message]:
        if self.public_only:
            return [message_fields.public(m) for m in messages]
        assert self.thoughts is not None
        return [_thoughtful(m, self.thoughts) for m in messages]

    def learn(self, error: Exception, asked: Mapping[str, Any]) -> bool:
        """Whether `error` refuses something that can be left out, so that asking again is worth it."""
        if getattr(error, "status_code", None) not in REFUSED:
            return False
        text = str(error).lower()
        named = {k for k, pattern in OPTIONAL.items() if asked.get(k) is not None and pattern.search(text)}
        if named:
            self.refused |= named
            return True
        return self._learn_thoughts(text, asked.get("messages") or ())

    def _learn_thoughts(self, text: str, messages: Sequence[Message]) -> bool:
        turns = [m for m in messages if m.get("role") == "assistant"]
        private = {k for m in turns for k in m if k not in message_fields.SENT}
        wanted = next((k for k in message_fields.THINKING if k in text), None)
        if wanted and WANTED.search(text) and self.thoughts is None:
            if any(m.get("tool_calls") and not m.get(wanted) for m in turns):
                self.thoughts = wanted
                return True
        elif not self.public_only and any(k in text for k in private):
            self.public_only, self.thoughts = True, None
            return True
        return False


def _thoughtful(message: Message, name: str) -> Message:
    if message.get("role") != "assistant" or not message.get("tool_calls") or message.get(name):
        return message
    thought = next((message[k] for k in ("reasoning_content", "reasoning") if message.get(k)), text_of(message))
    return {**message, name: thought or NO_THOUGHT}


async def adapted(
    send: Callable[[dict[str, Any]], Awaitable[Any]], request: dict[str, Any], quirks: Quirks, fixed: Mapping[str, Any]
) -> Any:
    """`send(request)` as the endpoint takes it, again without what it refuses. What is `fixed` is the caller's own."""
    while True:
        asked = quirks.applied(request) if not fixed else {**quirks.applied(request), **fixed}
        try:
            return await send(asked)
        except Exception as error:
            if not quirks.learn(error, {k: v for k, v in asked.items() if k not in fixed}):
                raise
