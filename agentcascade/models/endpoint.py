"""Endpoint quirks that are learned: what one endpoint refuses or ignores of a request, left out from then on.

Servers that speak OpenAI's API differ in what they take. How their refusals are read stands in `quirks`; what has been
learned is kept here, per model and endpoint, so that each refusal costs one request.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeGuard

from agentcascade.messages import text_of
from agentcascade.models.message_fields import PORTABLE_FIELDS, THINKING_FIELDS, portable
from agentcascade.models.quirks import (
    MOST_LOGPROBS_REFUSED,
    NO_THINKING,
    PARAMETER_FORBIDDEN,
    PARAMETER_REFUSED,
    REFUSALS,
    THINKING_WANTED,
    model_quirks,
)
from agentcascade.types import Message

log = logging.getLogger("agentcascade.models")
TOP_LOGPROBS = "top_logprobs"


class EndpointQuirks:
    """What is known of one model at one endpoint. Shared by all that ask there.

    Args:
        model: Its litellm name, where it has one: what the table knows of it need not be refused first.
    """

    def __init__(self, model: str = "") -> None:
        self._model = model
        self.supports_n: bool | None = None
        """Whether it takes `n`; None as long as nobody knows."""
        self.confirmed_n = False
        """Whether it ever gave several answers to one request."""
        self.refused: set[str] = set()
        """Parameters that it refuses."""
        self.thinking_field: str | None = None
        """Name of the field in which it wants the thinking of every tool call."""
        self.most_top_logprobs = model_quirks(model).most_top_logprobs if model else None
        """The most `top_logprobs` that it takes; None as long as nobody knows."""
        self._said_most = False
        self.portable_only: bool = False
        """Whether it refuses what is not part of OpenAI's messages."""

    def adapt(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request as this endpoint takes it; the same object where nothing is to be changed."""
        if self.refused & request.keys():
            request = {k: v for k, v in request.items() if k not in self.refused}
        body = request.get("extra_body")
        if self.refused and isinstance(body, Mapping) and self.refused & body.keys():
            request = {**request, "extra_body": {k: v for k, v in body.items() if k not in self.refused}}
        request = self._with_fewer_logprobs(request)
        if self.portable_only:
            request = {**request, "messages": [portable(m) for m in request["messages"]]}
        elif self.thinking_field:
            request = {**request, "messages": [_with_thinking(m, self.thinking_field) for m in request["messages"]]}
        return request

    def learn(self, error: Exception, request: Mapping[str, Any]) -> bool:
        """Whether `error` refuses something of `request` that can be left out, so that asking again is worth it."""
        status = getattr(error, "status_code", None)
        if status != 403 and status not in PARAMETER_REFUSED:
            return False
        text = str(error).lower()
        given = {**(request.get("extra_body") or {}), **request}
        if status == 403:
            given = {k: v for k, v in given.items() if k in PARAMETER_FORBIDDEN}
        if status != 403 and self._learn_most_logprobs(text, given.get(TOP_LOGPROBS)):
            return True
        named = {k for k, pattern in REFUSALS.items() if given.get(k) is not None and pattern.search(text)}
        if named:
            self.refused |= named
            return True
        return status != 403 and self._learn_thinking(text, request.get("messages") or ())

    def _with_fewer_logprobs(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request with as many `top_logprobs` as are taken: fewer say more than none."""
        most, asked = self.most_top_logprobs, request.get(TOP_LOGPROBS)
        if most is None or not _is_number(asked) or asked <= most:
            return request
        if not self._said_most:
            self._said_most = True
            log.warning(
                "%s tells at most %d top_logprobs, %d were asked for: it is asked for %d, which is said once",
                self._model or request.get("model") or "the model", most, asked, most,
            )  # fmt: skip
        return {**request, TOP_LOGPROBS: most}

    def _learn_most_logprobs(self, text: str, asked: Any) -> bool:
        if "logprob" not in text or not _is_number(asked):
            return False
        told = [int(number) for number in MOST_LOGPROBS_REFUSED.findall(text)]
        most = next((number for number in told if number < asked), None)
        if most is None:
            return False
        self.most_top_logprobs = most
        return True

    def _learn_thinking(self, text: str, messages: Sequence[Message]) -> bool:
        turns = [m for m in messages if m.get("role") == "assistant"]
        private = {k for m in turns for k in m if k not in PORTABLE_FIELDS}
        wanted = next((k for k in THINKING_FIELDS if k in text), None)
        if wanted and THINKING_WANTED.search(text) and self.thinking_field is None:
            if any(m.get("tool_calls") and not m.get(wanted) for m in turns):
                self.thinking_field = wanted
                return True
        elif not self.portable_only and any(k in text for k in private):
            self.portable_only, self.thinking_field = True, None
            return True
        return False


def _is_number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _with_thinking(message: Message, name: str) -> Message:
    if message.get("role") != "assistant" or not message.get("tool_calls") or message.get(name):
        return message
    thinking = next((message[k] for k in ("reasoning_content", "reasoning") if message.get(k)), text_of(message))
    return {**message, name: thinking or NO_THINKING}


async def send_adapted(
    send: Callable[[dict[str, Any]], Awaitable[Any]],
    request: dict[str, Any],
    quirks: EndpointQuirks,
    fixed: Mapping[str, Any],
) -> Any:
    """`send(request)` as the endpoint takes it, again without what it refuses. What is `fixed` is the caller's own."""
    while True:
        adapted = quirks.adapt(request) if not fixed else {**quirks.adapt(request), **fixed}
        try:
            return await send(adapted)
        except Exception as error:
            if not quirks.learn(error, {k: v for k, v in adapted.items() if k not in fixed}):
                raise
