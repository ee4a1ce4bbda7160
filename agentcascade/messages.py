"""Messages that can be sent and stored: halves of characters, which models and tools do produce, are no text."""

from __future__ import annotations

import json

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
