"""Conversations of Anthropic's Messages API as chat messages, and back, by the rules that each side has.

One turn may become several chat messages: each tool result is a message of its own, and texts follow. Back, turns
alternate, the results of tool calls come first in theirs, and nothing is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from agentcascade.errors import InvalidRequest
from agentcascade.types import Message
from agentcascade.wire.anthropic_blocks import (
    DETAILS,
    THINKING,
    UNSIGNED,
    Block,
    Part,
    arguments_of,
    block_of,
    input_of,
    is_plain,
    is_said,
    join_texts,
    part_of,
    parts_in,
    simplified,
    tool_id,
)

ABSENT = "."
"""Stands for a turn of the user that there must be and is not."""
RESULT_FIELDS = frozenset({"type", "tool_use_id", "content", "cache_control"})
CALL_FIELDS = frozenset({"type", "id", "name", "input"})
ORDER = {"thinking": 0, "redacted_thinking": 0, "text": 1, "tool_use": 2}
"""Of blocks in an answer that chat messages can hold."""


def read_messages(messages: Sequence[Mapping[str, Any]], system: object = None) -> list[Message]:
    """Chat messages of a conversation.

    Args:
        messages: Anthropic's, of roles ``user``, ``assistant`` and ``system``.
        system: A text or text blocks, or None.

    Raises:
        InvalidRequest: A block is malformed; the message says which.
    """
    read: list[Message] = []
    if system:
        read.append(_message("system", _parts(system, "system")))
    for i, message in enumerate(messages):
        where, role, content = f"messages.{i}.content", message.get("role"), message.get("content")
        if role == "assistant":
            read.append(read_assistant(_blocks(content, where), where))
        elif role == "system":
            read.append({**_message("system", _parts(content, where)), DETAILS: {}})
        else:
            read.extend(_read_user(_blocks(content, where), where))
    return read


def read_assistant(blocks: Sequence[Block], where: str = "content") -> Message:
    """The chat message of an assistant's blocks. Blocks that it has no field for, or in another order, stay as well."""
    message: Message = {"role": "assistant", "content": join_texts(blocks) or None}
    unsigned = [b for b in blocks if b.get("type") == "thinking" and str(b.get("signature")).startswith(UNSIGNED)]
    own = [b for b in blocks if b not in unsigned] if unsigned else list(blocks)
    for block in unsigned:
        name = str(block["signature"]).removeprefix(UNSIGNED) or "reasoning_content"
        message[name] = message.get(name, "") + str(block.get("thinking") or "")
    if thoughts := [b for b in own if b.get("type") in THINKING]:
        message["thinking_blocks"] = thoughts
    if calls := [_read_call(b, where) for b in own if b.get("type") == "tool_use"]:
        message["tool_calls"] = calls
    if not is_canonical(own):
        message[DETAILS] = {"blocks": own}
    return message


def is_canonical(blocks: Sequence[Block]) -> bool:
    """Whether a chat message's fields say all of it: thoughts, one text, then calls."""
    order = [ORDER.get(str(b.get("type")), -1) for b in blocks]
    if -1 in order or order != sorted(order) or order.count(1) > 1:
        return False
    if any(is_unsigned(b) and after.get("type") == "thinking" for b, after in pairwise(blocks)):
        return False
    return all(
        (b["type"] != "text" or is_plain(b)) and (b["type"] != "tool_use" or b.keys() <= CALL_FIELDS) for b in blocks
    )


def is_unsigned(block: Mapping[str, Any]) -> bool:
    """Whether it is a thought without a signature, whose end in a stream no field of a message tells."""
    return block.get("type") == "thinking" and not block.get("signature")


def write_messages(messages: Sequence[Message]) -> tuple[list[Block], list[dict[str, Any]]]:
    """(system blocks, Anthropic's messages) of a conversation of chat messages.

    Raises:
        InvalidRequest: A part that Anthropic has no block for; the message says which.
    """
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        where, role = f"messages[{i}].content", message.get("role")
        if role in ("system", "developer"):
            blocks = _written(message, where)
            if not turns:
                system += blocks
            elif DETAILS in message:
                turns.append({"role": "system", "content": blocks})
            else:  # of a chat agent, in mid-conversation
                _add(turns, "user", blocks)
        elif role == "assistant":
            blocks = [b for b in write_assistant(message, where) if is_said(b)]
            if blocks and not turns:
                turns.append({"role": "user", "content": [{"type": "text", "text": ABSENT}]})
            _add(turns, "assistant", blocks)
        elif role in ("tool", "function"):
            _add(turns, "user", [_write_result(message, where)])
        else:
            _add(turns, "user", _written(message, where))
    turns = [turn for turn in turns if turn["content"]]
    if not turns:
        turns = [{"role": "user", "content": [{"type": "text", "text": ABSENT}]}]
    for turn in turns:
        if turn["role"] == "user":
            results = [b for b in turn["content"] if b.get("type") == "tool_result"]
            turn["content"] = [*results, *(b for b in turn["content"] if b.get("type") != "tool_result")]
    last = turns[-1]["content"][-1]
    if turns[-1]["role"] == "assistant" and last.get("type") == "text":
        turns[-1]["content"][-1] = {**last, "text": last["text"].rstrip()}
    return system, turns


def write_assistant(message: Message, where: str = "content") -> list[Block]:
    """The blocks of an assistant's chat message, with the ids that its tool calls have now."""
    calls = [c for c in message.get("tool_calls") or () if isinstance(c, Mapping)]
    kept = _kept_blocks(message, len(calls))
    if kept is None:
        thoughts = message.get("thinking_blocks")
        blocks = [dict(b) for b in thoughts if isinstance(b, Mapping)] if isinstance(thoughts, list) else []
        blocks += [block_of(p, f"{where}.{j}") for j, p in enumerate(parts_in(message.get("content")))]
        if not message.get("content") and isinstance(message.get("refusal"), str):
            blocks.append({"type": "text", "text": message["refusal"]})
        blocks += [_write_call(call, where) for call in calls]
    else:
        ids = iter(calls)
        blocks = [{**b, "id": tool_id(next(ids).get("id"))} if b.get("type") == "tool_use" else b for b in kept]
    return _with_cache_control(message, blocks)


def _kept_blocks(message: Message, calls: int) -> list[Block] | None:
    """The blocks that the message was read from, unless its text or calls were changed since."""
    details = message.get(DETAILS)
    kept = details.get("blocks") if isinstance(details, Mapping) else None
    if not isinstance(kept, list) or not all(isinstance(b, dict) for b in kept):
        return None
    same = sum(b.get("type") == "tool_use" for b in kept) == calls
    return kept if same and join_texts(kept) == (message.get("content") or "") else None


def _read_user(blocks: Sequence[Block], where: str) -> list[Message]:
    read: list[Message] = []
    parts: list[Part] = []
    for j, block in enumerate(blocks):
        if block.get("type") != "tool_result":
            parts.append(part_of(block, f"{where}.{j}"))
            continue
        if parts:
            read.append(_message("user", parts))
            parts = []
        read.append(_read_result(block, f"{where}.{j}"))
    if parts or not read:
        read.append(_message("user", parts))
    return read


def _read_result(block: Block, where: str) -> Message:
    id = block.get("tool_use_id")
    if not isinstance(id, str) or not id:
        raise InvalidRequest(f"{where}.tool_use_id: a tool result needs the id of its call")
    parts = _parts(block.get("content") or "", f"{where}.content")
    message = {**_message("tool", parts), "tool_call_id": id}
    beside = {k: v for k, v in block.items() if k not in RESULT_FIELDS and v is not None}
    if "cache_control" in block:
        message["cache_control"] = block["cache_control"]
    if beside or "cache_control" in block or any(p.get("type") != "text" for p in parts):
        message[DETAILS] = beside
    return message


def _write_result(message: Message, where: str) -> Block:
    blocks = _blocks_of_parts(message.get("content"), where)
    details = message.get(DETAILS)
    block: Block = {"type": "tool_result", "tool_use_id": tool_id(message.get("tool_call_id") or message.get("name"))}
    plain = len(blocks) == 1 and blocks[0].keys() == {"type", "text"}
    if blocks:
        block["content"] = blocks[0]["text"] if plain else blocks
    return _with_cache_control(message, [{**block, **(details if isinstance(details, Mapping) else {})}])[0]


def _read_call(block: Block, where: str) -> dict[str, Any]:
    id, name = block.get("id"), block.get("name")
    if not isinstance(id, str) or not id or not isinstance(name, str) or not name:
        raise InvalidRequest(f"{where}: a tool_use block needs an id and a name")
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments_of(block.get("input"))}}


def _write_call(call: Mapping[str, Any], where: str) -> Block:
    function = call.get("function")
    if not isinstance(function, Mapping):
        raise InvalidRequest(
            f"{where}: Anthropic's models know calls of functions alone, not of type '{call.get('type')}'"
        )
    input = input_of(function.get("arguments"))
    return {"type": "tool_use", "id": tool_id(call.get("id")), "name": str(function.get("name") or ""), "input": input}


def _message(role: str, parts: list[Part]) -> Message:
    message: Message = {"role": role, "content": simplified(parts) if parts else ""}
    return message if all(map(is_plain, parts)) else {**message, DETAILS: {}}


def _parts(content: object, where: str) -> list[Part]:
    return [part_of(b, f"{where}.{j}") for j, b in enumerate(_blocks(content, where))]


def _blocks(content: object, where: str) -> list[Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, Sequence):
        raise InvalidRequest(f"{where}: send a text or a list of blocks, not a {type(content).__name__}")
    for j, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise InvalidRequest(f"{where}.{j}: a block is an object with a type")
    return list(content)


def _written(message: Message, where: str) -> list[Block]:
    """Blocks of a message of user or system."""
    return _with_cache_control(message, _blocks_of_parts(message.get("content"), where))


def _blocks_of_parts(content: object, where: str) -> list[Block]:
    blocks = [block_of(p, f"{where}[{j}]") for j, p in enumerate(parts_in(content))]
    return [b for b in blocks if is_said(b)]


def _with_cache_control(message: Message, blocks: list[Block]) -> list[Block]:
    """A mark of the whole message stands on its last block, but never on a thought."""
    mark = message.get("cache_control")
    if mark is None or not blocks or blocks[-1].get("type") in THINKING:
        return blocks
    return [*blocks[:-1], {**blocks[-1], "cache_control": mark}]


def _add(turns: list[dict[str, Any]], role: str, blocks: list[Block]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"].extend(blocks)
    elif blocks:
        turns.append({"role": role, "content": list(blocks)})
