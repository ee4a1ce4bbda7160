"""Events of a streamed answer of Anthropic's Messages API, made of the chunks of a chat completion.

Blocks come one after the other, each of one kind, each opened and closed once: clients put an answer together by that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agentcascade.types import Usage
from agentcascade.wire.anthropic_answer import THOUGHTS, write_stop, write_usage
from agentcascade.wire.anthropic_blocks import DETAILS, UNSIGNED, Block
from agentcascade.wire.anthropic_messages import ORDER

Event = dict[str, Any]
NO_USAGE = {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
"""At the start of an answer whose provider tells at its end: the last event corrects it."""


ONLY_CALLS = frozenset({"tool_calls", "role"})


class EventWriter:
    """Makes the events of one answer: `start`, then `read` for every chunk, then `end`."""

    def __init__(self, id: str, model: str) -> None:
        self._id, self._model = id, model
        self._kind = ""
        """Of the block that is open; empty: none is."""
        self._index = 0
        self._call = -1
        self._arguments = ""
        self._calls_begun: set[int] = set()
        self._waiting: list[tuple[Mapping[str, Any], Mapping[str, Any] | None]] = []
        """Deltas, or calls of them, that came while a call was not whole."""
        self._foreign = 0
        self._thinks_in = ""
        self._pinged = False

    def start(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """The first event; `chunk` is the first one, and is still to be read."""
        details = chunk.get(DETAILS)
        report = details.get("usage") if isinstance(details, Mapping) else None
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": chunk.get("model") or self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**NO_USAGE, **(report if isinstance(report, Mapping) else {})},
        }
        yield {"type": "message_start", "message": message}

    def read(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """The events of a chunk of the first choice."""
        for choice in chunk.get("choices") or ():
            if choice.get("index"):
                continue
            delta = choice.get("delta") or {}
            calls = delta.get("tool_calls") or ()
            for call in calls if delta.keys() <= ONLY_CALLS else (None, *calls):
                if self._must_wait(call):
                    self._waiting.append((delta, call))
                else:
                    yield from self._write(delta, call)
                    if self._waiting:
                        yield from self._flush()

    def end(
        self, finish: str, usage: Usage, details: object = None, stop: object = None, **fields: Any
    ) -> Iterator[Event]:
        """The last events; `fields` stand beside the stop reason and usage."""
        yield from self._flush(at_end=True)
        yield from self._close()
        details = details if isinstance(details, Mapping) else {}
        delta = write_stop(finish, details, stop)
        delta |= {k: details[k] for k in ("stop_details", "container") if details.get(k) is not None}
        beside = {k: details[k] for k in ("context_management",) if details.get(k) is not None}
        counted = write_usage(usage, details.get("usage"))
        yield {"type": "message_delta", "delta": delta, "usage": counted, **beside, **fields}
        yield {"type": "message_stop"}

    def _think(self, delta: Mapping[str, Any]) -> Iterator[Event]:
        blocks = delta.get("thinking_blocks")
        if isinstance(blocks, list) and blocks:
            for block in blocks:
                if isinstance(block, Mapping):
                    yield from self._think_signed(block)
            return
        name = next((n for n in THOUGHTS if isinstance(delta.get(n), str) and delta[n]), None)
        if name is not None:
            self._thinks_in = self._thinks_in or name
            yield from self._open("unsigned thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": delta[name]})

    def _think_signed(self, block: Mapping[str, Any]) -> Iterator[Event]:
        if block.get("type") == "redacted_thinking":
            yield from self._close()
            yield from self._open("redacted_thinking", dict(block))
            yield from self._close()
            return
        yield from self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        if block.get("thinking"):
            yield self._delta({"type": "thinking_delta", "thinking": block["thinking"]})
        if block.get("signature"):
            yield self._delta({"type": "signature_delta", "signature": block["signature"]})
            yield from self._close()

    def _say(self, text: str) -> Iterator[Event]:
        yield from self._open("text", {"type": "text", "text": ""})
        yield self._delta({"type": "text_delta", "text": text})

    def _must_wait(self, call: Mapping[str, Any] | None) -> bool:
        """Whether a call that is not whole is open, and this is no part of it: servers may interleave them."""
        if self._kind != "tool_use" or (call is not None and self._position(call) == self._call):
            return False
        return not _is_whole(self._arguments)

    def _position(self, call: Mapping[str, Any]) -> int:
        index = call.get("index")
        return index if isinstance(index, int) else self._call

    def _write(self, delta: Mapping[str, Any], call: Mapping[str, Any] | None) -> Iterator[Event]:
        """What a delta says beside its calls, or one of them."""
        if call is not None:
            yield from self._write_call(call)
            return
        yield from self._think(delta)
        for name in ("content", "refusal"):
            text = delta.get(name)
            if isinstance(text, str) and text:
                yield from self._say(text)
        for citation in delta.get("citations") or ():
            if self._kind == "text" and isinstance(citation, Mapping) and citation.get("type"):
                yield self._delta({"type": "citations_delta", "citation": citation})
        details = delta.get(DETAILS)
        if isinstance(details, Mapping):
            yield from self._close()  # such a delta comes at the end of a block
            yield from self._show_foreign(details.get("blocks"))

    def _write_call(self, call: Mapping[str, Any]) -> Iterator[Event]:
        index, function = self._position(call), call.get("function") or {}
        if index not in self._calls_begun:
            yield from self._close()
            self._calls_begun.add(index)
            self._call, self._arguments = index, ""
            block = {"type": "tool_use", "id": call.get("id") or f"toolu_{index}", "name": function.get("name") or ""}
            yield from self._open("tool_use", {**block, "input": {}})
        elif index != self._call:
            return  # it was whole: all that can come is space
        part = function.get("arguments")
        if isinstance(part, str) and part and self._kind == "tool_use":
            self._arguments += part
            yield self._delta({"type": "input_json_delta", "partial_json": part})

    def _flush(self, at_end: bool = False) -> Iterator[Event]:
        """What had to wait, each call with all of its parts."""
        while self._waiting and (at_end or not self._must_wait(self._waiting[0][1])):
            delta, call = self._waiting.pop(0)
            yield from self._write(delta, call)
            same = [w for w in self._waiting if call and w[1] and self._position(w[1]) == self._position(call)]
            self._waiting = [w for w in self._waiting if w not in same]
            for delta, call in same:
                yield from self._write(delta, call)

    def _show_foreign(self, blocks: object) -> Iterator[Event]:
        """Blocks that chat messages have no field for; the list is all of the answer's so far."""
        foreign = (
            [b for b in blocks if isinstance(b, dict) and b.get("type") not in ORDER]
            if isinstance(blocks, list)
            else []
        )
        for block in foreign[self._foreign :]:
            input = block.get("input")
            if isinstance(input, Mapping):
                yield from self._open(str(block["type"]), {**block, "input": {}})
                yield self._delta({"type": "input_json_delta", "partial_json": json.dumps(input, ensure_ascii=False)})
            else:
                yield from self._open(str(block["type"]), block)
            yield from self._close()
        self._foreign = max(self._foreign, len(foreign))

    def _open(self, kind: str, block: Block) -> Iterator[Event]:
        if kind == self._kind:
            return
        yield from self._close()
        self._kind = kind
        yield {"type": "content_block_start", "index": self._index, "content_block": block}
        if not self._pinged:
            self._pinged = True
            yield {"type": "ping"}

    def _close(self) -> Iterator[Event]:
        if not self._kind:
            return
        if self._kind == "unsigned thinking":
            yield self._delta({"type": "signature_delta", "signature": f"{UNSIGNED}{self._thinks_in}"})
        self._kind = ""
        yield {"type": "content_block_stop", "index": self._index}
        self._index += 1

    def _delta(self, delta: Mapping[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


def _is_whole(arguments: str) -> bool:
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True


def error_event(kind: str, message: str) -> Event:
    """The event that ends a stream that went wrong."""
    return {"type": "error", "error": {"type": kind, "message": message}}


def server_sent(event: Mapping[str, Any], data: bytes) -> bytes:
    """An event as it is sent; `data` is its JSON."""
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + data + b"\n\n"
