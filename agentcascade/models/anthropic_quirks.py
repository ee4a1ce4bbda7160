"""Quirks of Anthropic's models: what a request needs that chat agents do not say, and what is left out when refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentcascade.models.pricing import max_output_tokens
from agentcascade.models.quirks import (
    EFFORTS,
    MESSAGES_REFUSALS,
    PARAMETER_REFUSED,
    ROOM_TO_ANSWER,
    THINKING_BUDGETS,
    UNSIGNED_REFUSED,
    UNTHINKING_REFUSED,
    model_quirks,
)
from agentcascade.models.thinking_quirks import thinker
from agentcascade.models.tool_call_ids import ends_in_unthinking_calls
from agentcascade.types import Message
from agentcascade.wire.anthropic_blocks import THINKING

DEFAULT_TOKENS = 4096
"""Of an answer without a limit, which the API wants: of a model whose own is not known."""
MOST_DEFAULT_TOKENS = 32_000
"""More is asked for by those who want it: an answer of that length takes many minutes."""


def with_defaults(
    body: dict[str, Any], name: str, messages: Sequence[Message], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The request with a limit of tokens, and with thinking as the model takes it in this conversation."""
    if body.get("max_tokens") is None:
        body["max_tokens"] = min(max_output_tokens(name) or DEFAULT_TOKENS, MOST_DEFAULT_TOKENS)
    effort = options.get("reasoning_effort")
    if effort is not None and "thinking" not in body:
        _think(body, effort, name)
    if (body.get("thinking") or {}).get("type") == "enabled" and ends_in_unthinking_calls(messages):
        without_thinking(body)
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        if body.get("temperature") not in (None, 1):
            del body["temperature"]
        if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
            without_thinking(body)
            _do_not_think(body, name)
    return body


def _think(body: dict[str, Any], effort: object, name: str) -> None:
    """Ask for thinking as OpenAI's `reasoning_effort` says, or with a number of tokens."""
    if effort in ("none", "minimal"):
        _do_not_think(body, name)
        return
    if isinstance(effort, int):
        budget = effort
    elif model_quirks(name).thinks_adaptively:
        body["thinking"] = {"type": "adaptive"}
        effort = EFFORTS.get(str(effort), str(effort))
        body["output_config"] = {**(body.get("output_config") or {}), "effort": effort}
        return
    else:
        budget = THINKING_BUDGETS.get(str(effort), THINKING_BUDGETS["high"])
    body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    body["max_tokens"] = max(body["max_tokens"], budget + ROOM_TO_ANSWER)


def _do_not_think(body: dict[str, Any], name: str) -> None:
    """Models that think unasked are told not to, as far as they let themselves be told."""
    known = thinker(name)
    if known.thinks_unasked and "none" in known.levels:
        body["thinking"] = {"type": "disabled"}


def without_thinking(body: dict[str, Any]) -> None:
    """Take thinking, and what is asked about it, out of a request."""
    body.pop("thinking", None)
    management = body.get("context_management")
    edits = management.get("edits") if isinstance(management, Mapping) else None
    if isinstance(edits, list):
        kept = [e for e in edits if not str(isinstance(e, Mapping) and e.get("type")).startswith("clear_thinking")]
        body["context_management"] = {**management, "edits": kept}  # type: ignore[dict-item]
        if not kept and len(body["context_management"]) == 1:
            del body["context_management"]


class MessagesQuirks:
    """What is known of one model at one endpoint of the Messages API. Shared by all that ask there."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        """Parameters that it refuses."""

    def adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        """The request as this endpoint takes it."""
        return {k: v for k, v in body.items() if k not in self.refused} if self.refused else body

    def learn(self, error: Exception, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The request without what `error` refuses of it; None where nothing can be left out."""
        if getattr(error, "status_code", None) not in PARAMETER_REFUSED:
            return None
        text = str(error)
        if UNSIGNED_REFUSED.search(text):
            return _without_thoughts(body)
        if UNTHINKING_REFUSED.search(text) and "thinking" in body:
            changed = dict(body)
            without_thinking(changed)
            return changed
        named = {
            name for name, pattern in MESSAGES_REFUSALS.items() if body.get(name) is not None and pattern.search(text)
        }
        if not named:
            return None
        self.refused |= named
        return self.adapt(dict(body))


def _without_thoughts(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The request without any earlier thinking, where there is some."""
    turns = []
    for turn in body["messages"]:
        content = turn["content"]
        kept = [b for b in content if b.get("type") not in THINKING] if isinstance(content, list) else content
        turns.append(turn if kept == content else {**turn, "content": kept or [{"type": "text", "text": "."}]})
    if turns == body["messages"]:
        return None
    changed = {**body, "messages": turns}
    if (changed.get("thinking") or {}).get("type") == "enabled":
        without_thinking(changed)
    return changed
