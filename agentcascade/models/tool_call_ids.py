"""Tool-call ids and thinking blocks when two models take turns in one conversation.

Every provider has a form of ids of its own, and refuses others. `assign_ids` gives each tool call of an answer an id
that all of them take: nine letters and digits, of which the first says which model made the call and the last two are
a checksum (Mistral's own ids are nine letters and digits too). `messages_for_model` turns them back into the ids that
a model gave itself, and leaves out what another model thought.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

from agentcascade._util import forking
from agentcascade._util.item_results import ItemResults
from agentcascade.config.effort import plain_name
from agentcascade.models.deltas import ToolCallIndex
from agentcascade.models.message_fields import PORTABLE_FIELDS
from agentcascade.models.quirks import PORTABLE_CALL_FIELDS, THINKING_PARTS
from agentcascade.types import Delta, Message, Role
from agentcascade.wire.anthropic_blocks import DETAILS

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ASSIGNED_ID = re.compile(r"[ts][0-9A-Za-z]{8}")
CHECKSUM_LETTERS = 2
"""A foreign id that looks like an assigned one passes once in 3,844 times."""
PORTABLE_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
"""Ids that every provider takes in a request."""
MAX_IDS = 20_000
NOTHING_KNOWN: ItemResults[Message] = ItemResults()


class ToolCallIds:
    """Assigned ids and the providers' own, as far as this process has seen them. Thread-safe, bounded (LRU)."""

    def __init__(self, size: int = MAX_IDS) -> None:
        self._size = size
        self._provider_ids: OrderedDict[str, tuple[str, str]] = OrderedDict()
        """Assigned id → the provider's, and the name of the model that made the call."""
        self._lock = forking.lock()

    def remember(self, answer: Message, renamed: Message, model: str = "") -> None:
        """Note the provider's ids in the `answer` of `model` under those that `assign_ids` gave it in `renamed`."""
        with self._lock:
            for call, renamed_call in zip(tool_calls_of(answer), tool_calls_of(renamed)):
                self._provider_ids[renamed_call["id"]] = str(call.get("id") or renamed_call["id"]), model
                self._provider_ids.move_to_end(renamed_call["id"])
            while len(self._provider_ids) > self._size:
                self._provider_ids.popitem(last=False)

    def provider_id(self, id: str) -> str:
        """The provider's id, or `id` itself where this process never saw it."""
        return self._provider_ids.get(id, (id, ""))[0]

    def made_by(self, id: str) -> str:
        """Name of the model that made the call; empty where this process never saw it."""
        return self._provider_ids.get(id, (id, ""))[1]


def tool_calls_of(message: Message) -> list[dict[str, Any]]:
    """The tool calls of a message that are shaped like tool calls."""
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def make_id(role: Role, salt: str, index: int) -> str:
    """A tool-call id of nine characters, the same for the same arguments."""
    unchecked = role[0] + _letters(f"{salt}:{index}", 6)
    return unchecked + _letters(unchecked, CHECKSUM_LETTERS)


def _letters(text: str, size: int) -> str:
    number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
    letters = ""
    for _ in range(size):
        number, digit = divmod(number, len(ALPHABET))
        letters += ALPHABET[digit]
    return letters


def assign_ids(answer: Message, role: Role, salt: str) -> Message:
    """The answer with an assigned id on each of its tool calls; the same ids for the same salt."""
    if not answer.get("tool_calls"):
        return answer
    calls = [{**call, "id": make_id(role, salt, i)} for i, call in enumerate(tool_calls_of(answer))]
    return {**answer, "tool_calls": calls}


def rename_stream_ids(role: Role, salt: str) -> Callable[[Delta], Delta]:
    """A function that gives the tool calls in the deltas of one stream the ids that `assign_ids` gives to the whole."""
    index = ToolCallIndex()

    def renamed(call: dict[str, Any]) -> dict[str, Any]:
        position = index.position(call)
        id = {"id": make_id(role, salt, position)} if call.get("id") else {}
        return {**call, "index": position, **id}

    def rename(delta: Delta) -> Delta:
        calls = delta.get("tool_calls")
        return {**delta, "tool_calls": [renamed(call) for call in calls]} if calls else delta

    return rename


def caller_of(id: object) -> Role | None:
    """Which model made the tool call with an assigned id; None for any other id."""
    if not isinstance(id, str) or not ASSIGNED_ID.fullmatch(id):
        return None
    if id[-CHECKSUM_LETTERS:] != _letters(id[:-CHECKSUM_LETTERS], CHECKSUM_LETTERS):
        return None
    return "teacher" if id[0] == "t" else "student"


def open_exchange_owner(messages: Sequence[Message]) -> Role | None:
    """Which model made the tool calls whose results the conversation ends in; None when it ends in anything else."""
    message = _last_assistant_before_results(messages)
    owners = {caller_of(call.get("id")) for call in tool_calls_of(message)} if message else set()
    return owners.pop() if len(owners) == 1 else None


def open_exchange_model(messages: Sequence[Message], ids: ToolCallIds) -> str:
    """Name of the model that made the tool calls whose results the conversation ends in; empty where not known."""
    message = _last_assistant_before_results(messages)
    makers = {ids.made_by(str(call.get("id") or "")) for call in tool_calls_of(message)} if message else set()
    return makers.pop() if len(makers) == 1 else ""


def ends_in_unthinking_calls(messages: Sequence[Message]) -> bool:
    """Whether the conversation ends in results of tool calls that were made without thinking, by another model.

    A provider that signs thinking refuses to go on thinking there; in the next turn it may again.
    """
    message = _last_assistant_before_results(messages)
    if message is None or not tool_calls_of(message):
        return False
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    thought = any(isinstance(part, dict) and part.get("type") in THINKING_PARTS for part in parts)
    return not thought and not message.get("thinking_blocks") and not message.get("provider_specific_fields")


def _last_assistant_before_results(messages: Sequence[Message]) -> Message | None:
    if not messages or messages[-1].get("role") != "tool":
        return None
    return next((m for m in reversed(messages) if m.get("role") == "assistant"), None)


def messages_for_model(
    messages: Sequence[Message],
    role: Role,
    ids: ToolCallIds | None = None,
    model: str = "",
    known: ItemResults[Message] = NOTHING_KNOWN,
) -> Sequence[Message]:
    """The conversation as the model in `role` may be sent it: its own ids, and no thinking but its own.

    Where several models have that role, or one has both at two efforts, `model` is the name of the one that is asked: a
    model's calls and thoughts are its own at every effort, so that the prompt is the same to the byte, and its cache
    is warm. What needs no change, a message or all of them, is the same object. `known` is of the messages.
    """
    rewritable = known.of(_may_need_rewriting, messages)
    if not any(rewritable):
        return messages
    rewriter = _ConversationRewriter(role, ids, model)
    return [rewriter.rewrite(m) if may else m for m, may in zip(messages, rewritable)]


def _may_need_rewriting(message: Message) -> bool:
    role = message.get("role")
    return role == "tool" or (role == "assistant" and (len(message) > 2 or not isinstance(message.get("content"), str)))


def _without_thoughts(details: dict[str, Any]) -> dict[str, Any]:
    """Anthropic's blocks of an answer, all but the thinking: none but Anthropic's models are sent them."""
    blocks = details.get("blocks")
    if not isinstance(blocks, list):
        return details
    kept = [b for b in blocks if not (isinstance(b, dict) and b.get("type") in THINKING_PARTS)]
    return {**details, "blocks": kept}


class _ConversationRewriter:
    """Tool-call ids of one conversation, as one model knows them. `rewrite` takes its messages in order."""

    def __init__(self, role: Role, ids: ToolCallIds | None, model: str = "") -> None:
        self._role, self._ids, self._model = role, ids, plain_name(model)
        self._awaiting_result: dict[str, list[str]] = {}
        """Ids of calls as they come → ids as they are sent, of calls whose results may follow."""
        self._used: set[str] = set()

    def rewrite(self, message: Message) -> Message:
        if message["role"] == "tool":
            return self._rewrite_result(message)
        ids = [call.get("id") for call in tool_calls_of(message)]
        is_own = bool(ids) and all(map(self._is_own, ids))
        rewritten = {k: v for k, v in message.items() if k != "agentcascade" and (is_own or k in PORTABLE_FIELDS)}
        content = message.get("content")
        if not is_own and isinstance(content, list):
            parts = [p for p in content if not (isinstance(p, dict) and p.get("type") in THINKING_PARTS)]
            rewritten["content"] = parts
        if not is_own and isinstance(details := message.get(DETAILS), dict):
            rewritten[DETAILS] = _without_thoughts(details)
        if ids:
            rewritten["tool_calls"] = list(self._rewrite_calls(message))
        return message if rewritten == message else rewritten

    def _rewrite_calls(self, message: Message) -> Iterator[dict[str, Any]]:
        for call in tool_calls_of(message):
            self._awaiting_result.pop(str(call.get("id") or ""), None)  # results that follow are of these calls
        for call in tool_calls_of(message):
            id = str(call.get("id") or "")
            sent_id = self._sent_id(id)
            self._awaiting_result.setdefault(id, []).append(sent_id)
            if caller_of(id) is not None and not self._is_own(id) and not call.keys() <= PORTABLE_CALL_FIELDS:
                call = {k: v for k, v in call.items() if k in PORTABLE_CALL_FIELDS}
            yield call if sent_id == call.get("id") else {**call, "id": sent_id}

    def _is_own(self, id: object) -> bool:
        """Whether the model that is asked made the call."""
        caller = caller_of(id)
        if caller is None or not self._model:
            return caller == self._role and caller is not None
        made = plain_name(self._ids.made_by(str(id))) if self._ids is not None else ""
        return made == self._model if made else caller == self._role == "teacher"

    def _sent_id(self, id: str) -> str:
        """The provider's own where the same model made it; `id` where every provider takes it; else made from it."""
        is_own = self._ids is not None and self._is_own(id)
        sent_id = self._ids.provider_id(id) if is_own and self._ids is not None else id
        if not is_own and not PORTABLE_ID.fullmatch(sent_id):
            sent_id = make_id("teacher", f"foreign:{id}", 0)
        count = 0
        while sent_id in self._used:
            count += 1
            sent_id = make_id("teacher", f"again:{id}", count)
        self._used.add(sent_id)
        return sent_id

    def _rewrite_result(self, message: Message) -> Message:
        """A result goes to the first open call of its id in the last message that has one; else it keeps its id."""
        waiting = self._awaiting_result.get(str(message.get("tool_call_id") or ""), [])
        if not waiting:
            return message
        sent_id = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return message if sent_id == message.get("tool_call_id") else {**message, "tool_call_id": sent_id}
