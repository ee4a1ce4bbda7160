"""Items of OpenAI's Responses (messages, calls, results, reasoning) to and from chat messages.

An answer of several items is one assistant message; what chat has no place for stands in its field ``response_items``:
the answer's items in their order, of which texts and calls are only named, since the message itself has them.
Results stand behind the message whose calls they answer, wherever the client put them: chat allows nothing in between.
Developer messages become system messages, which every model knows, and those at the beginning become one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentcascade.types import Message
from agentcascade.wire import thoughts
from agentcascade.wire.anthropic_blocks import DETAILS
from agentcascade.wire.responses_content import read_content, write_content, write_output
from agentcascade.wire.responses_tools import ToolBook, arguments_of, chat_name, input_of
from agentcascade.wire.unusable import UnusableField

ITEMS = "response_items"
"""Field of an assistant message: what its Responses items have beside its text and calls."""
MOST_ITEMS = 20_000
CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
RESULTS = frozenset({"function_call_output", "custom_tool_call_output"})
ROLES = frozenset({"system", "developer", "user", "assistant"})
PROVIDERS_OWN = frozenset(
    {
        *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "mcp_call"),
        *("mcp_list_tools", "mcp_approval_request", "tool_search_call", "tool_search_output", "compaction"),
    }
)
"""Items of what a provider did itself: they go back to it with the answer that they are part of."""


@dataclass
class _Turn:
    """One chat message in the making, and the results that stand behind it."""

    message: Message
    items: list[dict[str, Any]] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)
    open_calls: list[str] = field(default_factory=list)


class ItemReader:
    """Reads the items of one request into chat messages.

    Args:
        book: The tools of the request.
        models: Names of the models that may be given back what they thought.
        keeps_foreign: Whether reasoning that names no maker, and what a provider did itself, is kept for the teacher.
    """

    def __init__(self, book: ToolBook, models: Collection[str] = (), *, keeps_foreign: bool = False) -> None:
        self._book, self._models, self._keeps_foreign = book, models, keeps_foreign
        self._turns: list[_Turn] = []

    def read(self, items: Iterable[Any]) -> list[Message]:
        """The messages. Raises `UnusableField`, with the item's path, for what cannot be used."""
        for index, item in enumerate(items):
            if index >= MOST_ITEMS:
                raise UnusableField(f"input: there are more than {MOST_ITEMS:,} items", "input")
            where = f"input[{index}]"
            if not isinstance(item, Mapping):
                raise UnusableField(f"{where}: an item is an object, not {type(item).__name__}", where)
            self._read(item, where)
        messages: list[Message] = []
        for turn in self._turns:
            if turn.open_calls:
                raise UnusableField(
                    f"input: there is no output for the tool call {turn.open_calls[0][:80]!r}: send a "
                    "function_call_output with its call_id",
                    "input",
                )
            messages += [_finished(turn), *turn.results]
        return messages

    def _read(self, item: Mapping[str, Any], where: str) -> None:
        kind = item.get("type") or ("message" if "role" in item else "")
        kind = kind if isinstance(kind, str) else str(kind)[:60]
        if kind == "message":
            self._read_message(item, where)
        elif kind in CALLS:
            self._read_call(item, kind, where)
        elif kind in RESULTS:
            self._read_result(item, where)
        elif kind == "reasoning":
            self._read_reasoning(item)
        elif kind in PROVIDERS_OWN and self._keeps_foreign:
            self._answering().items.append(dict(item))
        elif kind == "item_reference":
            raise UnusableField(
                f"{where}: nothing is kept here under the id {str(item.get('id'))[:80]!r}", f"{where}.id"
            )
        else:
            raise UnusableField(
                f"{where}.type: an item of type {kind[:60]!r} cannot be used with this model: it needs a provider "
                "that runs such tools",
                f"{where}.type",
            )

    def _read_message(self, item: Mapping[str, Any], where: str) -> None:
        role = item.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise UnusableField(
                f"{where}.role: {str(role)[:60]!r} is none of {', '.join(sorted(ROLES))}", f"{where}.role"
            )
        if role != "assistant":
            content = read_content(item.get("content"), f"{where}.content")
            self._turns.append(_Turn({"role": "system" if role == "developer" else role, "content": content}))
            return
        text, refusal = _answer_texts(item.get("content"), f"{where}.content")
        turn = self._answering()
        message = turn.message
        message["content"] = "\n\n".join(t for t in (message.get("content"), text) if t) or None
        if refusal:
            message["refusal"] = "\n\n".join(t for t in (message.get("refusal"), refusal) if t)
        phase = {"phase": item["phase"]} if isinstance(item.get("phase"), str) else {}
        turn.items.append({"type": "message", "text": text, "refusal": refusal, **phase})

    def _read_call(self, item: Mapping[str, Any], kind: str, where: str) -> None:
        id, name, text = (item.get(k) for k in ("call_id", "name", CALLS[kind]))
        if not isinstance(id, str) or not id or not isinstance(name, str) or not isinstance(text, str):
            raise UnusableField(f"{where}: a {kind} needs call_id, name and {CALLS[kind]}, texts all of them", where)
        turn = self._answering()
        space = item.get("namespace")
        function = {
            "name": chat_name(name, space if isinstance(space, str) else None),
            "arguments": arguments_of(text) if kind == "custom_tool_call" else text,
        }
        calls = turn.message.setdefault("tool_calls", [])
        calls.append({"id": id, "type": "function", "function": function})
        turn.items.append({"type": kind})
        turn.open_calls.append(id)

    def _read_result(self, item: Mapping[str, Any], where: str) -> None:
        id = item.get("call_id")
        turn = next((t for t in reversed(self._turns) if id in t.open_calls), None)
        if turn is None:
            raise UnusableField(
                f"{where}: there is no tool call with call_id {str(id)[:80]!r} that still waits for its output", where
            )
        turn.open_calls.remove(str(id))
        content = read_content(item.get("output"), f"{where}.output")
        result: Message = {"role": "tool", "tool_call_id": id, "content": content}
        if isinstance(content, list) and any(part["type"] != "text" for part in content):
            result[DETAILS] = {}  # chat has no images in results: see `chat_only`
        turn.results.append(result)

    def _read_reasoning(self, item: Mapping[str, Any]) -> None:
        fields = thoughts.unpack(item.get("encrypted_content"), self._models)
        if fields is None:  # nobody says whose it is
            if self._keeps_foreign:
                self._answering().items.append(dict(item))
        elif fields:
            turn = self._answering()
            turn.message.update({k: v for k, v in fields.items() if k not in ("role", "content", "tool_calls")})

    def _answering(self) -> _Turn:
        """The answer that the next of its items belongs to."""
        last = self._turns[-1] if self._turns else None
        if last is None or last.message["role"] != "assistant" or last.results:
            self._turns.append(_Turn({"role": "assistant", "content": None}))
        return self._turns[-1]


def _finished(turn: _Turn) -> Message:
    """The message, with its items where they say more than it does itself."""
    message = turn.message
    if message["role"] != "assistant":
        return message
    if ITEMS in message:  # as its maker gave them, unless the client has changed the answer since
        if not _fits(message.get(ITEMS), message):
            del message[ITEMS]
        return message
    if _is_plain(turn.items):
        return message
    texts = [item for item in turn.items if item["type"] == "message"]
    if len(texts) == 1:
        alone = texts[0]
        turn.items = [_without_text(item) if item is alone else item for item in turn.items]
    message[ITEMS] = turn.items
    return message


def _is_plain(items: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the items are a text before calls, with nothing else to say."""
    kinds = [item["type"] for item in items]
    messages = kinds.count("message")
    return (
        set(kinds) <= {"message", *CALLS}
        and messages <= 1
        and (not messages or kinds[0] == "message")
        and not any("phase" in item for item in items)
    )


def _without_text(item: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in item.items() if k not in ("text", "refusal")}


def _fits(items: object, message: Message) -> bool:
    if not isinstance(items, list) or not all(
        isinstance(item, dict) and isinstance(item.get("type"), str) for item in items
    ):
        return False
    calls = sum(item["type"] in CALLS for item in items)
    return calls == len(message.get("tool_calls") or ())


def _answer_texts(content: object, where: str) -> tuple[str, str]:
    """(text, refusal) of an assistant's message."""
    if isinstance(content, str):
        return content, ""
    refusals = (
        [p for p in content if isinstance(p, Mapping) and p.get("type") == "refusal"]
        if isinstance(content, list)
        else []
    )
    others = [p for p in content if p not in refusals] if isinstance(content, list) else content
    parts = read_content(others, where)
    text = parts if isinstance(parts, str) else "\n".join(str(p.get("text", "")) for p in parts)
    return text, "".join(str(p.get("refusal") or "") for p in refusals)


def write_items(messages: Sequence[Message], book: ToolBook) -> list[dict[str, Any]]:
    """Chat messages as the input of a Responses request, without ids: nothing of it was kept by anybody.

    Raises `UnusableField` for what Responses cannot express.
    """
    items: list[dict[str, Any]] = []
    custom: set[str] = set()
    for index, message in enumerate(messages):
        role, where = message.get("role"), f"messages[{index}]"
        if role == "assistant":
            written = answer_items(message, book)
            custom |= {item["call_id"] for item in written if item["type"] == "custom_tool_call"}
            items += written
        elif role == "tool":
            id = message.get("tool_call_id")
            kind = "custom_tool_call_output" if id in custom else "function_call_output"
            items.append({"type": kind, "call_id": id, "output": write_output(message.get("content"))})
        elif role in ROLES:
            content = write_content(message.get("content"), f"{where}.content")
            items.append({"type": "message", "role": role, "content": content})
        else:
            raise UnusableField(f"{where}.role: Responses has no messages of role {str(role)[:60]!r}", f"{where}.role")
    return items


def answer_items(message: Message, book: ToolBook) -> list[dict[str, Any]]:
    """An assistant's message as items, in the order that its ``response_items`` say."""
    calls = [_call_item(call, book) for call in message.get("tool_calls") or ()]
    said = message.get(ITEMS)
    if not _fits(said, message):
        text = _text_item(message.get("content"), message.get("refusal"))
        return ([text] if text else []) + calls
    assert isinstance(said, list)
    items: list[dict[str, Any]] = []
    waiting = iter(calls)
    for item in said:
        if item["type"] in CALLS:
            items.append(next(waiting))
        elif item["type"] == "message":
            own = "text" in item or "refusal" in item
            source = item if own else message
            text = _text_item(source.get("text" if own else "content"), source.get("refusal"))
            if text:
                items.append(text | ({"phase": item["phase"]} if "phase" in item else {}))
        elif item["type"] != "reasoning" or item.get("encrypted_content") or item.get("content"):
            items.append(item if item["type"] == "reasoning" else {k: v for k, v in item.items() if k != "status"})
    return items


def _text_item(content: object, refusal: object) -> dict[str, Any] | None:
    parts: list[dict[str, Any]] = []
    for part in content if isinstance(content, list) else [content]:
        text = part.get("text") if isinstance(part, Mapping) else part
        if isinstance(text, str) and text:
            parts.append({"type": "output_text", "text": text, "annotations": []})
    if isinstance(refusal, str) and refusal:
        parts.append({"type": "refusal", "refusal": refusal})
    return {"type": "message", "role": "assistant", "status": "completed", "content": parts} if parts else None


def _call_item(call: Mapping[str, Any], book: ToolBook) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping):  # a custom tool's, as chat has them
        custom = call.get("custom") or {}
        return {"type": "custom_tool_call", "call_id": call.get("id"), "name": custom.get("name"),
                "input": str(custom.get("input") or "")}  # fmt: skip
    known = book.responses_name(str(function.get("name") or ""))
    item = {
        "type": "custom_tool_call" if known.custom else "function_call",
        "call_id": call.get("id"),
        "name": known.name,
    }
    if known.namespace:
        item["namespace"] = known.namespace
    arguments = str(function.get("arguments") or "")
    return item | ({"input": input_of(arguments)} if known.custom else {"arguments": arguments})
