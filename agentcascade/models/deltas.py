"""The parts of a streamed message, put together again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentcascade.errors import ProviderError
from agentcascade.messages import text_of
from agentcascade.models import message_fields
from agentcascade.types import Delta, Message

MOST_CALLS = 1024
"""Tool calls in one answer; more is no answer of a model."""


class CallIndex:
    """Tells the tool calls of a stream apart: by index, by id where several share an index, else by order.

    A part without an index goes on with the call before it, unless it brings an id or a name of its own.
    """

    def __init__(self) -> None:
        self._at: dict[int, tuple[str, int]] = {}
        self.count = 0

    def place(self, part: Mapping[str, Any]) -> int:
        """The position of the call that `part` belongs to, which may be a new one."""
        index, id = part.get("index"), part.get("id") or ""
        if not isinstance(index, int):
            named = isinstance(part.get("function"), dict) and part["function"].get("name")
            new = self.count == 0 or id or named
            index = -1 - self.count if new else next(reversed(self._at))
        theirs, place = self._at.get(index, ("", -1))
        if place < 0 or (id and theirs and id != theirs):
            if self.count >= MOST_CALLS:
                raise ProviderError(f"the answer has more than {MOST_CALLS:,} tool calls")
            theirs, place = "", self.count
            self.count += 1
        self._at.pop(index, None)  # the last one is the one that was spoken of last
        self._at[index] = (id or theirs, place)
        return place


class Assembly:
    """Collects the deltas of one choice; `message` is what they say together."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._others: dict[str, Any] = {}
        self._calls: list[dict[str, Any]] = []
        self._index = CallIndex()

    def add(self, delta: Delta) -> None:
        for name, value in delta.items():
            if value is None or name in ("role", message_fields.BESIDE):
                continue
            if name == "tool_calls":
                for call in value if isinstance(value, list) else ():
                    if isinstance(call, dict):
                        self._add_call(call)
            elif isinstance(value, str) and message_fields.MESSAGE.get(name) is message_fields.MESSAGE["content"]:
                self._texts.setdefault(name, []).append(value)
            else:
                self._others[name] = message_fields.joined(self._others.get(name), name, value)

    def _add_call(self, part: dict[str, Any]) -> None:
        place = self._index.place(part)
        kind = "custom" if isinstance(part.get("custom"), dict) else "function"
        if place == len(self._calls):
            empty = {"name": "", "input" if kind == "custom" else "arguments": ""}
            self._calls.append({"id": "", "type": kind, kind: empty})
        call = self._calls[place]
        function = part.get(kind)
        named = call.setdefault(kind, {}) if isinstance(function, dict) else {}
        for name, value in function.items() if isinstance(function, dict) else ():
            before = named.get(name, "")
            if isinstance(value, str) and not (name == "name" and value == before):  # which some servers repeat
                named[name] = before + value
        call |= {k: v for k, v in part.items() if k not in ("index", "function", "custom") and v}

    @property
    def begun(self) -> bool:
        """Whether anything came."""
        return bool(self._texts or self._others or self._calls)

    @property
    def message(self) -> Message:
        """What came so far, which may be nothing."""
        found: Message = {"role": "assistant", "content": None}
        found |= {name: "".join(parts) for name, parts in self._texts.items()}
        found |= {k: v for k, v in self._others.items() if found.get(k) is None}
        if self._calls:
            found["tool_calls"] = self._calls
        return found


PIECE = re.compile(r"\s*\S+\s*", re.DOTALL)


PIECES_A_CHUNK = 4
"""Words in a chunk of an answer that is there already."""


def deltas(message: Message) -> Iterator[Delta]:
    """A whole message as the deltas of a stream: a few words at a time, each tool call's head before its arguments."""
    whole = {k: v for k, v in message.items() if k not in ("role", "content", "tool_calls") and v is not None}
    if whole:
        yield whole
    text = text_of(message)
    pieces = PIECE.findall(text) or ([text] if text else [])
    for start in range(0, len(pieces), PIECES_A_CHUNK):
        yield {"content": "".join(pieces[start : start + PIECES_A_CHUNK])}
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function") or {}
        if not function:  # a custom tool's
            yield {"tool_calls": [{**call, "index": index}]}
            continue
        yield {"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]}
        if function.get("arguments"):
            yield {"tool_calls": [{"index": index, "function": {"arguments": function["arguments"]}}]}
