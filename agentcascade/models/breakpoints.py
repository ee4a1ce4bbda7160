"""Prompt-cache breakpoints (`cache_control`), set for models that cache only what is marked: Anthropic's, anywhere.

One at the end of tools and system prompt, one at the end of what the next request begins with, and, in long histories,
further ones before it: a provider looks back `LOOKBACK` content blocks from each for what was written earlier, and an
agent whose student took the steps in between comes back after more. Never more than `MOST`, and none where the caller
set any: on a message, a part, a tool, or for the whole request.

Marks stand where every adapter finds them: on a tool's result and on a tool definition as a field of its own, in all
other messages on their last part that has a text. What is marked says the same: markers are no part of what is cached.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agentcascade.messages import text_of
from agentcascade.models.quirks import ModelQuirks
from agentcascade.protocols import TokenCounter
from agentcascade.types import Message, Tool

MOST = 4
"""Breakpoints of a request, that Anthropic takes."""
LOOKBACK = 20
"""Content blocks, the marked one among them, in which an earlier write is looked for."""
MARK = {"type": "ephemeral"}
FIELD = "cache_control"
WHOLE_REQUEST = (FIELD, "cache_control_injection_points")
"""Options with which a caller has breakpoints set: Anthropic's automatic ones, litellm's."""
PROMPT_HEAD = ("system", "developer")
TOOL_ROLES = ("tool", "function")


class Marked(NamedTuple):
    """Messages and tools with breakpoints, and the number of these; the same objects where there is none."""

    messages: Sequence[Message]
    tools: Sequence[Tool] | None
    breakpoints: int


def has_breakpoints(
    messages: Sequence[Message], tools: object = None, options: Sequence[Mapping[str, Any]] = ()
) -> bool:
    """Whether the caller set a breakpoint: in messages, in tools, or for the whole request in any of `options`."""
    if any(given.get(name) is not None for given in options for name in WHOLE_REQUEST):
        return True
    if isinstance(tools, (list, tuple)) and any(_is_marked_tool(tool) for tool in tools):
        return True
    return any(map(is_marked, messages))


def with_breakpoints(
    messages: Sequence[Message],
    tools: Sequence[Tool] | None,
    quirks: ModelQuirks,
    count: TokenCounter,
    *,
    stable: int | None = None,
) -> Marked:
    """Set the breakpoints of a request whose caller set none.

    Args:
        messages: The prompt.
        tools: Its function definitions.
        quirks: Of the model that is asked: the shortest prefix that it caches, and its tokens.
        count: Counts tokens, until the prefix is long enough.
        stable: Messages in front that the next request begins with, too; default: all.

    Returns:
        Copies of what is marked, and all else as it is.
    """
    if has_breakpoints(messages, tools):
        return Marked(messages, tools, 0)
    stable = len(messages) if stable is None else max(0, min(stable, len(messages)))
    head = next((i for i, m in enumerate(messages[:stable]) if m.get("role") not in PROMPT_HEAD), stable)
    lowest = _first_cacheable(messages[:stable], tools, quirks, count)
    marks: dict[int, Message] = {}
    marked_tools: Sequence[Tool] | None = None
    if head and lowest < head:
        _mark_last(messages, lowest, head, marks)
    elif not head and tools and lowest < 0:
        marked_tools = [*tools[:-1], {**tools[-1], FIELD: MARK}]
    end = stable
    while end > max(head, lowest) and len(marks) + (marked_tools is not None) < MOST:
        place = _mark_last(messages, max(head, lowest), end, marks)
        if place is None:
            break
        end = _looked_back_from(messages, place)
    if not marks and marked_tools is None:
        return Marked(messages, tools, 0)
    sent = [marks.get(i, message) for i, message in enumerate(messages)]
    return Marked(sent, marked_tools or tools, len(marks) + (marked_tools is not None))


def _first_cacheable(
    messages: Sequence[Message], tools: Sequence[Tool] | None, quirks: ModelQuirks, count: TokenCounter
) -> int:
    """Index of the first message at whose end the prefix may be long enough to be cached.

    -1: the tools are long enough by themselves. The number of messages: no prefix is.
    """
    need = quirks.cache_minimum / float(quirks.token_factor)
    tokens = count(json.dumps(tools, default=str)) if tools else 0
    if tokens >= need:
        return -1
    for i, message in enumerate(messages):
        calls = message.get("tool_calls")
        tokens += count(text_of(message)) + (count(json.dumps(calls, default=str)) if calls else 0)
        tokens += sum(MARKABLE.get(str(part.get("type")), 0) for part in _parts(message))
        if tokens >= need:
            return i
    return len(messages)


MARKABLE = {"text": 0, "image_url": 1_500, "image": 1_500, "file": 3_000, "document": 3_000}
"""Types of parts that a breakpoint may stand on, and the tokens of such that hold no text, about."""


def _mark_last(messages: Sequence[Message], first: int, end: int, marks: dict[int, Message]) -> int | None:
    """Mark the last message of `first` to `end` that can be; its index, None where there is none left."""
    for i in range(end - 1, max(first, 0) - 1, -1):
        if i in marks:
            return None
        marked = _with_mark(messages[i])
        if marked is not None:
            marks[i] = marked
            return i
    return None


def _with_mark(message: Message) -> Message | None:
    """The message with a breakpoint at its end; None where nothing is there that may have one.

    Providers refuse one on an empty text and on thinking, and tool calls have no place for it in OpenAI's shape.
    """
    content = message.get("content")
    if message.get("role") in TOOL_ROLES:
        return {**message, FIELD: MARK} if text_of(message).strip() else None
    if isinstance(content, str):
        if not content.strip():
            return None
        return {**message, "content": [{"type": "text", "text": content, FIELD: MARK}]}
    parts = list(content) if isinstance(content, list) else []
    for i in range(len(parts) - 1, -1, -1):
        part = parts[i]
        if isinstance(part, dict) and part.get("type") in MARKABLE:
            if part["type"] == "text" and not str(part.get("text") or "").strip():
                continue
            return {**message, "content": [*parts[:i], {**part, FIELD: MARK}, *parts[i + 1 :]]}
    return None


def _looked_back_from(messages: Sequence[Message], place: int) -> int:
    """The end of the messages that a provider does not look at from a breakpoint at `place`."""
    blocks = 0
    for i in range(place, -1, -1):
        blocks += _blocks(messages[i])
        if blocks >= LOOKBACK:
            return i
    return 0


def _blocks(message: Message) -> int:
    """Content blocks that a message becomes."""
    content = message.get("content")
    texts = len(content) if isinstance(content, list) else bool(content)
    calls = message.get("tool_calls")
    return max(1, texts + (len(calls) if isinstance(calls, list) else 0))


def _parts(message: Message) -> Iterator[Mapping[str, Any]]:
    content = message.get("content")
    return (part for part in content if isinstance(part, Mapping)) if isinstance(content, list) else iter(())


def is_marked(message: Message) -> bool:
    """Whether the caller set a breakpoint on a message, or in it."""
    if isinstance(message.get("content"), str):  # nearly all messages, at every step
        return message.get(FIELD) is not None
    return message.get(FIELD) is not None or any(part.get(FIELD) is not None for part in _parts(message))


def _is_marked_tool(tool: object) -> bool:
    if not isinstance(tool, Mapping):
        return False
    function = tool.get("function")
    return any(isinstance(place, Mapping) and place.get(FIELD) is not None for place in (tool, function))
