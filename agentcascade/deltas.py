"""The parts of a streamed message, put together again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentcascade.types import Delta, Message

TEXTS = ("content", "reasoning_content", "refusal")


class Assembly:
    """Collects the deltas of one choice; `message` is what they say together."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._calls: list[dict[str, Any]] = []
        self._at: dict[int, dict[str, Any]] = {}
        self._others: dict[str, Any] = {}

    def add(self, delta: Delta) -> None:
        for name, value in delta.items():
            if value is None or name == "role":
                continue
            if name in TEXTS:
                self._texts.setdefault(name, []).append(value)
            elif name == "tool_calls":
                for call in value:
                    self._add_call(call)
            elif isinstance(value, list):
                self._others[name] = whole([*self._others.get(name, ()), *value])
            else:
                self._others[name] = value

    def _add_call(self, part: dict[str, Any]) -> None:
        index = part.get("index")
        index = index if index is not None else len(self._calls)
        call = self._at.get(index)
        # Some providers give every call of a turn the same index: then another id is another call.
        if call is None or (part.get("id") and call["id"] and part["id"] != call["id"]):
            call = self._at[index] = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            self._calls.append(call)
        function = part.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""
        call |= {k: v for k, v in part.items() if k not in ("index", "function") and v}

    @property
    def message(self) -> Message | None:
        """None as long as it says nothing."""
        message: Message = {"role": "assistant", "content": None}
        message |= {name: "".join(parts) for name, parts in self._texts.items()} | self._others
        if self._calls:
            message["tool_calls"] = self._calls
        return message if message.get("content") or self._calls or message.get("refusal") else None


def whole(parts: Iterable[Any]) -> list[Any]:
    """Blocks of a stream without the cuts in them: thinking comes in parts, of which the last brings the signature.

    Providers refuse a thinking block that comes back in any other form than they made it.
    """
    blocks: list[Any] = []
    for part in parts:
        last = blocks[-1] if blocks and _thinks(blocks[-1]) and not blocks[-1].get("signature") else None
        if last is not None and _thinks(part):
            blocks[-1] = {**last, **part, "thinking": (last.get("thinking") or "") + (part.get("thinking") or "")}
        else:
            blocks.append(part)
    return blocks


def _thinks(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "thinking"
