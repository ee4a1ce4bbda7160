"""OpenAI-shaped messages: their text, and lone surrogates replaced, which cannot be encoded as UTF-8."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from agentcascade._util.item_results import ItemResults
from agentcascade.types import Completion, Message


def replace_lone_surrogates(message: Message) -> Message:
    """`message` with "?" for every lone surrogate, so that it can be sent and stored; the same object without any.

    Models and tools do produce them: half of an emoji, where a token or a cut ends inside a character.
    """
    try:
        to_json(message, serialize_unknown=True)
    except PydanticSerializationError:
        clean: Message = json.loads(json.dumps(message, ensure_ascii=False, default=str).encode(errors="replace"))
        return clean
    return message


def encodable_messages(messages: Sequence[Message], known: ItemResults[Message] | None = None) -> Sequence[Message]:
    """The conversation as UTF-8 can encode it, "?" for every lone surrogate; the same object where there is none.

    `known` is of its messages.
    """
    if all(known.of(_is_encodable, messages) if known is not None else map(_is_encodable, messages)):
        return messages
    return [message if _is_encodable(message) else replace_lone_surrogates(message) for message in messages]


def encodable_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Likewise the options of a call, its tools among them."""
    try:
        to_json(options, serialize_unknown=True)
    except PydanticSerializationError:
        return {name: without_lone_surrogates(value) for name, value in options.items()}
    return options


def _is_encodable(message: Message) -> bool:
    for value in message.values():
        if isinstance(value, str):
            if not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    return False
        elif value is not None and replace_lone_surrogates(message) is not message:
            return False
    return True


def without_lone_surrogates(value: Any) -> Any:
    """A text, or plain data with texts in it, with "?" for every lone surrogate."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {without_lone_surrogates(k): without_lone_surrogates(v) for k, v in value.items()}
    return [without_lone_surrogates(v) for v in value] if isinstance(value, (list, tuple)) else value


def clean_completion(completion: Completion) -> Completion:
    """The completion with lone surrogates replaced in its messages; the same object without any."""
    messages = tuple(replace_lone_surrogates(m) for m in completion.messages)
    unchanged = all(a is b for a, b in zip(messages, completion.messages))
    return completion if unchanged else completion.model_copy(update={"messages": messages})


def text_of(message: Message) -> str:
    """The text of a message; the text parts of multi-part content, joined by newlines."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        return "\n".join(str(part.get("text") or "") for part in parts)
    return content if isinstance(content, str) else str(content or "")


def text_with_calls(message: Message) -> str:
    """The text of a message and the functions that it calls, as they were sent: of what is no action, too."""
    calls = message.get("tool_calls")
    functions = [call.get("function") for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    said = [f"{f.get('name')}({_sent(f.get('arguments'))})" for f in functions if isinstance(f, Mapping)]
    return "\n".join(text for text in (text_of(message), *said) if text)


def _sent(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)


def with_text(message: Message, text: str) -> Message:
    """A copy of `message` with `text` at its end; multi-part content gets one more text part."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, {"type": "text", "text": text}]}
    return {**message, "content": f"{content or ''}\n\n{text}".lstrip("\n")}


def with_text_before(message: Message, text: str) -> Message:
    """A copy of `message` with `text` at its beginning; multi-part content gets one more text part."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [{"type": "text", "text": text}, *content]}
    return {**message, "content": f"{text}\n\n{content or ''}".rstrip("\n")}
