"""Chat completions and chunks of tests, said in the shape of Anthropic's Messages API, whatever they hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

STOPS: dict[Any, str] = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
}
SIGNATURE = "c2ln"
TOKENS = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}


def answer(data: dict[str, Any]) -> dict[str, Any]:
    """A whole answer."""
    if data.get("error"):
        return {"type": "error", "error": data["error"]}
    if "choices" not in data:
        return data
    content: list[dict[str, Any]] = []
    for choice in data["choices"]:
        message = choice["message"]
        content = [*_thought(message), *_text(message)]
        for call in message.get("tool_calls") or ():
            function = call["function"]
            arguments = function["arguments"]
            input = json.loads(arguments.strip() or "{}") if isinstance(arguments, str) else arguments
            content.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": input})
    reason = data["choices"][0]["finish_reason"] if data["choices"] else None
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": data.get("model")}
    return {**head, "content": content, "stop_reason": STOPS.get(reason, reason), "usage": _usage(data.get("usage"))}


def events(chunks: Iterable[Any], done: bool) -> Iterator[Any]:
    """The events of a stream."""
    yield {"type": "message_start", "message": {"id": "msg_1", "model": "m", "content": []}}
    index, kind = -1, ""
    reason, usage = None, None

    def end() -> Iterator[Any]:
        if kind == "thinking":
            yield delta(type="signature_delta", signature=SIGNATURE)
        if kind:
            yield {"type": "content_block_stop", "index": index}

    def block(wanted: str, begun: Mapping[str, Any]) -> Iterator[Any]:
        nonlocal index, kind
        yield from end()
        index, kind = index + 1, wanted
        yield {"type": "content_block_start", "index": index, "content_block": begun}

    def delta(**fields: Any) -> Any:
        return {"type": "content_block_delta", "index": index, "delta": fields}

    for chunk in chunks:
        if not isinstance(chunk, dict) or chunk.get("error") or "choices" not in chunk:
            yield {"type": "error", **chunk} if isinstance(chunk, dict) and chunk.get("error") else chunk
            continue
        usage = chunk.get("usage", usage)
        for choice in chunk["choices"]:
            said = choice.get("delta") or {}
            reason = choice.get("finish_reason") or reason
            for one in _thought(said):
                if kind != "thinking":
                    yield from block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                yield delta(type="thinking_delta", thinking=one["thinking"])
            for one in _text(said):
                if kind != "text":
                    yield from block("text", {"type": "text", "text": ""})
                yield delta(type="text_delta", text=one["text"])
            for call in said.get("tool_calls") or ():
                function = call["function"]
                if call.get("id"):
                    begun = {"type": "tool_use", "id": call["id"], "name": function["name"], "input": {}}
                    yield from block("tool_use", begun)
                arguments = function["arguments"]
                part = arguments if isinstance(arguments, str) else json.dumps(arguments)
                yield delta(type="input_json_delta", partial_json=part)
    if done or reason is not None:
        yield from end()
    if reason is not None or usage is not None:
        yield {"type": "message_delta", "delta": {"stop_reason": STOPS.get(reason, reason)}, "usage": _usage(usage)}
    if done:
        yield {"type": "message_stop"}


def _usage(usage: Any) -> Any:
    return {TOKENS.get(k, k): v for k, v in usage.items()} if isinstance(usage, dict) else usage


def _thought(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    thought = message.get("reasoning_content")
    return [{"type": "thinking", "thinking": thought, "signature": SIGNATURE}] if thought else []


def _text(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": message["content"]}] if message.get("content") else []
