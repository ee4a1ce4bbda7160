"""Messages that can be sent and stored: halves of characters, which models and tools do produce, are no text."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic_core import PydanticSerializationError, to_json

from agentcascade.types import Completion, Message


def whole(completion: Completion) -> Completion:
    """The completion without halves of characters in its messages: they are no text that can be sent or stored."""
    messages = tuple(whole_text(m) for m in completion.messages)
    same = all(a is b for a, b in zip(messages, completion.messages))
    return completion if same else completion.model_copy(update={"messages": messages})


def whole_text(message: Message) -> Message:
    """The same object where nothing is wrong with it."""
    try:
        to_json(message, serialize_unknown=True)
    except PydanticSerializationError:
        found: Message = json.loads(json.dumps(message, ensure_ascii=False, default=str).encode(errors="replace"))
        return found
    return message


def text_of(message: Message) -> str:
    """The text of a message; the text parts of multi-part content, joined by newlines."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        return "\n".join(str(part.get("text") or "") for part in parts)
    return content if isinstance(content, str) else str(content or "")


def with_text(message: Message, text: str) -> Message:
    """A copy of `message` with `text` at its end; multi-part content gets one more text part."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, {"type": "text", "text": text}]}
    return {**message, "content": f"{content or ''}\n\n{text}".lstrip("\n")}
