"""Fields of chat messages, choices and answers: one table of what survives, for every model adapter, whole or streamed.

What is not in the table survives as well, joined as `last`: a provider's new field reaches the caller as the bare
client would show it. Sent back to a provider is only what `SENT` names, and the rest to the model that made it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agentcascade.types import Delta, Message

Join = Callable[[Any, Any], Any]
"""(what is there already, None at first; what a delta brings) → both."""

SENT = frozenset(
    {
        *("role", "content", "tool_calls", "function_call", "refusal", "name", "audio", "tool_call_id"),
        *("cache_control", "prefix", "partial"),  # the caller's own word to the provider
    }
)
"""What any provider may be sent of a message. All else is its maker's own: thinking, signatures, annotations."""

BESIDE = "_beside"
"""Key of a live delta under which travels what a chunk says beside it: {"choice": {…}, "answer": {…}}."""

STRUCTURE = {
    "choice": frozenset({"index", "message", "delta", "finish_reason"}),
    "answer": frozenset({"id", "object", "created", "choices", "usage", "error"}),
}
"""Fields of choices and answers that are made here anew. Others are handed on."""


def _text(before: Any, part: Any) -> Any:
    if not isinstance(part, str):  # content in parts, as Mistral streams it
        return part if before is None else _list(before if isinstance(before, list) else [], part)
    return part if before is None else before + part if isinstance(before, str) else before


def _list(before: Any, part: Any) -> Any:
    return [*(before or ()), *part] if isinstance(part, list) else part


def _last(before: Any, part: Any) -> Any:
    return part


def _object(*texts: str) -> Join:
    """Objects whose `texts` come in parts."""

    def join(before: Any, part: Any) -> Any:
        if not isinstance(before, dict) or not isinstance(part, dict):
            return part
        grown = {k: before[k] + v for k, v in part.items() if k in texts and isinstance(v, str) and _is_text(before, k)}
        return {**before, **{k: v for k, v in part.items() if v is not None}, **grown}

    return join


def _blocks(*texts: str) -> Join:
    """Lists of blocks that are cut into parts: a part goes on where the last block is of its kind, index and id.

    Providers refuse a thinking block that comes back in any other form than they made it; a signature ends a block.
    """

    def join(before: Any, parts: Any) -> Any:
        if not isinstance(parts, list):
            return parts
        blocks: list[Any] = list(before) if isinstance(before, list) else []
        for part in parts:
            last = blocks[-1] if blocks else None
            if _goes_on(last, part):
                blocks[-1] = _object(*texts)(last, part)
            else:
                blocks.append(part)
        return blocks

    return join


def _goes_on(last: Any, part: Any) -> bool:
    if not isinstance(last, dict) or not isinstance(part, dict):
        return False
    if last.get("signature") or last.get("type") != part.get("type") or last.get("type") not in PIECEMEAL:
        return False
    return all(last.get(k) == part.get(k) or k not in last or k not in part for k in ("index", "id"))


def _is_text(found: Mapping[str, Any], name: str) -> bool:
    return isinstance(found.get(name), str)


PIECEMEAL = {"thinking", "reasoning.text", "reasoning.summary"}
"""Types of blocks that are streamed in parts."""

MESSAGE: Mapping[str, Join] = {
    "content": _text,
    "refusal": _text,
    "reasoning_content": _text,  # DeepSeek, vLLM, llama.cpp, Mistral by litellm
    "reasoning": _text,  # OpenRouter, Groq, Together, Ollama, vLLM
    "reasoning_text": _text,  # GitHub Copilot
    "thinking": _text,  # Ollama's own name
    "thoughts": _text,
    "thinking_blocks": _blocks("thinking"),  # Anthropic by litellm
    "reasoning_details": _blocks("text", "summary"),  # OpenRouter
    "provider_specific_fields": _object(),  # litellm: signatures of Gemini and others
    "audio": _object("data", "transcript"),
    "function_call": _object("name", "arguments"),
    "annotations": _list,
    "citations": _list,
    "images": _list,
}
"""How the parts of a streamed message are joined. Tool calls are joined by index: see `deltas`."""

CHOICE: Mapping[str, Join] = {"logprobs": lambda before, part: _logprobs(before, part)}
THINKING = (
    *("reasoning_content", "reasoning", "thinking_blocks", "reasoning_details"),
    *("reasoning_text", "thinking", "thoughts"),
)
"""The same thoughts, as different servers call them."""
OPAQUE = frozenset({"signature", "data", "encrypted_content", "id", "type", "format"})
"""Of a block of thoughts, what is no text: signatures and ciphers are long, and have no tokens of their own."""


def _logprobs(before: Any, part: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(part, dict):
        return part if part is not None else before
    return {k: _list(before.get(k), v) if v is not None else before.get(k) for k, v in {**before, **part}.items()}


def joined(before: Any, name: str, part: Any, table: Mapping[str, Join] = MESSAGE) -> Any:
    """Field `name` with one more `part` of it."""
    try:
        return table.get(name, _last)(before, part)
    except TypeError:  # a server that streams one field in two types
        return part


def plain(value: Any) -> Any:
    """A client's object as plain data: what the server sent, and not what the client's class could hold besides."""
    dump = getattr(value, "model_dump", None)
    if not callable(dump):
        return value
    try:
        return dump(exclude_unset=True, warnings=False)
    except TypeError:
        return dump()


def get(part: Any, name: str) -> Any:
    """A field of a response that is a client's object or plain data."""
    return part.get(name) if isinstance(part, dict) else getattr(part, name, None)


def message(raw: Any) -> Message:
    """An answer's message as plain data: what it says, without what is null; `content` is there even so."""
    fields = plain(raw)
    fields = fields if isinstance(fields, dict) else {}
    own = fields.get("provider_specific_fields")
    own = {k: v for k, v in own.items() if v is not None} if isinstance(own, dict) else None
    kept = {k: v for k, v in fields.items() if v is not None and k != "provider_specific_fields" and k != "role"}
    if own:
        if isinstance(own.get("refusal"), str) and not kept.get("refusal"):  # where litellm puts it
            kept["refusal"] = own.pop("refusal")
        kept |= {"provider_specific_fields": own} if own else {}
    return {"role": "assistant", "content": kept.pop("content", None), **kept}


def delta(raw: Any) -> Delta:
    """A streamed part as plain data, without what is empty. Nothing for a chunk of notes, such as Azure's filter's."""
    fields = plain(raw)
    found = {k: v for k, v in fields.items() if v not in (None, "", [], {})} if isinstance(fields, dict) else {}
    if "tool_calls" in found or "function_call" in found:
        _write_arguments(found)
    return found


def _write_arguments(found: Delta) -> None:
    """Arguments that a server gives as an object, as the text that everybody reads: Ollama and its kind."""
    calls = found.get("tool_calls")
    holders = [c.get("function") for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []
    for function in (*holders, found.get("function_call")):
        if isinstance(function, dict) and not isinstance(function.get("arguments"), (str, type(None))):
            function["arguments"] = json.dumps(function["arguments"], default=str)


def beside(raw: Any, what: str) -> dict[str, Any]:
    """What a choice or an answer (`what`) says beside what every one of them has."""
    known = STRUCTURE[what]
    return {
        k: plain(v) for k, v in _top(raw).items() if v is not None and v != "" and k not in known and k[:1] != "_"
    }  # fmt: skip


def _top(raw: Any) -> Mapping[str, Any]:
    """The fields of a client's object or of plain data, without a walk through what is inside them."""
    if isinstance(raw, dict):
        return raw
    return {**getattr(raw, "__dict__", {}), **(getattr(raw, "model_extra", None) or {})}


def says_something(found: Mapping[str, Any]) -> bool:
    """Whether a message holds anything that an agent could act on or show."""
    return any(found.get(k) for k in ("content", "tool_calls", "refusal", "function_call", "audio", "images"))


def public(found: Message) -> Message:
    """A message as any provider may be sent it; the same object where nothing is to be left out."""
    return found if found.keys() <= SENT else {k: v for k, v in found.items() if k in SENT}


def own(found: Message) -> bool:
    """Whether the message has fields that only its maker may be sent."""
    return not found.keys() <= SENT


def texts(found: Mapping[str, Any], *, opaque: bool = True) -> Iterable[str]:
    """All that a model wrote in a message: to be counted where nobody else counts it. Thoughts are counted once.

    Without `opaque`, only what can be read: no signatures, no ciphers.
    """
    left_out = frozenset() if opaque else OPAQUE
    content = found.get("content")
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield "".join(_words(part) for part in content)
    yield max((_joined_strings(found.get(k), left_out) for k in THINKING if found.get(k)), key=len, default="")
    for name in ("refusal", "function_call"):
        if found.get(name):
            yield _joined_strings(found[name])
    calls = found.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        yield _joined_strings(function)


def _words(part: Any) -> str:
    """The text of one part of a message's content; of a picture there is none."""
    found = part.get("text") or part.get("thinking") if isinstance(part, dict) else part
    return found if isinstance(found, str) else ""


def _joined_strings(value: Any, left_out: frozenset[str] = frozenset()) -> str:
    """All strings inside, one after the other, as deep as answers go; but for what is `left_out` of objects."""
    found: list[str] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, dict):
            waiting.extend(one.values() if not left_out else (v for k, v in one.items() if k not in left_out))
        elif isinstance(one, (list, tuple)):
            waiting.extend(one)
    return "".join(found)
