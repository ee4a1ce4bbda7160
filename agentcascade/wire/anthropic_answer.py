"""Answers of Anthropic's Messages API as chat completions, and back: content, stop reasons, usage by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentcascade.types import Message, Usage
from agentcascade.wire.anthropic_blocks import DETAILS, UNSIGNED, Block
from agentcascade.wire.anthropic_messages import read_assistant, write_assistant

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
STOP_REASONS = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
}
STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""HTTP status of each type of error."""
ANSWER_FIELDS = frozenset({"id", "type", "role", "model", "content", "usage"})
"""Of an answer, what chat completions have a place for."""
THOUGHTS = ("reasoning_content", "reasoning")
"""Fields of a message in which models without signatures think aloud; the first one is shown."""


def read_answer(answer: object) -> Any:
    """A chat completion, as plain data, for a whole answer; what is none of Anthropic's comes back as it is."""
    if not isinstance(answer, Mapping):
        return answer
    if answer.get("type") == "error" or "error" in answer:
        return {"error": read_error(answer.get("error"))}
    content = answer.get("content")
    if not isinstance(content, list):
        return f"a message without content: {str(answer)[:200]}"
    blocks = [b for b in content if isinstance(b, dict)]
    message = with_thoughts(read_assistant([_with_call_fields(b, i) for i, b in enumerate(blocks)]))
    if citations := [c for b in blocks if isinstance(b.get("citations"), list) for c in b["citations"]]:
        message = {**message, "citations": citations}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason(answer.get("stop_reason"))}
    return {
        "id": answer.get("id"),
        "object": "chat.completion",
        "model": answer.get("model"),
        "choices": [choice],
        "usage": answer.get("usage"),
        DETAILS: answer_details(answer),
    }


def _with_call_fields(block: Block, index: int) -> Block:
    """Servers that only resemble Anthropic's leave out ids."""
    if block.get("type") != "tool_use" or (block.get("id") and block.get("name")):
        return block
    return {**block, "id": str(block.get("id") or f"toolu_{index}"), "name": str(block.get("name") or "unnamed")}


def with_thoughts(message: Message) -> Message:
    """The message with its thinking as a text, too, where chat models have it."""
    thoughts = [b.get("thinking") for b in message.get("thinking_blocks") or ()]
    said = "".join(t for t in thoughts if isinstance(t, str))
    return {**message, "reasoning_content": said} if said else message


def answer_details(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer says that chat completions have no place for, its own stop reason and usage report among it."""
    details = {k: v for k, v in answer.items() if k not in ANSWER_FIELDS and v is not None}
    if isinstance(answer.get("usage"), Mapping):
        details["usage"] = answer["usage"]
    return details


def finish_reason(stop_reason: object) -> str | None:
    """The finish reason of a chat completion for a stop reason."""
    return FINISH_REASONS.get(str(stop_reason), "stop") if stop_reason else None


def read_error(error: object) -> dict[str, Any]:
    """An error object with its status in ``code``, as the readers of chat completions know it."""
    body = error if isinstance(error, Mapping) else {"message": str(error)}
    kind = str(body.get("type") or "api_error")
    return {"message": str(body.get("message") or kind), "type": kind, "code": STATUSES.get(kind, 502)}


def write_answer(
    message: Message, *, id: str, model: str, finish: str, usage: Usage, details: object = None, stop: object = None
) -> dict[str, Any]:
    """A whole answer for an assistant's chat message.

    Args:
        message: The answer.
        id: Of the answer.
        model: That it is said to come from.
        finish: The finish reason of a chat completion.
        usage: Of the model that gave it.
        details: What Anthropic itself said beside it (`answer_details`), if it was asked.
        stop: The text that ended it, where its provider said so.
    """
    details = details if isinstance(details, Mapping) else {}
    said = {k: v for k, v in details.items() if k not in ("usage", "stop_reason", "stop_sequence", *ANSWER_FIELDS)}
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": write_content(message),
        **write_stop(finish, details, stop),
        "usage": write_usage(usage, details.get("usage")),
        **said,
    }


def write_content(message: Message) -> list[Block]:
    """The content blocks of an answer. Thinking without a signature gets one by which it is known again."""
    return [*unsigned_thoughts(message), *_said(write_assistant(message))]


def unsigned_thoughts(message: Message) -> list[Block]:
    """A block of what a model without signatures thought; none where its thinking has blocks of its own."""
    if message.get("thinking_blocks"):
        return []
    name = next((n for n in THOUGHTS if isinstance(message.get(n), str) and message[n]), None)
    return [] if name is None else [{"type": "thinking", "thinking": message[name], "signature": f"{UNSIGNED}{name}"}]


def _said(blocks: Sequence[Block]) -> list[Block]:
    return [b for b in blocks if b.get("type") != "text" or b.get("text")]


def write_stop(finish: str, details: Mapping[str, Any], stop: object = None) -> dict[str, Any]:
    """Stop reason and stop sequence: Anthropic's own where its model answered."""
    own = details.get("stop_reason")
    if isinstance(own, str) and finish_reason(own) == finish:
        return {"stop_reason": own, "stop_sequence": details.get("stop_sequence")}
    if isinstance(stop, str) and stop and finish == "stop":
        return {"stop_reason": "stop_sequence", "stop_sequence": stop}
    return {"stop_reason": STOP_REASONS.get(finish, "end_turn"), "stop_sequence": None}


def write_usage(usage: Usage, report: object = None) -> dict[str, Any]:
    """Usage by Anthropic's classes, which are disjoint for what is read, with what else its own `report` says."""
    more = report if isinstance(report, Mapping) else {}
    written = usage.cache_write + usage.cache_write_1h
    return {
        **{k: v for k, v in more.items() if k not in ("iterations", "output_tokens_details") and v is not None},
        "input_tokens": usage.input,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cached_input,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.completion,
        **({"output_tokens_details": {"thinking_tokens": usage.reasoning}} if usage.reasoning else {}),
    }
