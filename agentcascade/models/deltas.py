"""Deltas of a streamed message: assembled into the message, and a whole message split into deltas."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentcascade.errors import ProviderError
from agentcascade.messages import text_of
from agentcascade.models import message_fields
from agentcascade.types import Delta, Message

MAX_TOOL_CALLS = 1024
"""In one answer; more is no answer of a model."""
WORD = re.compile(r"\s*\S+\s*", re.DOTALL)
WORDS_PER_DELTA = 4
"""Of an answer that is there already when it is streamed."""


class ToolCallIndex:
    """Tells the tool calls of a stream apart: by index, by id where several share an index, else by order.

    A part without an index continues the call before it, unless it has an id or a name of its own.
    """

    def __init__(self) -> None:
        self._calls: dict[int, tuple[str, int]] = {}
        """The provider's index → (id, position) of its latest call; the call that was spoken of last comes last."""
        self.count: int = 0

    def position(self, part: Mapping[str, Any]) -> int:
        """The position of the call that `part` belongs to, which may be a new one."""
        index, id = part.get("index"), part.get("id") or ""
        if not isinstance(index, int):
            has_name = isinstance(part.get("function"), dict) and part["function"].get("name")
            is_new = self.count == 0 or id or has_name
            index = -1 - self.count if is_new else next(reversed(self._calls))
        call_id, position = self._calls.get(index, ("", -1))
        if position < 0 or (id and call_id and id != call_id):
            if self.count >= MAX_TOOL_CALLS:
                raise ProviderError(f"the answer has more than {MAX_TOOL_CALLS:,} tool calls")
            call_id, position = "", self.count
            self.count += 1
        self._calls.pop(index, None)
        self._calls[index] = (id or call_id, position)
        return position


class DeltaAssembler:
    """Assembles the deltas of one choice; `message` is what they say together."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._others: dict[str, Any] = {}
        self._calls: list[dict[str, Any]] = []
        self._index = ToolCallIndex()

    def add(self, delta: Delta) -> None:
        for name, value in delta.items():
            if value is None or name in ("role", message_fields.EXTRA):
                continue
            if name == "tool_calls":
                for call in value if isinstance(value, list) else ():
                    if isinstance(call, dict):
                        self._add_call(call)
            elif isinstance(value, str) and name in message_fields.TEXT_FIELDS:
                self._texts.setdefault(name, []).append(value)
            else:
                self._others[name] = message_fields.join_field(self._others.get(name), name, value)

    def _add_call(self, part: dict[str, Any]) -> None:
        position = self._index.position(part)
        kind = "custom" if isinstance(part.get("custom"), dict) else "function"
        if position == len(self._calls):
            empty = {"name": "", "input" if kind == "custom" else "arguments": ""}
            self._calls.append({"id": "", "type": kind, kind: empty})
        call = self._calls[position]
        function = part.get(kind)
        call_function = call.setdefault(kind, {}) if isinstance(function, dict) else {}
        for name, value in function.items() if isinstance(function, dict) else ():
            before = call_function.get(name, "")
            if isinstance(value, str) and not (name == "name" and value == before):  # which some servers repeat
                call_function[name] = before + value
        call |= {k: v for k, v in part.items() if k not in ("index", "function", "custom") and v}

    @property
    def is_empty(self) -> bool:
        return not (self._texts or self._others or self._calls)

    @property
    def message(self) -> Message:
        """What came so far, which may be nothing."""
        message: Message = {"role": "assistant", "content": None}
        message |= {name: "".join(parts) for name, parts in self._texts.items()}
        message |= {k: v for k, v in self._others.items() if message.get(k) is None}
        if self._calls:
            message["tool_calls"] = self._calls
        return message


def split_into_deltas(message: Message) -> Iterator[Delta]:
    """A whole message as the deltas of a stream: a few words at a time, each tool call's head before its arguments."""
    unsplit = {k: v for k, v in message.items() if k not in ("role", "content", "tool_calls") and v is not None}
    if unsplit:
        yield unsplit
    text = text_of(message)
    words = WORD.findall(text) or ([text] if text else [])
    for start in range(0, len(words), WORDS_PER_DELTA):
        yield {"content": "".join(words[start : start + WORDS_PER_DELTA])}
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function") or {}
        if not function:  # a custom tool's
            yield {"tool_calls": [{**call, "index": index}]}
            continue
        yield {"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]}
        if function.get("arguments"):
            yield {"tool_calls": [{"index": index, "function": {"arguments": function["arguments"]}}]}
