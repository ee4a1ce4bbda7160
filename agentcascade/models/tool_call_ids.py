"""Tool exchanges between models that take turns: whose call is it, under which id, and who may see whose thinking.

Ids that we hand out are nine letters and digits, the strictest form that any provider takes; the first letter says
who made the call, the last two are a checksum, since Mistral's own ids are nine letters and digits too. What one model
thought is shown to no other.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

from agentcascade._util import forking
from agentcascade.models import message_fields
from agentcascade.models.deltas import CallIndex
from agentcascade.types import Delta, Message, Role

LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
OURS = re.compile(r"[ts][0-9A-Za-z]{8}")
CHECKED = 2
"""Letters of the checksum: a foreign id that looks like ours passes once in 3,844 times."""
TAKEN_BY_ALL = re.compile(r"[A-Za-z0-9_-]{1,40}")
THOUGHTS = {"thinking", "redacted_thinking"}
OF_A_CALL = {"id", "type", "index", "function", "custom"}
"""What any provider may be sent of a tool call. All else, such as Gemini's signatures, is its maker's own."""
REMEMBERED = 20_000


class Ids:
    """Our ids and the providers' own, as far as this process has seen them. Thread-safe, bounded."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._known: OrderedDict[str, str] = OrderedDict()
        self._lock = forking.lock()

    def remember(self, message: Message, named: Message) -> None:
        """`named` is `message` with ids of ours."""
        with self._lock:
            for before, after in zip(calls(message), calls(named)):
                self._known[after["id"]] = str(before.get("id") or after["id"])
                self._known.move_to_end(after["id"])
            while len(self._known) > self._size:
                self._known.popitem(last=False)

    def original(self, id: str) -> str:
        """The provider's id, or `id` itself where this process never saw it."""
        return self._known.get(id, id)


def calls(message: Message) -> list[dict[str, Any]]:
    """The tool calls of a message that are shaped like tool calls."""
    found = message.get("tool_calls")
    return [c for c in found if isinstance(c, dict)] if isinstance(found, list) else []


def new_id(role: Role, salt: str, index: int) -> str:
    """Nine characters from salt and index."""
    made = role[0] + _letters(f"{salt}:{index}", 6)
    return made + _letters(made, CHECKED)


def _letters(text: str, size: int) -> str:
    number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
    letters = ""
    for _ in range(size):
        number, digit = divmod(number, len(LETTERS))
        letters += LETTERS[digit]
    return letters


def ours(message: Message, role: Role, salt: str) -> Message:
    """The answer with an id of ours on each of its tool calls; the same for the same salt."""
    if not message.get("tool_calls"):
        return message
    return {**message, "tool_calls": [{**c, "id": new_id(role, salt, i)} for i, c in enumerate(calls(message))]}


def delta_ids(role: Role, salt: str) -> Callable[[Delta], Delta]:
    """Gives the calls in the deltas of one streamed answer the ids that `ours` gives to the whole of it."""
    places = CallIndex()

    def renamed(call: dict[str, Any]) -> dict[str, Any]:
        place = places.place(call)
        own = {"id": new_id(role, salt, place)} if call.get("id") else {}
        return {**call, "index": place, **own}

    def rename(delta: Delta) -> Delta:
        found = delta.get("tool_calls")
        return {**delta, "tool_calls": [renamed(c) for c in found]} if found else delta

    return rename


def maker(id: object) -> Role | None:
    """Who made the call with an id of ours; None for any other id."""
    if isinstance(id, str) and OURS.fullmatch(id) and id[-CHECKED:] == _letters(id[:-CHECKED], CHECKED):
        return "teacher" if id[0] == "t" else "student"
    return None


def holder(messages: Sequence[Message]) -> Role | None:
    """Who made the calls whose results the conversation ends in; None when it ends in anything else."""
    if not messages or messages[-1].get("role") != "tool":
        return None
    asked = next((m for m in reversed(messages) if m.get("role") == "assistant"), None)
    makers = {maker(c.get("id")) for c in calls(asked)} if asked else set()
    return makers.pop() if len(makers) == 1 else None


def thinking_is_broken(messages: Sequence[Message]) -> bool:
    """Whether the conversation ends in results of calls that were made without thinking, by another model.

    A provider that thinks with signatures refuses to go on thinking there; in the next turn it may again.
    """
    if not messages or messages[-1].get("role") != "tool":
        return False
    asked = next((m for m in reversed(messages) if m.get("role") == "assistant"), None)
    if asked is None or not calls(asked):
        return False
    content = asked.get("content")
    parts = content if isinstance(content, list) else []
    thought = any(isinstance(p, dict) and p.get("type") in THOUGHTS for p in parts)
    return not thought and not asked.get("thinking_blocks") and not asked.get("provider_specific_fields")


def for_model(messages: Sequence[Message], role: Role, ids: Ids | None = None) -> list[Message]:
    """The conversation as the model in `role` may be sent it. Messages that need no change are the same objects."""
    names = _Names(role, ids)
    return [names.rewritten(m) if _concerned(m) else m for m in messages]


def _concerned(message: Message) -> bool:
    role = message.get("role")
    return role == "tool" or (role == "assistant" and (len(message) > 2 or not isinstance(message.get("content"), str)))


class _Names:
    """Ids of one conversation, as one model knows them."""

    def __init__(self, role: Role, ids: Ids | None) -> None:
        self._role, self._ids = role, ids
        self._open: dict[str, list[str]] = {}
        self._used: set[str] = set()

    def rewritten(self, message: Message) -> Message:
        if message["role"] == "tool":
            return self._answered(message)
        own = [c.get("id") for c in calls(message)]
        kept = bool(own) and all(maker(i) == self._role for i in own)
        changed = {k: v for k, v in message.items() if k != "agentcascade" and (kept or k in message_fields.SENT)}
        content = message.get("content")
        if not kept and isinstance(content, list):
            changed["content"] = [p for p in content if not (isinstance(p, dict) and p.get("type") in THOUGHTS)]
        if own:
            renamed = list(self._renamed(message))
            changed["tool_calls"] = renamed
        return message if changed == message else changed

    def _renamed(self, message: Message) -> Iterator[dict[str, Any]]:
        for call in calls(message):
            self._open.pop(str(call.get("id") or ""), None)  # results that follow are of these calls
        for call in calls(message):
            id = str(call.get("id") or "")
            name = self._name(id)
            self._open.setdefault(id, []).append(name)
            if maker(id) not in (None, self._role) and not call.keys() <= OF_A_CALL:
                call = {k: v for k, v in call.items() if k in OF_A_CALL}
            yield call if name == call.get("id") else {**call, "id": name}

    def _name(self, id: str) -> str:
        """Restored where the same role made it; as it is where every provider takes it; else made from it."""
        known = self._ids is not None and maker(id) == self._role
        name = self._ids.original(id) if known and self._ids is not None else id
        if not known and not TAKEN_BY_ALL.fullmatch(name):
            name = new_id("teacher", f"foreign:{id}", 0)
        count = 0
        while name in self._used:
            count += 1
            name = new_id("teacher", f"again:{id}", count)
        self._used.add(name)
        return name

    def _answered(self, message: Message) -> Message:
        """A result goes to the first open call of its id in the last message that has one; else it keeps its id."""
        waiting = self._open.get(str(message.get("tool_call_id") or ""), [])
        if not waiting:
            return message
        name = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return message if name == message.get("tool_call_id") else {**message, "tool_call_id": name}
