"""Lines of batch files: whatever a provider writes is read within bounds, or counted as unreadable."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.batches import lines as batch_lines
from agentcascade.batches.lines import openai_line, read_anthropic_line, read_openai_line, split_lines
from agentcascade.batches.types import BatchLine

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("custom_id", "response", "error", "status_code", "body", "result", "type", "message")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)


async def in_chunks(data: bytes, sizes: Sequence[int]) -> AsyncIterator[bytes]:
    start = 0
    for size in sizes:
        yield data[start : start + size]
        start += size
    yield data[start:]


def split(data: bytes, sizes: Sequence[int] = ()) -> list[bytes | None]:
    async def read() -> list[bytes | None]:
        return [line async for line in split_lines(in_chunks(data, sizes))]

    return asyncio.run(read())


@given(st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b)), st.lists(st.integers(0, 40), max_size=8))
@settings(max_examples=30)
def test_lines_are_the_same_however_a_file_comes(lines: list[bytes], sizes: list[int]) -> None:
    assert split(b"\n".join(lines), sizes) == [line for line in lines if line.strip()]


def test_what_is_too_long_is_one_unreadable_line_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_lines, "LONGEST_LINE", 10)
    assert split(b"a\n" + b"x" * 100 + b"\nb\n", [50, 20]) == [b"a", None, b"b"]
    assert split(b"x" * 11) == [None]
    monkeypatch.setattr(batch_lines, "MOST_BYTES", 20)
    assert split(b"a\nb\n" + b"c\n" * 50, [4] * 20) == [b"a", b"b", *[b"c"] * 8, None]


@given(JSON | st.binary(max_size=40))
@settings(max_examples=30)
def test_a_malformed_line_is_read_as_none_or_as_somebodys_result(value: object) -> None:
    line = value if isinstance(value, bytes) else json.dumps(value).encode()
    for read in (read_openai_line, read_anthropic_line):
        result = read(line)
        if result is not None:
            assert 0 < len(result.custom_id) <= 64
            assert result.outcome == "succeeded" or len(result.error) <= 300 * 12
            assert (result.body is None) is (result.outcome != "succeeded")


def test_results_of_openai() -> None:
    body: dict[str, Any] = {"choices": []}

    def read(**entry: object) -> BatchLine | None:
        return read_openai_line(json.dumps({"id": "batch_req_1", "custom_id": "a", **entry}).encode())

    assert read(response={"status_code": 200, "body": body}, error=None) == BatchLine("a", "succeeded", body)
    refused = {"error": {"message": "max_tokens is too large", "type": "invalid_request_error", "code": None}}
    assert read(response={"status_code": 400, "body": refused}, error=None) == BatchLine(
        "a", "errored", None, "max_tokens is too large", 400
    )
    expired = {"code": "batch_expired", "message": "not run in time"}
    assert read(response=None, error=expired) == BatchLine("a", "expired", None, "not run in time", 0)
    cancelled = {"code": "batch_cancelled", "message": "x\u001b[2J"}
    assert read(response=None, error=cancelled) == BatchLine("a", "cancelled", None, "x\\u001b[2J", 0)
    assert read_openai_line(b'{"custom_id": "a", "response": {"status_code": 200, "body": {') is None
    assert read_openai_line(b"[" * 100_000) is None


def test_results_of_anthropic() -> None:
    def read(result: object) -> BatchLine | None:
        return read_anthropic_line(json.dumps({"custom_id": "a", "result": result}).encode())

    message = {"content": [{"type": "text", "text": "look"}], "stop_reason": "end_turn", "usage": {"input_tokens": 1}}
    line = read({"type": "succeeded", "message": message})
    assert line is not None
    assert line.body["choices"][0]["message"]["content"] == "look"
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "too long"}}
    assert read({"type": "errored", "error": error}) == BatchLine("a", "errored", None, "too long", 400)
    assert read({"type": "expired"}) == BatchLine("a", "expired", None, "expired", 0)
    assert read({"type": "canceled"}) == BatchLine("a", "cancelled", None, "canceled", 0)
    assert read({"type": "something new"}) is None


@given(st.text(), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
@settings(max_examples=30)
def test_a_request_is_one_line_whatever_it_says(text: str, more: dict[str, str]) -> None:
    line = openai_line("a", "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **more})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line)["custom_id"] == "a"


def test_a_byte_order_mark_is_no_part_of_a_line() -> None:
    line = b'{"custom_id": "a", "response": {"status_code": 200, "body": {}}}\r'
    assert read_openai_line(b"\xef\xbb\xbf" + line) == read_openai_line(line) == BatchLine("a", "succeeded", {})
