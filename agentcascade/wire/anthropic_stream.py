"""Streamed answers of Anthropic's Messages API, event by event, as chunks of chat completions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentcascade.wire.anthropic_answer import answer_details, finish_reason, read_error
from agentcascade.wire.anthropic_blocks import DETAILS, THINKING, Block, arguments_of, input_of
from agentcascade.wire.anthropic_messages import is_canonical, is_unsigned

Chunk = dict[str, Any]
DELTA_FIELDS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
MOST_BLOCKS = 10_000
"""In one answer; more is no answer of a model."""


class ChunkReader:
    """Makes chunks of the events of one stream. `done` says whether the answer ended as it should."""

    def __init__(self) -> None:
        self.done = False
        self._head: dict[str, Any] = {"object": "chat.completion.chunk"}
        self._details: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, Block] = {}
        self._partial: dict[int, list[str]] = {}
        """Parts of the input of tool calls."""
        self._whole: list[Block] = []
        self._calls: dict[int, int] = {}
        """Index of a block → of its tool call."""

    def read(self, event: object) -> Iterator[Chunk]:
        """The chunks that an event comes to, which may be none."""
        if not isinstance(event, Mapping):
            yield {"error": {"message": f"no event of a message: {str(event)[:100]}", "code": 502}}
            return
        kind = event.get("type")
        if kind == "error" or (kind is None and "error" in event):
            yield {"error": read_error(event.get("error"))}
        elif kind == "message_start":
            yield from self._start(event.get("message"))
        elif kind == "content_block_start":
            yield from self._start_block(event.get("index"), event.get("content_block"))
        elif kind == "content_block_delta":
            yield from self._add(event.get("index"), event.get("delta"))
        elif kind == "content_block_stop":
            yield from self._stop_block(event.get("index"))
        elif kind == "message_delta":
            yield from self._end(event)
        elif kind == "message_stop":
            self.done = True

    def _start(self, message: object) -> Iterator[Chunk]:
        if not isinstance(message, Mapping):
            return
        self._head |= {k: message[k] for k in ("id", "model") if isinstance(message.get(k), str)}
        self._details = answer_details(message)
        self._count(message.get("usage"))
        yield self._chunk({"role": "assistant"}, **{DETAILS: dict(self._details)})

    def _start_block(self, index: object, begun: object) -> Iterator[Chunk]:
        if not isinstance(index, int) or not isinstance(begun, Mapping) or len(self._blocks) >= MOST_BLOCKS:
            yield {"error": {"message": "a block of an answer without an index, or too many of them", "code": 502}}
            return
        self._blocks[index] = block = dict(begun)
        kind = block.get("type")
        before = self._whole[-1] if self._whole else {}
        if kind == before.get("type") and (kind == "text" or is_unsigned(before)):  # a block of its own
            yield self._chunk({DETAILS: {"blocks": list(self._whole)}})
        if kind == "text":
            if block.get("text"):
                yield self._chunk({"content": block["text"]})
        elif kind in THINKING:
            if block.get("signature") == "":
                del block["signature"]
            yield self._chunk(_thought(dict(block)))
        elif kind == "tool_use":
            self._calls[index] = call = len(self._calls)
            function = {"name": str(block.get("name") or ""), "arguments": ""}
            id = str(block.get("id") or f"toolu_{index}")
            yield self._chunk({"tool_calls": [{"index": call, "id": id, "type": "function", "function": function}]})

    def _add(self, index: object, delta: object) -> Iterator[Chunk]:
        block = self._blocks.get(index) if isinstance(index, int) else None
        if block is None or not isinstance(delta, Mapping) or not isinstance(index, int):
            return
        kind = str(delta.get("type"))
        if kind == "input_json_delta":
            part = delta.get("partial_json")
            if isinstance(part, str) and part:
                self._partial.setdefault(index, []).append(part)
                if index in self._calls:
                    yield self._chunk(self._arguments(index, part))
            return
        if kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta.get("citation")]
            yield self._chunk({"citations": [delta.get("citation")]})
            return
        for name in (DELTA_FIELDS[kind],) if kind in DELTA_FIELDS else tuple(k for k in delta if k != "type"):
            part = delta.get(name)
            if isinstance(part, str):
                block[name] = part if name == "signature" else f"{block.get(name) or ''}{part}"
        text = delta.get(DELTA_FIELDS.get(kind, ""))
        if isinstance(text, str) and text:
            if kind == "text_delta":
                yield self._chunk({"content": text})
            elif kind == "thinking_delta":
                yield self._chunk(_thought({"type": "thinking", "thinking": text}))
            else:
                yield self._chunk(_thought({"type": "thinking", "thinking": "", "signature": text}))

    def _stop_block(self, index: object) -> Iterator[Chunk]:
        block = self._blocks.get(index) if isinstance(index, int) else None
        if block is None or not isinstance(index, int):
            return
        if index in self._partial:
            block["input"] = input_of("".join(self._partial[index]))
        elif index in self._calls:  # all of it came at the start, or there is none
            yield self._chunk(self._arguments(index, arguments_of(block.get("input"))))
        if block.get("type") == "thinking" and not block.get("signature"):
            block["signature"] = ""
            yield self._chunk(_thought({"type": "thinking", "thinking": "", "signature": ""}))
        self._whole.append(block)
        if not is_canonical(self._whole):
            yield self._chunk({DETAILS: {"blocks": list(self._whole)}})

    def _end(self, event: Mapping[str, Any]) -> Iterator[Chunk]:
        delta = event.get("delta")
        delta = delta if isinstance(delta, Mapping) else {}
        self._details |= {k: v for k, v in {**event, **delta}.items() if v is not None and k not in NOT_DETAILS}
        self._count(event.get("usage"))
        choice = {"index": 0, "delta": {}, "finish_reason": finish_reason(delta.get("stop_reason"))}
        details = {**self._details, "usage": dict(self._usage)}
        yield {**self._head, "choices": [choice], "usage": dict(self._usage), DETAILS: details}

    def _count(self, report: object) -> None:
        """Counts are running totals: what a later report leaves out was said before."""
        if isinstance(report, Mapping):
            self._usage |= {k: v for k, v in report.items() if v is not None}

    def _arguments(self, index: int, part: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": self._calls[index], "function": {"arguments": part}}]}

    def _chunk(self, delta: Mapping[str, Any], **beside: Any) -> Chunk:
        # what was counted so far is in every chunk: a stream that breaks off has a bill of it
        usage = {"usage": dict(self._usage)} if self._usage else {}
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **usage, **beside}


NOT_DETAILS = frozenset({"type", "delta", "usage"})


def _thought(block: Block) -> dict[str, Any]:
    """A part of thinking, as blocks and as the text that chat models think in."""
    said = block.get("thinking")
    return {"thinking_blocks": [block], **({"reasoning_content": said} if isinstance(said, str) and said else {})}
