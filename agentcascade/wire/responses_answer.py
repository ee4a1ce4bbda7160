"""Answers of OpenAI's Responses: the object `response`, written of a chat answer, and read into one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentcascade.types import Message, Usage
from agentcascade.wire import thoughts
from agentcascade.wire.responses_items import CALLS, ITEMS, answer_items
from agentcascade.wire.responses_tools import ToolBook, arguments_of, as_text, chat_name

THINKING = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "thoughts")
"""Fields of a message that hold thoughts as a text."""
CARRIED = ("thinking_blocks", "reasoning_details", "provider_specific_fields", ITEMS, *THINKING)
"""Fields of a message that its maker may want back with its tool calls."""
ECHOED: Mapping[str, Any] = {
    "instructions": None, "metadata": {}, "parallel_tool_calls": True, "temperature": None, "tool_choice": "auto",
    "tools": [], "top_p": None, "max_output_tokens": None, "max_tool_calls": None, "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None}, "text": {"format": {"type": "text"}}, "truncation": "disabled",
    "store": True, "user": None, "service_tier": None, "prompt_cache_key": None, "safety_identifier": None,
    "top_logprobs": None,
}  # fmt: skip
"""Fields of a request that its response repeats, and what they are by default."""
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Finish reasons of chat → why a response is incomplete."""
PREFIXES = {"message": "msg", "function_call": "fc", "custom_tool_call": "ctc", "reasoning": "rs"}


def head(request: Mapping[str, Any], id: str, created: int) -> dict[str, Any]:
    """What a response repeats of its request, in progress and without output."""
    repeated = {k: default if request.get(k) is None else request[k] for k, default in ECHOED.items()}
    return {
        "id": id, "object": "response", "created_at": created, "status": "in_progress", "model": request.get("model"),
        "error": None, "incomplete_details": None, "background": False, "output": [], "usage": None, **repeated,
    }  # fmt: skip


def item_id(response_id: str, kind: str, index: int) -> str:
    """Id of an item, of which the response's can be read: ``fc_…_2`` is the third of ``resp_…``."""
    return f"{PREFIXES.get(kind, 'it')}_{response_id.partition('_')[2]}_{index}"


def place_of(item_id: str) -> tuple[str, int] | None:
    """(id of the response, index) of one of `item_id`'s ids; None for any other."""
    parts = item_id.split("_")
    if len(parts) != 3 or parts[0] not in {*PREFIXES.values(), "it"} or not parts[2].isdecimal() or len(parts[2]) > 6:
        return None
    return f"resp_{parts[1]}", int(parts[2])


def output(
    message: Message, book: ToolBook, response_id: str, model: str, logprobs: Sequence[Any] | None = None
) -> list[dict[str, Any]]:
    """The output items of an answer of `model`; its thoughts first, with what it may want back inside."""
    items = [item for item in answer_items(message, book) if item["type"] != "reasoning"]
    if logprobs:
        text = next((p for i in items if i["type"] == "message" for p in i["content"] if "text" in p), None)
        if text is not None:
            text["logprobs"] = list(logprobs)
    thought = reasoning_item(message, model)
    return [
        {"id": item_id(response_id, item["type"], index), "status": "completed", **item}
        if item["type"] != "reasoning" else {"id": item_id(response_id, "reasoning", index), **item}
        for index, item in enumerate([*([thought] if thought else []), *items])
    ]  # fmt: skip


def reasoning_item(message: Message, model: str) -> dict[str, Any] | None:
    """What `model` thought, as an item without an id; None where it did not say."""
    summary = [{"type": "summary_text", "text": text} for text in thought_texts(message)]
    packet = packet_of(message, model)
    if not summary and not packet:
        return None
    return {"type": "reasoning", "summary": summary} | ({"encrypted_content": packet} if packet else {})


def packet_of(message: Message, model: str) -> str:
    """What `model` may want back of its answer, packed; "" where that is nothing."""
    wanted = message.get("tool_calls") or message.get(ITEMS) or message.get("thinking_blocks")
    fields = {name: message[name] for name in CARRIED if message.get(name)} if wanted else {}
    return thoughts.pack(model, fields) if fields else ""


def thought_texts(message: Message) -> list[str]:
    """The thoughts of an answer as texts, each as long as its model made it."""
    items = message.get(ITEMS)
    texts: list[Any] = []
    for item in items if isinstance(items, list) else ():
        if isinstance(item, Mapping) and item.get("type") == "reasoning":
            texts += [p.get("text") for p in item.get("summary") or item.get("content") or () if isinstance(p, Mapping)]
    if not texts:
        texts = [message[name] for name in THINKING if message.get(name)][:1]
    if not texts:
        blocks = message.get("thinking_blocks")
        texts = [b.get("thinking") for b in blocks if isinstance(b, Mapping)] if isinstance(blocks, list) else []
    return [text for text in texts if isinstance(text, str) and text]


def finished(
    head: Mapping[str, Any], items: Sequence[Mapping[str, Any]], model: str, reason: str, usage: Usage, completed: int
) -> dict[str, Any]:
    """The whole response: completed, or incomplete for the chat finish `reason`."""
    why = INCOMPLETE.get(reason)
    return {
        **head,
        "status": "incomplete" if why else "completed",
        "incomplete_details": {"reason": why} if why else None,
        "completed_at": None if why else completed,
        "model": model,
        "output": list(items),
        "usage": usage_json(usage),
    }


def usage_json(usage: Usage) -> dict[str, Any]:
    """Usage as Responses reports it: input tokens include cached ones, output tokens reasoning."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input,
            "cache_write_tokens": usage.cache_write + usage.cache_write_1h,
        },
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }


def read_answer(response: Any, book: ToolBook) -> dict[str, Any]:
    """A response as a chat completion, as plain data; one that failed as ``{"error": …}``.

    What is no response at all is returned as it is: whoever reads chat completions says so.
    """
    if not isinstance(response, Mapping) or not isinstance(response.get("output"), list):
        return {"error": response["error"]} if isinstance(response, Mapping) and response.get("error") else response
    if response.get("status") in ("failed", "cancelled"):
        return failure(response)
    message, logprobs = read_output(response["output"], book)
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish_reason(response, message)}
    if logprobs:
        choice["logprobs"] = {"content": logprobs, "refusal": None}
    return {"choices": [choice], "usage": response.get("usage"), **answer_fields(response)}


def answer_fields(response: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a response that a chat completion has, too."""
    names = ("model", "service_tier", "system_fingerprint")
    return {name: response[name] for name in names if isinstance(response.get(name), str)}


def finish_reason(response: Mapping[str, Any], message: Message) -> str:
    if response.get("status") == "incomplete":
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, Mapping) else None
        return {why: chat for chat, why in INCOMPLETE.items()}.get(str(reason), str(reason or "length"))
    return "tool_calls" if message.get("tool_calls") else "stop"


STATUSES = {
    "rate_limit_exceeded": 429, "insufficient_quota": 429, "server_error": 500, "invalid_prompt": 400,
    "context_length_exceeded": 400, "content_filter": 400, "vector_store_timeout": 504,
}  # fmt: skip
"""HTTP statuses that codes of failed responses stand for."""


def failure(response: Mapping[str, Any]) -> dict[str, Any]:
    """A failed response, or an error event, as a chat completion's ``error``, with the usage that was paid for."""
    error = response.get("error")
    error = error if isinstance(error, Mapping) else response
    code = str(error.get("code") or "")
    said = str(error.get("message") or f"the response is {str(response.get('status') or 'failed')[:40]}")
    fields = {"message": f"{code}: {said}" if code and code not in said else said, "code": STATUSES.get(code, 502)}
    return {"error": fields} | ({"usage": response["usage"]} if response.get("usage") else {})


def read_output(items: Sequence[Any], book: ToolBook) -> tuple[Message, list[Any]]:
    """(assistant message, log-probabilities) of output items; items that are none are left out."""
    message: Message = {"role": "assistant", "content": None}
    said: list[dict[str, Any]] = []
    logprobs: list[Any] = []
    thoughts: list[str] = []
    annotations: list[Any] = []
    for item in items:
        kind = item.get("type") if isinstance(item, Mapping) else None
        kind = kind if isinstance(kind, str) else ""
        if kind == "message":
            text, refusal = "", ""
            for part in _parts(item.get("content")):
                text += part["text"] if isinstance(part.get("text"), str) else ""
                refusal += part["refusal"] if isinstance(part.get("refusal"), str) else ""
                logprobs += part["logprobs"] if isinstance(part.get("logprobs"), list) else []
                annotations += _citations(part.get("annotations"))
            message["content"] = "\n\n".join(t for t in (message["content"], text) if t) or message["content"]
            if refusal:
                message["refusal"] = message.get("refusal", "") + refusal
            phase = {"phase": item["phase"]} if isinstance(item.get("phase"), str) else {}
            said.append({"type": "message", "text": text, "refusal": refusal, **phase})
        elif kind in CALLS:
            call = _call(item, kind, book)
            message.setdefault("tool_calls", []).append(call)
            said.append({"type": kind})
        elif kind == "reasoning":
            thoughts += _texts(item.get("summary")) or _texts(item.get("content"))
            said.append({k: v for k, v in item.items() if k != "status" and v is not None})
        elif kind:
            said.append(dict(item))
    if thoughts:
        message["reasoning_content"] = "\n\n".join(thoughts)
    if annotations:
        message["annotations"] = annotations
    texts = [item for item in said if item["type"] == "message"]
    if len(texts) == 1:
        said = [{"type": "message", **_phase(i)} if i is texts[0] else i for i in said]
    if len(texts) > 1 or any(i["type"] not in ("message", *CALLS) or "phase" in i for i in said):
        message[ITEMS] = said
    return message, logprobs


def _phase(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"phase": item["phase"]} if "phase" in item else {}


def _texts(parts: object) -> list[str]:
    """The texts of parts, without those that are empty."""
    return [p["text"] for p in _parts(parts) if isinstance(p.get("text"), str) and p["text"]]


def _parts(value: object) -> Iterator[Mapping[str, Any]]:
    for part in value if isinstance(value, list) else ():
        if isinstance(part, Mapping):
            yield part


def _citations(annotations: object) -> list[Any]:
    """Citations as chat has them."""
    fields = ("url", "title", "start_index", "end_index")
    return [
        {"type": "url_citation", "url_citation": {k: a.get(k) for k in fields}}
        for a in _parts(annotations)
        if a.get("type") == "url_citation"
    ]


def _call(item: Mapping[str, Any], kind: str, book: ToolBook) -> dict[str, Any]:
    """A call as chat has it. A name that cannot be is left for the reader of calls to refuse."""
    text = as_text(item.get(CALLS[kind]))
    name, space = item.get("name"), item.get("namespace")
    name = chat_name(name, space if isinstance(space, str) else None) if isinstance(name, str) else name
    custom = kind == "custom_tool_call"
    if custom and not book.responses_name(str(name)).custom:
        return {"id": item.get("call_id"), "type": "custom", "custom": {"name": name, "input": text}}
    arguments = arguments_of(text) if custom else text
    return {"id": item.get("call_id"), "type": "function", "function": {"name": name, "arguments": arguments}}
