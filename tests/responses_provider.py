"""A test provider's chat answers in the shape of OpenAI's Responses, for the adapter that asks for those."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def as_response(said: Any) -> Any:
    """The body of ``POST /responses`` that says what a chat completion says; anything else as it is."""
    if not isinstance(said, dict) or not isinstance(said.get("choices"), list):
        return said
    head: dict[str, Any] = {"id": "resp_1", "object": "response", "created_at": 1, "model": said.get("model"),
            "error": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip
    more = {k: v for k, v in said.items() if k not in ("id", "object", "created", "choices", "usage")}
    if not said["choices"]:
        return {**head, "status": "completed", "output": [], "usage": _usage(said.get("usage")), **more}
    choice = said["choices"][0]
    items = list(_items(choice["message"], choice.get("logprobs")))
    return {**head, **_status(choice.get("finish_reason")), "output": items, "usage": _usage(said.get("usage")), **more}


def as_events(chunks: Iterable[Any], done: bool) -> Iterator[Any]:
    """The events that say what chat chunks say; without `done`, or where no chunk says how it ended, without an end."""
    yield {"type": "response.created", "response": {"id": "resp_1", "object": "response", "output": []}}
    finish, usage, ended = None, None, done
    more: dict[str, Any] = {}
    items: dict[str, dict[str, Any]] = {}
    for chunk in chunks:
        if not isinstance(chunk, dict) or "choices" not in chunk:
            yield chunk if chunk is None or "error" in chunk else {"type": "error", **chunk}
            continue
        usage = chunk.get("usage", usage)
        more |= {k: v for k, v in chunk.items() if k in ("model", "service_tier", "system_fingerprint")}
        for choice in chunk["choices"]:
            finish = choice.get("finish_reason") or finish
            yield from _delta_events(choice.get("delta") or {}, choice.get("logprobs"), items)
    for index, item in enumerate(items.values()):
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    if ended:
        status = _status(finish)
        response = {"id": "resp_1", "output": list(items.values()), "usage": _usage(usage), **status, **more}
        yield {"type": f"response.{status['status']}", "response": response}


def _delta_events(delta: Mapping[str, Any], logprobs: Any, items: dict[str, dict[str, Any]]) -> Iterator[Any]:
    def item(key: str, empty: dict[str, Any]) -> tuple[int, dict[str, Any], list[Any]]:
        new = key not in items
        one = items.setdefault(key, empty)
        index = list(items).index(key)
        return index, one, [{"type": "response.output_item.added", "output_index": index, "item": {**one}}] * new

    told = (logprobs or {}).get("content") or []
    for name, kind, field in (("content", "output_text", "text"), ("refusal", "refusal", "refusal")):
        if delta.get(name):
            index, one, added = item("text", {"type": "message", "role": "assistant", "content": []})
            yield from added
            if not one["content"] or one["content"][-1]["type"] != kind:
                one["content"].append({"type": kind, field: "", "annotations": [], "logprobs": told})
            one["content"][-1][field] += delta[name]
            yield {"type": f"response.{kind}.delta", "output_index": index, "delta": delta[name], "logprobs": told}
    if delta.get("reasoning_content"):
        index, one, added = item("thought", {"type": "reasoning", "id": "rs_1", "summary": []})
        yield from added
        one["summary"] = one["summary"] or [{"type": "summary_text", "text": ""}]
        one["summary"][0]["text"] += delta["reasoning_content"]
        yield {
            "type": "response.reasoning_summary_text.delta",
            "output_index": index,
            "delta": delta["reasoning_content"],
        }
    for call in delta.get("tool_calls") or ():
        function = call["function"]
        empty = {"type": "function_call", "call_id": call.get("id"), "name": function.get("name"), "arguments": ""}
        index, one, added = item(f"call{call.get('index', 0)}", empty)
        yield from added
        given = function.get("arguments") or ""
        one["arguments"] = one["arguments"] + given if isinstance(given, str) else given
        if isinstance(given, str):
            yield {"type": "response.function_call_arguments.delta", "output_index": index, "delta": given}


def _items(message: Mapping[str, Any], logprobs: Any) -> Iterator[dict[str, Any]]:
    told = (logprobs or {}).get("content") or []
    if message.get("reasoning_content"):
        summary = [{"type": "summary_text", "text": message["reasoning_content"]}]
        yield {"type": "reasoning", "id": "rs_1", "summary": summary}
    content: list[dict[str, Any]] = []
    if message.get("content"):
        content.append({"type": "output_text", "text": message["content"], "annotations": [], "logprobs": told})
    if message.get("refusal"):
        content.append({"type": "refusal", "refusal": message["refusal"]})
    if content:
        yield {"type": "message", "role": "assistant", "content": content}
    for call in message.get("tool_calls") or ():
        yield {"type": "function_call", "call_id": call["id"], **call["function"]}


def _status(finish: str | None) -> dict[str, Any]:
    why = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish or "")
    return {"status": "incomplete", "incomplete_details": {"reason": why}} if why else {"status": "completed"}


def _usage(usage: Any) -> Any:
    names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
    return {names.get(k, k): v for k, v in usage.items()} if isinstance(usage, dict) else usage
