"""Fields of chat messages, choices and answers, read from what providers send, whole or streamed.

The table of fields is `quirks.MESSAGE_FIELDS`; this is the code on it. A field that it does not have reaches the caller
as the bare client would show it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from agentcascade.models.quirks import MESSAGE_FIELDS, OPAQUE, PARTIAL_BLOCKS
from agentcascade.types import Delta, Message

Join = Callable[[Any, Any], Any]
"""(what is there already, None at first; what a delta brings) → both."""

EXTRA = "_beside"
"""Key of a live delta for what its chunk says beside the message: {"choice": {…}, "answer": {…}}."""

REBUILT: Mapping[str, frozenset[str]] = {
    "choice": frozenset({"index", "message", "delta", "finish_reason"}),
    "answer": frozenset({"id", "object", "created", "choices", "usage", "error"}),
}
"""Fields of choices and answers that are made anew for the caller. Others are handed on."""

PORTABLE_FIELDS = frozenset(name for name, field in MESSAGE_FIELDS.items() if field.portable)
THINKING_FIELDS = tuple(name for name, field in MESSAGE_FIELDS.items() if field.thinking)
_THINKING = frozenset(THINKING_FIELDS)
TEXT_FIELDS = frozenset(name for name, field in MESSAGE_FIELDS.items() if field.join == "text")


def join_field(before: Any, name: str, part: Any) -> Any:
    """Field `name` of a streamed message with one more `part` of it."""
    try:
        return _JOINS.get(name, _join_last)(before, part)
    except TypeError:  # a server that streams one field in two types
        return part


def join_choice_field(before: Any, name: str, part: Any) -> Any:
    """Field `name` of a streamed choice with one more `part` of it: lists of log-probabilities grow."""
    if name != "logprobs":
        return part
    if not isinstance(before, dict) or not isinstance(part, dict):
        return part if part is not None else before
    try:
        return {**before, **{k: _join_lists(before.get(k), v) for k, v in part.items() if v is not None}}
    except TypeError:
        return part


def _join_texts(before: Any, part: Any) -> Any:
    if not isinstance(part, str):  # content in parts, as Mistral streams it
        return part if before is None else _join_lists(before if isinstance(before, list) else [], part)
    return part if before is None else before + part if isinstance(before, str) else before


def _join_lists(before: Any, part: Any) -> Any:
    return [*(before or ()), *part] if isinstance(part, list) else part


def _join_last(before: Any, part: Any) -> Any:
    return part


def _object_join(texts: tuple[str, ...]) -> Join:
    """For objects whose fields `texts` come in parts."""

    def join(before: Any, part: Any) -> Any:
        if not isinstance(before, dict) or not isinstance(part, dict):
            return part
        longer = {
            k: before[k] + v for k, v in part.items() if k in texts and isinstance(v, str) and _is_text(before, k)
        }
        return {**before, **{k: v for k, v in part.items() if v is not None}, **longer}

    return join


def _blocks_join(texts: tuple[str, ...]) -> Join:
    """For lists of blocks that are cut into parts: a part continues the last block if that has its type, index and id.

    Providers refuse a thinking block that comes back in any other form than they made it; a signature ends a block.
    """
    join_block = _object_join(texts)

    def join(before: Any, parts: Any) -> Any:
        if not isinstance(parts, list):
            return parts
        blocks: list[Any] = list(before) if isinstance(before, list) else []
        for part in parts:
            last = blocks[-1] if blocks else None
            if _continues(last, part):
                blocks[-1] = join_block(last, part)
            else:
                blocks.append(part)
        return blocks

    return join


def _continues(last: Any, part: Any) -> bool:
    if not isinstance(last, dict) or not isinstance(part, dict):
        return False
    if last.get("signature") or last.get("type") != part.get("type") or last.get("type") not in PARTIAL_BLOCKS:
        return False
    return all(last.get(k) == part.get(k) or k not in last or k not in part for k in ("index", "id"))


def _is_text(values: Mapping[str, Any], name: str) -> bool:
    return isinstance(values.get(name), str)


_KINDS: Mapping[str, Callable[[tuple[str, ...]], Join]] = {
    "text": lambda texts: _join_texts,
    "list": lambda texts: _join_lists,
    "last": lambda texts: _join_last,
    "object": _object_join,
    "blocks": _blocks_join,
}
_JOINS: Mapping[str, Join] = {name: _KINDS[field.join](field.texts) for name, field in MESSAGE_FIELDS.items()}


def to_plain(value: Any) -> Any:
    """A client's object as plain data: what the server sent, and not what the client's class could hold besides."""
    dump = getattr(value, "model_dump", None)
    if not callable(dump):
        return value
    try:
        return dump(exclude_unset=True, warnings=False)
    except TypeError:
        return dump()


def get_field(part: Any, name: str) -> Any:
    """A field of a response that is a client's object or plain data."""
    return part.get(name) if isinstance(part, dict) else getattr(part, name, None)


def read_message(plain: Mapping[str, Any]) -> Message:
    """An answer's message, as plain data: what it says, without what is null; `content` is there even so."""
    extra = plain.get("provider_specific_fields")
    extra = {k: v for k, v in extra.items() if v is not None} if isinstance(extra, dict) else None
    fields = {k: v for k, v in plain.items() if v is not None and k != "provider_specific_fields" and k != "role"}
    if extra:
        _take_out(extra, fields)
        fields |= {"provider_specific_fields": extra} if extra else {}
    return {"role": "assistant", "content": fields.pop("content", None), **fields}


def _take_out(extra: dict[str, Any], fields: dict[str, Any]) -> None:
    """Refusals and thoughts of whole answers out of where litellm puts them; streams have them outside."""
    if isinstance(extra.get("refusal"), str) and not fields.get("refusal"):
        fields["refusal"] = extra.pop("refusal")
    for name in THINKING_FIELDS:
        if name in extra:
            said = extra.pop(name)
            if said not in [fields.get(known) for known in THINKING_FIELDS]:
                fields.setdefault(name, said)


def read_delta(raw: Any) -> Delta:
    """A streamed part as plain data, without what is empty. Nothing for a chunk of notes, such as Azure's filter's."""
    plain = to_plain(raw)
    delta = {k: v for k, v in plain.items() if v not in (None, "", [], {})} if isinstance(plain, dict) else {}
    if "tool_calls" in delta or "function_call" in delta:
        _write_arguments(delta)
    return delta


def _write_arguments(delta: Delta) -> None:
    """Arguments that a server gives as an object, as the text that everybody reads: Ollama and its kind."""
    calls = delta.get("tool_calls")
    functions = [c.get("function") for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []
    for function in (*functions, delta.get("function_call")):
        if isinstance(function, dict) and not isinstance(function.get("arguments"), (str, type(None))):
            function["arguments"] = json.dumps(function["arguments"], default=str)


def extra_fields(raw: Any, what: Literal["choice", "answer"]) -> dict[str, Any]:
    """What a choice or an answer says beside what every one of them has."""
    rebuilt = REBUILT[what]
    return {
        k: to_plain(v)
        for k, v in _top_level(raw).items()
        if v is not None and v != "" and k not in rebuilt and k[:1] != "_"
    }


def _top_level(raw: Any) -> Mapping[str, Any]:
    """The fields of a client's object or of plain data, without a walk through what is inside them."""
    if isinstance(raw, dict):
        return raw
    return {**getattr(raw, "__dict__", {}), **(getattr(raw, "model_extra", None) or {})}


def has_answer(message: Mapping[str, Any]) -> bool:
    """Whether a message holds anything that an agent could act on or show."""
    return any(message.get(k) for k in ("content", "tool_calls", "refusal", "function_call", "audio", "images"))


def portable(message: Message) -> Message:
    """A message as any provider may be sent it; the same object where nothing is to be left out."""
    if is_portable(message):
        return message
    return {k: v for k, v in message.items() if k in PORTABLE_FIELDS}


def is_portable(message: Message) -> bool:
    """Whether the message has no field that only its maker may be sent."""
    return message.keys() <= PORTABLE_FIELDS


def texts_of(message: Mapping[str, Any], *, opaque: bool = True) -> Iterable[str]:
    """All that a model wrote in a message: to be counted where nobody else counts it. Thinking is counted once.

    Without `opaque`, only what can be read: no signatures, no ciphers.
    """
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield "".join(_text_of_part(part) for part in content)
    yield thinking_of(message, opaque=opaque)
    for name in ("refusal", "function_call"):
        if message.get(name):
            yield _strings_in(message[name])
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        yield _strings_in(call.get("function") if isinstance(call, dict) else None)


def thinking_of(message: Mapping[str, Any], *, opaque: bool = True) -> str:
    """The thinking beside a message's content, "" without any: of several fields, which say the same, the longest."""
    if _THINKING.isdisjoint(message):
        return ""
    left_out = frozenset() if opaque else OPAQUE
    return max((_strings_in(message[k], left_out) for k in THINKING_FIELDS if message.get(k)), key=len, default="")


def _text_of_part(part: Any) -> str:
    """The text of one part of a message's content; of a picture there is none."""
    text = part.get("text") or part.get("thinking") if isinstance(part, dict) else part
    return text if isinstance(text, str) else ""


def _strings_in(value: Any, left_out: frozenset[str] = frozenset()) -> str:
    """All strings inside, one after the other, as deep as answers go; but for what is `left_out` of objects."""
    strings: list[str] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            strings.append(one)
        elif isinstance(one, dict):
            waiting.extend(one.values() if not left_out else (v for k, v in one.items() if k not in left_out))
        elif isinstance(one, (list, tuple)):
            waiting.extend(one)
    return "".join(strings)
