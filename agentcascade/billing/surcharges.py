"""Surcharges: what a chat request can ask for that is not billed by the token, and what becomes of it under a budget.

A budget bounds what is priced. Whatever a provider bills otherwise is refused, with a message, where a budget would
have to bound it; without a budget it passes as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agentcascade.errors import InvalidRequest
from agentcascade.types import Message
from agentcascade.wire.responses_request import NATIVE


def _is_given(value: Any) -> bool:
    return bool(value)


def _is_dear_tier(value: Any) -> bool:
    return value not in (None, "auto", "default", "flex", "batch", "standard", "standard_only")


def _asks_for_more_than_text(value: Any) -> bool:
    return any(m != "text" for m in ([value] if isinstance(value, str) else value or ()))


def _is_fast(value: Any) -> bool:
    return value not in (None, "standard")


OPTIONS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "service_tier": (_is_dear_tier, "other prices for the same tokens (default, auto and flex are allowed)"),
    "speed": (_is_fast, "other prices for the same tokens"),
    "inference_geo": (_is_given, "other prices for the same tokens"),
    "modalities": (_asks_for_more_than_text, "audio and images have prices of their own"),
    "audio": (_is_given, "audio has prices of its own"),
    "web_search_options": (_is_given, "billed by the search"),
    "web_search": (_is_given, "billed by the search"),
    "search_parameters": (_is_given, "billed by the source"),
    "enable_search": (_is_given, "billed by the search"),
    "search_mode": (_is_given, "billed by the search"),
    "plugins": (_is_given, "billed by the use"),
    "mcp_servers": (_is_given, "what a remote server adds to a prompt has no bound"),
    "container": (_is_given, "billed by the session"),
    "prompt": (_is_given, "what a stored prompt adds has no bound"),
    "conversation": (_is_given, "what a conversation at the provider adds has no bound"),
    "previous_response_id": (_is_given, "what a conversation at the provider adds has no bound"),
    "context_management": (_is_given, "what the provider asks of its models beside has no bound"),
    "model": (_is_given, "another model has another price"),
    "models": (_is_given, "another model has another price"),
    "fallbacks": (_is_given, "another model has another price"),
    "route": (_is_given, "another model has another price"),
}
"""Options that change a bill beyond its tokens: when, and why. All others are free, or counted in `worst_case`."""

FUNCTIONS = {"function", "custom", "namespace"}
CLIENTS_OWN = ("bash_", "text_editor_", "computer_", "memory_")
"""Anthropic's tools that run where the client is: they cost their tokens."""

PARTS = {
    "input_audio": "audio has prices of its own",
    "audio": "audio has prices of its own",
    "audio_url": "audio has prices of its own",
    "video": "how many tokens a video has is not known before",
    "video_url": "how many tokens a video has is not known before",
    "file": "how many tokens a file has is not known before",
    "input_file": "how many tokens a file has is not known before",
    "document": "how many tokens a file has is not known before",
    "container_upload": "how many tokens a file has is not known before",
}
"""Parts of messages, by type, whose tokens nobody can count here. Images have a worst case."""


def refuse_surcharges(options: Sequence[Mapping[str, Any]], messages: Sequence[Message]) -> None:
    """Raises `InvalidRequest` for what a budget cannot bound. `options` hold `tools` too."""
    for what, why in _surcharges(options, messages):
        raise InvalidRequest(
            f"{what} cannot be had within a budget ({why}): leave it out, or use a key, namespace and configuration "
            "without one"
        )


def _surcharges(options: Sequence[Mapping[str, Any]], messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    native = [given[NATIVE] for given in options if isinstance(given.get(NATIVE), Mapping)]
    for given in (*options, *native):
        for name in given.keys() & OPTIONS.keys():
            applies, why = OPTIONS[name]
            if applies(given[name]):
                yield name, why
        tools = given.get("tools")
        for tool in tools if isinstance(tools, (list, tuple)) else ():
            if not _is_billed_by_token(tool):
                kind = tool.get("type") or next(iter(tool), "") if isinstance(tool, Mapping) else type(tool).__name__
                yield f"a tool of the provider's own ({str(kind)[:60]!r})", "billed by the use"
    for message in messages:
        if message.get("audio"):
            yield "audio in a message", PARTS["audio"]
        content = message.get("content")
        if not isinstance(content, list):
            continue
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if isinstance(kind, str) and kind in PARTS:
                yield f"a message part of type {kind}", PARTS[kind]


def _is_billed_by_token(tool: Any) -> bool:
    if not isinstance(tool, Mapping):
        return False
    kind = tool.get("type")
    if kind is None:
        return "function" in tool or "name" in tool
    return isinstance(kind, str) and (kind in FUNCTIONS or kind.startswith(CLIENTS_OWN))
