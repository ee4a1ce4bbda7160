"""What the parts of a streamed message say together."""

from __future__ import annotations

from typing import Any

from agentcascade.deltas import Assembly, whole


def thought(text: str = "", signature: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "thinking", "thinking": text}
    return made if signature is None else made | {"signature": signature}


def test_thinking_that_came_in_parts_is_one_signed_block() -> None:
    assembly = Assembly()
    for part in (thought("the "), thought("bed"), thought("", "c2ln")):
        assembly.add({"thinking_blocks": [part]})
    assembly.add({"content": "I look."})
    assert assembly.message is not None
    assert assembly.message["thinking_blocks"] == [thought("the bed", "c2ln")]


def test_blocks_that_are_whole_stay_as_they_are() -> None:
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    blocks = [thought("a", "s1"), thought("b", "s2"), hidden, thought("c", "s3")]
    assert whole(blocks) == blocks
    assert whole([thought("a"), hidden, thought("b")]) == [thought("a"), hidden, thought("b")]
    assert whole([]) == []


def test_parallel_calls_are_put_together_by_index() -> None:
    assembly = Assembly()
    for index, name in ((0, "look"), (1, "take")):
        assembly.add({"tool_calls": [{"index": index, "id": f"c{index}", "function": {"name": name, "arguments": ""}}]})
    for index, part in ((1, '{"x"'), (0, "{"), (1, ": 1}"), (0, "}")):
        assembly.add({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    assert assembly.message is not None
    assert [(c["id"], c["function"]) for c in assembly.message["tool_calls"]] == [
        ("c0", {"name": "look", "arguments": "{}"}),
        ("c1", {"name": "take", "arguments": '{"x": 1}'}),
    ]


def test_what_says_nothing_is_no_message() -> None:
    assembly = Assembly()
    assembly.add({"role": "assistant"})
    assembly.add({"reasoning_content": "hm"})
    assert assembly.message is None
