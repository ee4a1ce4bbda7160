"""Events of a streamed chat completion: what we read of them is what OpenAI's SDK reads, however they are cut."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from agentcascade.errors import bill_of
from agentcascade.models.openai_client import ClientModel
from agentcascade.models.openai_events import event_data
from agentcascade.types import Completion

PARTS = [
    *(b"data: ", b"data:", b"data", b": a note", b"event: thread.x", b"id: 7", b"retry: 1", b"other: field"),
    *(b'{"a": "\xc3\xa4"}', b"[DONE]", b" ", b"\xe2\x80\xa8", b"x", b"\n", b"\n\n", b"\n\n\n", b"\r\n\r\n", b"\r"),
]


async def cut(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@given(st.lists(st.sampled_from(PARTS), max_size=16).map(b"".join), st.integers(1, 30))
@settings(max_examples=100)
async def test_event_data_is_the_sdks_however_it_is_cut(body: bytes, size: int) -> None:
    theirs = [event.data async for event in SSEDecoder().aiter_bytes(cut(body, size))]
    assert [text async for text in event_data(cut(body, size))] == theirs


def event(data: str) -> str:
    return f"data: {data}\n\n"


def delta(text: str, rest: str = "") -> str:
    return event(f'{{"id": "1", "choices": [{{"index": 0, "delta": {{"content": "{text}"}}{rest}}}]}}')


USAGE = event('{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}')
LAST = delta("", ', "finish_reason": "stop"')
DONE = event("[DONE]")
CALL = '{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}'
STREAMS = {
    "an answer": delta("a") + delta("b") + LAST + USAGE + DONE,
    "by CRLF, with names": (delta("a") + "event: x\n" + LAST + USAGE + DONE).replace("\n", "\r\n"),
    "notes between": ": wait\n\n" + delta("a") + ": wait\n\n" + LAST + DONE,
    "of two lines": 'data: {"choices": [{"index": 0,\ndata: "delta": {"content": "a"}}]}\n\n' + LAST + DONE,
    "after the end": delta("a") + DONE + delta("b"),
    "no end": delta("a"),
    "nothing": "",
    "only an end": DONE,
    "an error": delta("a") + event('{"error": {"message": "too much", "code": "429"}}'),
    "an error without words": event('{"error": "no"}'),
    "an object that is an error": event('{"object": "error", "message": "no", "code": 400}'),
    "what is no JSON": delta("a") + event("{"),
    "no data": delta("a") + "event: ping\n\n",
    "another kind": event("[1]"),
    "null": event("null"),
    "a number that is none": event('{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": NaN}]}')
    + DONE,
    "half a surrogate": delta("\\ud800") + LAST + DONE,
    "no choices": event('{"choices": null}') + event('{"choices": [null, 1, {}]}') + delta("a") + LAST + DONE,
    "odd types": event('{"choices": [{"index": 0, "delta": {"content": 7, "role": null}}], "model": [1]}')
    + LAST
    + DONE,
    "a tool's call": event('{"choices": [{"index": 0, "delta": {"tool_calls": [' + CALL + "]}}]}") + LAST + DONE,
    "other fields": event('{"choices": [{"index": 0, "delta": {"reasoning_content": "r"}, "x": 1}], "y": {}}')
    + LAST
    + DONE,
    "log-probabilities": delta("a", ', "logprobs": {"content": [{"token": "a", "logprob": -1}]}') + LAST + DONE,
    "no text": delta("a") + event("\xff") + DONE,
}


def untimed(completion: Completion) -> Completion:
    return completion.model_copy(update={"seconds": 0.0})


async def streamed(body: bytes, plain: bool, **options: Any) -> tuple[Any, ...]:
    """(deltas, the completion or the error, requests)."""
    seen: list[Any] = []
    deltas: list[Any] = []

    def handle(request: httpx.Request) -> httpx.Response:
        headers = sorted((name, value) for name, value in request.headers.multi_items() if name != "content-length")
        seen.append((str(request.url), headers, json.loads(request.content)))
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=cut(body, 50))

    http = httpx.AsyncClient(transport=httpx.MockTransport(handle), follow_redirects=True)
    client = openai.AsyncOpenAI(api_key="sk-1", base_url="http://somewhere.test/v1", max_retries=0, http_client=http)
    model = ClientModel(client, "m", plain=plain, prices=None)
    result: Any
    try:
        given = {"timeout": 3, "seed": 1, **options}
        completion = await model.stream([{"role": "user", "content": "hi"}], deltas.append, **given)
        result = untimed(completion)
    except Exception as error:
        bill = bill_of(error)
        result = type(error), str(error), getattr(error, "status_code", None), bill and untimed(bill)
    await client.close()
    return deltas, result, seen


@pytest.mark.parametrize("case", STREAMS)
async def test_a_stream_is_read_as_through_the_sdks_objects(case: str) -> None:
    body = STREAMS[case].encode("latin-1" if case == "no text" else "utf-8")
    assert await streamed(body, True) == await streamed(body, False)


OPTIONS: dict[str, dict[str, Any]] = {
    "headers": {"extra_headers": {"x-own": "1", "authorization": "Bearer other"}},
    "query": {"extra_query": {"v": "1"}},
    "a body's fields": {"extra_body": {"top_k": 4, "seed": 2}},
}


@pytest.mark.parametrize("case", ["an answer", "an error", "nothing", "what is no JSON"])
@pytest.mark.parametrize("options", OPTIONS)
async def test_what_the_sdk_has_to_send_is_sent_and_read_as_by_its_create(case: str, options: str) -> None:
    body = STREAMS[case].encode()
    assert await streamed(body, True, **OPTIONS[options]) == await streamed(body, False, **OPTIONS[options])
