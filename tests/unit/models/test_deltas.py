"""What the parts of a streamed message say together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from inspect import isgenerator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from agentcascade.models import litellm_stream, message_fields
from agentcascade.models.deltas import DeltaAssembler, split_into_deltas
from agentcascade.models.response_reader import ResponseReader, StreamReader
from agentcascade.models.tool_call_ids import make_id, rename_stream_ids
from agentcascade.types import Completion


def thought(text: str = "", signature: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "thinking", "thinking": text}
    return made if signature is None else made | {"signature": signature}


def test_thinking_that_came_in_parts_is_one_signed_block() -> None:
    assembly = DeltaAssembler()
    for part in (thought("the "), thought("bed"), thought("", "c2ln")):
        assembly.add({"thinking_blocks": [part]})
    assembly.add({"content": "I look."})
    assert assembly.message is not None
    assert assembly.message["thinking_blocks"] == [thought("the bed", "c2ln")]


def test_blocks_that_are_whole_stay_as_they_are() -> None:
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    blocks = [thought("a", "s1"), thought("b", "s2"), hidden, thought("c", "s3")]
    for parts in (blocks, [thought("a"), hidden, thought("b")], []):
        assert message_fields.join_field(None, "thinking_blocks", parts) == parts


def test_parallel_calls_are_put_together_by_index() -> None:
    assembly = DeltaAssembler()
    for index, name in ((0, "look"), (1, "take")):
        assembly.add({"tool_calls": [{"index": index, "id": f"c{index}", "function": {"name": name, "arguments": ""}}]})
    for index, part in ((1, '{"x"'), (0, "{"), (1, ": 1}"), (0, "}")):
        assembly.add({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    assert assembly.message is not None
    assert [(c["id"], c["function"]) for c in assembly.message["tool_calls"]] == [
        ("c0", {"name": "look", "arguments": "{}"}),
        ("c1", {"name": "take", "arguments": '{"x": 1}'}),
    ]


def test_thinking_alone_says_nothing() -> None:
    assembly = DeltaAssembler()
    assembly.add({"role": "assistant"})
    assembly.add({"reasoning_content": "hm"})
    assert assembly.message == {"role": "assistant", "content": None, "reasoning_content": "hm"}
    assert not message_fields.has_answer(assembly.message)


def test_calls_that_share_an_index_stay_apart_by_their_ids() -> None:
    assembly = DeltaAssembler()
    for part in (
        {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"x": 1'}},
        {"index": 0, "function": {"arguments": "}"}},
        {"index": 0, "id": "b", "function": {"name": "take", "arguments": "{"}},
        {"index": 0, "id": "b", "function": {"arguments": "}"}},
    ):
        assembly.add({"tool_calls": [part]})
    message = assembly.message
    assert message is not None
    assert [(c["id"], c["function"]) for c in message["tool_calls"]] == [
        ("a", {"name": "look", "arguments": '{"x": 1}'}),
        ("b", {"name": "take", "arguments": "{}"}),
    ]


class Lines(httpx.Response):
    """Stays open until somebody closes it, even when nobody wants its lines any more."""

    def __init__(self) -> None:
        super().__init__(200)
        self.closed = False

    async def aiter_lines(self) -> AsyncIterator[str]:
        yield "one"
        yield "two"

    async def aclose(self) -> None:
        self.closed = True


class Handler:
    """A provider of the user's own; it serves many streams."""

    closed = False

    async def stream(self) -> AsyncIterator[str]:
        yield "one"
        yield "two"

    async def aclose(self) -> None:
        self.closed = True


class Wrapped:
    """As litellm's wrapper of Anthropic's stream: chunks, and nothing that closes."""

    def __init__(self, source: Any, deltas: list[tuple[int, dict[str, Any]]]) -> None:
        self.completion_stream = SimpleNamespace(streaming_response=source)
        self._deltas = deltas

    async def __aiter__(self) -> AsyncIterator[Any]:
        source = self.completion_stream.streaming_response
        next(source) if isgenerator(source) else await anext(source)
        for index, delta in self._deltas:
            choice = SimpleNamespace(index=index, delta=delta, finish_reason="stop")
            yield SimpleNamespace(choices=[choice], usage=None)


def fail(_: Any) -> None:
    raise ValueError("the caller's own")


async def read(source: Any, on_delta: Any) -> Completion:
    stream = StreamReader(ResponseReader("m", lambda _: None, [], None), on_delta)
    await litellm_stream.read_stream(source, stream)
    return stream.finish(True)


async def test_the_connection_is_closed_when_the_caller_fails() -> None:
    response = Lines()
    with pytest.raises(ValueError, match="the caller's own"):
        await read(Wrapped(response.aiter_lines(), [(0, {"content": "hi"})]), fail)
    assert response.closed


async def test_what_outlives_a_stream_stays_open() -> None:
    handler = Handler()
    with pytest.raises(ValueError, match="the caller's own"):
        await read(Wrapped(handler.stream(), [(0, {"content": "hi"})]), fail)
    assert not handler.closed


async def test_the_caller_hears_of_its_own_error_not_of_the_closing() -> None:
    def stubborn() -> Iterator[str]:
        try:
            yield "one"
        finally:
            raise OSError("cannot close")

    with pytest.raises(ValueError, match="the caller's own"):
        await read(Wrapped(stubborn(), [(0, {"content": "hi"})]), fail)


async def test_only_the_first_choice_is_shown() -> None:
    seen: list[Any] = []
    found = await read(Wrapped(Lines().aiter_lines(), [(0, {"content": "a"}), (1, {"content": "b"})]), seen.append)
    assert seen == [{"content": "a"}]
    assert found.messages[0]["content"] == "a"


def test_a_refusal_is_an_answer() -> None:
    said = message_fields.read_message({"role": "assistant", "content": None, "refusal": "I must not."})
    assert said == {"role": "assistant", "content": None, "refusal": "I must not."}
    assert message_fields.has_answer(said)
    assert not message_fields.has_answer(message_fields.read_message({"role": "assistant", "content": ""}))


def test_calls_without_an_index_are_the_same_calls_in_the_deltas_and_in_the_whole() -> None:
    """Ids that were streamed must be those of the message: results come back under them."""
    parts = [
        {"id": "a", "function": {"name": "look", "arguments": "{"}},
        {"function": {"arguments": "}"}},
        {"id": "b", "function": {"name": "take", "arguments": "{}"}},
    ]
    rename, assembly = rename_stream_ids("teacher", "salt"), DeltaAssembler()
    streamed = []
    for part in parts:
        delta = rename({"tool_calls": [part]})
        streamed += delta["tool_calls"]
        assembly.add({"tool_calls": [part]})
    calls = assembly.message["tool_calls"]
    assert [c["function"] for c in calls] == [
        {"name": "look", "arguments": "{}"},
        {"name": "take", "arguments": "{}"},
    ]
    assert [(c["index"], c.get("id")) for c in streamed] == [
        (0, make_id("teacher", "salt", 0)),
        (0, None),
        (1, make_id("teacher", "salt", 1)),
    ]


def test_a_name_that_is_said_with_every_part_is_one_name() -> None:
    assembly = DeltaAssembler()
    for arguments in ('{"x"', ": 1}"):
        assembly.add({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "look", "arguments": arguments}}]})
    assert assembly.message["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"x": 1}'}


def test_a_custom_tools_call_in_parts_is_one_call_and_back() -> None:
    whole = {"id": "c1", "type": "custom", "custom": {"name": "shell", "input": "ls -l"}}
    parts = [
        {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "shell", "input": "ls"}},
        {"index": 0, "custom": {"input": " -l"}},
    ]
    assembly = DeltaAssembler()
    for part in parts:
        assembly.add({"tool_calls": [part]})
    assert assembly.message["tool_calls"] == [whole]
    again = DeltaAssembler()
    for delta in split_into_deltas({"role": "assistant", "content": None, "tool_calls": [whole]}):
        again.add(delta)
    assert again.message["tool_calls"] == [whole]


def test_log_probabilities_of_a_streamed_choice_grow_list_by_list() -> None:
    parts: list[Any] = [None, {"content": ["a"], "refusal": ["x"]}, {"content": ["b"]}, {"content": None}, 7]
    joined = None
    for part in parts[:-1]:
        joined = message_fields.join_choice_field(joined, "logprobs", part)
    assert joined == {"content": ["a", "b"], "refusal": ["x"]}
    assert message_fields.join_choice_field(joined, "logprobs", parts[-1]) == 7, "what is no log-probability"
