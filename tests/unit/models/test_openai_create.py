"""A client's `create` without the SDK's walks: the same bytes go out, and what came back is what its objects hold."""

from __future__ import annotations

import functools
import json
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.resources.chat import completions as sdk
from openai.resources.responses import responses as sdk_responses
from openai.types.chat import ChatCompletionMessage, ChatCompletionUserMessageParam
from openai.types.responses import ResponseOutputMessage

from agentcascade import wrap
from agentcascade.integrations.openai import Wrapped
from agentcascade.models.message_fields import to_plain
from agentcascade.models.openai_client import ClientModel
from agentcascade.models.openai_create import is_plain, without_walk
from agentcascade.models.response_reader import ResponseReader
from agentcascade.prompts.additions import Rendered, with_addition_behind

ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Go."}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    "unheard_of": {"x": 1},
}
CHUNK = {
    "id": "1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "delta": {"content": "Go."}}],
}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "ä"}'}}
TALK: list[Any] = [
    {"role": "developer", "content": "Act."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "ö\u2028"}, {"type": "image_url", "image_url": {"url": "d:"}}],
    },
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Hm.", "refusal": None},
    {"role": "tool", "tool_call_id": "c1", "content": "a mug", "own": {"deep": [1, 2.5, True, None, {}]}},
]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
PLAIN: dict[str, dict[str, Any]] = {
    "a conversation": {"messages": TALK, "model": "m"},
    "as a tuple": {"messages": tuple(TALK), "model": "m"},
    "in the other order": {"temperature": 0.5, "seed": 7, "n": 3, "model": "m", "messages": TALK, "audio": None},
    "with tools": {"messages": TALK, "model": "m", "tools": TOOLS, "tool_choice": "auto", "stop": ["\n"]},
    "of another class": {"messages": [OrderedDict(TALK[0]), ChatCompletionUserMessageParam(role="user", content="x")]},
    "something is added": {"messages": with_addition_behind(TALK[:2], "M.", Rendered("refused", {"why": "x"}))},
    "transport": {
        "messages": TALK, "extra_headers": {"X-Own": "1"}, "extra_query": {"q": "1"}, "extra_body": {"top_k": 4},
        "timeout": httpx.Timeout(3.0, connect=1.0),
    },
    "seconds": {"messages": TALK, "timeout": 4},
    "no time limit": {"messages": TALK, "timeout": None},
    "no number": {"messages": TALK, "temperature": float("nan")},
}  # fmt: skip


SAID: dict[str, Any] = {
    "id": "m1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Go.", "annotations": []}],
}
RESPONSE = {
    "id": "r1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "output": [SAID],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
EVENTS = [
    {
        "type": "response.output_text.delta",
        "delta": "Go.",
        "item_id": "m1",
        "output_index": 0,
        "content_index": 0,
        "sequence_number": 0,
    },
    {"type": "response.completed", "response": RESPONSE, "sequence_number": 1},
]
ITEMS: list[Any] = [
    {"role": "developer", "content": "Act."},
    {
        "role": "user",
        "content": [{"type": "input_text", "text": "ö\u2028"}, {"type": "input_image", "image_url": "d:"}],
    },
    {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "gA=="},
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": "ä"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "a mug", "own": {"deep": [1, 2.5, True, None, {}]}},
]
INPUTS: dict[str, dict[str, Any]] = {
    "items": {"input": ITEMS, "instructions": "Be brief.", "store": False, "include": ["reasoning.encrypted_content"]},
    "a text": {
        "input": "Look.",
        "user": None,
        "temperature": 0.5,
        "max_output_tokens": 9,
        "text": {"verbosity": "low"},
    },
    "tools": {"tools": [{"type": "function", "name": "look", "parameters": {}, "strict": None}], "input": tuple(ITEMS)},
    "transport": {"input": ITEMS, "extra_headers": {"X-Own": "1"}, "extra_body": {"top_k": 4}, "timeout": 3},
    "the SDK's objects": {"input": [*ITEMS, ResponseOutputMessage.construct(None, **SAID)]},
    "left out": {"input": ITEMS, "temperature": openai.NOT_GIVEN},
    "a stream": {"input": ITEMS, "stream": True},
}


class Name(StrEnum):
    MINI = "mini"


OTHER: dict[str, dict[str, Any]] = {
    "the SDK's objects": {"messages": [*TALK, ChatCompletionMessage(role="assistant", content="x")]},
    "objects inside": {"messages": [{"role": "assistant", "tool_calls": [ChatCompletionMessage(role="assistant")]}]},
    "an iterator": {},
    "left out inside": {"messages": [{"role": "user", "content": "x", "name": openai.NOT_GIVEN}]},
    "left out": {"messages": TALK, "temperature": openai.NOT_GIVEN},
    "an enum": {"messages": TALK, "model": Name.MINI},
    "a time": {"messages": [{"role": "user", "content": "x", "at": datetime(2026, 1, 1, tzinfo=UTC)}]},
    "a set": {"messages": [{"role": "user", "content": {1}}]},
    "an unknown argument": {"messages": TALK, "top_k": 4},
    "a class for a format": {"messages": TALK, "response_format": ChatCompletionMessage},
}
CLIENTS: dict[str, Callable[[Any], Any]] = {
    "OpenAI": lambda http: openai.OpenAI(api_key="sk-1", organization="o", base_url="http://a.test/v1", **http),
    "AsyncOpenAI": lambda http: openai.AsyncOpenAI(api_key="sk-1", base_url="http://a.test/v1", **http),
    "AsyncAzureOpenAI": lambda http: openai.AsyncAzureOpenAI(
        azure_endpoint="http://a.test", api_version="2025-01-01", azure_ad_token="t", **http
    ),
}


def arguments_of(case: str) -> dict[str, Any]:
    if case == "an iterator":  # a new one each time
        return {"messages": [{"role": "user", "content": iter([{"type": "text", "text": "a"}])}]}
    return PLAIN.get(case) or OTHER[case]


async def outcome(client_of: Callable[[Any], Any], arguments: dict[str, Any], *, own: bool) -> tuple[Any, list[Any]]:
    """(what was returned, as plain data, or raised, all requests that went out)."""
    seen: list[Any] = []

    def handle(request: httpx.Request) -> httpx.Response:
        headers = sorted(request.headers.multi_items())
        # version 3 of the SDK writes `model` first, so bodies are compared as JSON there
        body = request.content if openai.__version__ < "3" else json.loads(request.content)
        seen.append((request.method, str(request.url), headers, body, request.extensions["timeout"]))
        streamed = json.loads(request.content).get("stream")
        if request.url.path.endswith("/responses"):
            events = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in EVENTS)
            return httpx.Response(200, text=events) if streamed else httpx.Response(200, json=RESPONSE)
        if streamed:
            return httpx.Response(200, text=f"data: {json.dumps(CHUNK)}\n\ndata: [DONE]\n\n")
        return httpx.Response(200, json=ANSWER)

    transport: Any = httpx.MockTransport(handle)
    is_async = client_of is not CLIENTS["OpenAI"]
    http: Any = httpx.AsyncClient(transport=transport) if is_async else httpx.Client(transport=transport)
    client = client_of({"http_client": http, "max_retries": 0})
    create = client.responses.create if "input" in arguments else client.chat.completions.create
    result: Any
    try:
        result = (without_walk(create) if own else create)(**{"model": "m", **arguments})
        result = await result if is_async else result
        if arguments.get("stream"):
            chunks = [chunk async for chunk in result] if is_async else list(result)
            result = type(result), [to_plain(chunk) for chunk in chunks]
        else:
            result = to_plain(result)
    except Exception as error:
        result = type(error), str(error).partition(" at 0x")[0]
    return result, seen


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("case", [*PLAIN, *OTHER])
async def test_the_same_goes_out_and_comes_back(client: str, case: str) -> None:
    theirs = await outcome(CLIENTS[client], arguments_of(case), own=False)
    ours = await outcome(CLIENTS[client], arguments_of(case), own=True)
    assert ours == theirs


@pytest.mark.parametrize("client", CLIENTS)
async def test_so_do_streams(client: str) -> None:
    arguments = {"messages": TALK, "stream": True, "stream_options": {"include_usage": True}}
    theirs = await outcome(CLIENTS[client], arguments, own=False)
    assert await outcome(CLIENTS[client], arguments, own=True) == theirs
    assert theirs[0][1] == [CHUNK]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("case", INPUTS)
async def test_so_do_responses(client: str, case: str) -> None:
    theirs = await outcome(CLIENTS[client], INPUTS[case], own=False)
    ours = await outcome(CLIENTS[client], INPUTS[case], own=True)
    assert ours == theirs
    assert len(theirs[1]) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["role", "content", "name", "tool_calls", "function_call", "audio", "refusal", "type", "file"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(NAMES | st.text(max_size=9), JSON, max_size=4), max_size=4))
async def test_whatever_json_the_messages_are(messages: list[Any]) -> None:
    theirs = await outcome(CLIENTS["AsyncOpenAI"], {"messages": messages}, own=False)
    assert await outcome(CLIENTS["AsyncOpenAI"], {"messages": messages}, own=True) == theirs


def client_that_gets(body: bytes, media: str, **options: Any) -> Any:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=body, headers={"content-type": media})

    http = httpx.Client(transport=httpx.MockTransport(handle))
    return openai.OpenAI(api_key="k", http_client=http, max_retries=0, **options)


def read_by(create: Any) -> object:
    """What the reader of answers makes of one, or why not."""
    try:
        response = create(model="m", messages=[{"role": "user", "content": "x"}])
        return ResponseReader("m", lambda usage: Decimal(usage.prompt), [], None, 3).read(response)
    except Exception as error:
        return type(error), str(error), getattr(error, "completion", None)


PARTS = {
    **dict.fromkeys(("id", "object", "created", "model", "error", "service_tier", "unheard_of"), JSON),
    "usage": JSON | st.fixed_dictionaries({}, optional={"prompt_tokens": JSON, "completion_tokens": JSON}),
    "choices": JSON
    | st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                **dict.fromkeys(("index", "finish_reason", "stop_reason"), JSON),
                "logprobs": JSON.filter(lambda value: not isinstance(value, list)),  # objects in lists stay objects
                "message": JSON | st.dictionaries(NAMES | st.just("reasoning_content"), JSON, max_size=4),
            },
        ),
        max_size=4,
    ),
}


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries({}, optional=PARTS).map(lambda answer: json.dumps(answer).encode()) | st.binary(max_size=20),
    st.sampled_from(["application/json", "application/json; charset=utf-8", "text/plain", "text/html"]),
)
def test_whatever_comes_back_is_read_as_the_sdks_objects_are(body: bytes, media: str) -> None:
    create = client_that_gets(body, media).chat.completions.create
    assert read_by(without_walk(create)) == read_by(create)


def test_no_objects_are_made_of_an_answer() -> None:
    create = client_that_gets(json.dumps(ANSWER).encode(), "application/json").chat.completions.create
    assert without_walk(create)(model="m", messages=TALK) == ANSWER


def test_a_strict_client_refuses_what_it_would() -> None:
    create = client_that_gets(
        b'{"id": 7}', "application/json", _strict_response_validation=True
    ).chat.completions.create
    with pytest.raises(openai.APIResponseValidationError):
        without_walk(create)(model="m", messages=TALK)


@pytest.mark.parametrize("method", ["post", "request", "_process_response"])
def test_a_client_that_reads_its_own_answers_gets_objects(method: str) -> None:
    tokens = []

    def counting(self: Any, *given: Any, **options: Any) -> Any:
        answer: Any = getattr(openai.OpenAI, method)(self, *given, **options)
        tokens.append(answer.usage.total_tokens)
        return answer

    made = client_that_gets(json.dumps(ANSWER).encode(), "application/json")
    client = type("Counting", (openai.OpenAI,), {method: counting})(api_key="k", http_client=made._client)
    without_walk(client.chat.completions.create)(model="m", messages=TALK)
    assert tokens == [4]


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_what_watches_requests_sees_objects_from_then_on(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Logfire and OpenInference do it: `request` of the class is replaced, whenever."""
    client = client_that_gets(json.dumps(ANSWER).encode(), "application/json")
    create = without_walk(client.chat.completions.create if api == "chat" else client.responses.create)
    arguments = {"messages": TALK} if api == "chat" else {"input": "x"}
    create(model="m", **arguments)
    original, watched = openai.OpenAI.request, []

    def watching(self: Any, cast_to: Any, *given: Any, **options: Any) -> Any:
        watched.append(cast_to.__name__)
        return original(self, cast_to, *given, **options)

    monkeypatch.setattr(openai.OpenAI, "request", watching)
    create(model="m", **arguments)
    assert watched == ["ChatCompletion" if api == "chat" else "Response"]


class Wrapper:
    """As wrapt's, which Langfuse, OpenTelemetry and Datadog use: it says that it is what it wraps, and equals it."""

    def __init__(self, wrapped: Any, told: list[str]) -> None:
        self._wrapped, self._told = wrapped, told

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._wrapped.__class__

    def __get__(self, instance: Any, owner: Any) -> Any:
        return Wrapper(self._wrapped.__get__(instance, owner), self._told)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __eq__(self, other: object) -> bool:
        return bool(self._wrapped == other)

    def __hash__(self) -> int:
        return hash(self._wrapped)

    def __call__(self, *given: Any, **arguments: Any) -> Any:
        self._told.append(arguments["model"])
        return self._wrapped(*given, **arguments)


def test_what_says_that_it_is_the_sdks_create_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(sdk.Completions, "create", Wrapper(sdk.Completions.create, told))
    client = client_that_gets(json.dumps(ANSWER).encode(), "application/json")
    answer = without_walk(client.chat.completions.create)(model="m", messages=TALK)
    assert (told, answer.usage.total_tokens) == (["m"], 4)


def test_a_wrapped_client_is_watched_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    client = wrap(client_that_gets(json.dumps(ANSWER).encode(), "application/json"), mode="teacher")
    with Wrapped.of(client):
        client.chat.completions.create(model="m", messages=TALK)
        monkeypatch.setattr(sdk.Completions, "create", Wrapper(sdk.Completions.create, told))
        client.chat.completions.create(model="m", messages=TALK)
    assert told == ["m"]


@pytest.mark.parametrize("case", [*PLAIN, *OTHER])
async def test_plain_requests_alone_are_not_walked_through(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[Any] = []
    walk = sdk.completions.async_maybe_transform  # type: ignore[attr-defined]

    async def watching(*given: Any) -> Any:
        walked.append(given)
        return await walk(*given)

    monkeypatch.setattr(sdk.completions, "async_maybe_transform", watching)
    await outcome(CLIENTS["AsyncOpenAI"], arguments_of(case), own=True)
    refused_before = case in ("an unknown argument", "a class for a format")
    assert bool(walked) == (case in OTHER and not refused_before)


@pytest.mark.parametrize("case", INPUTS)
async def test_plain_requests_alone_of_responses_are_not_walked_through(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked: list[Any] = []
    walk = sdk_responses.async_maybe_transform  # type: ignore[attr-defined]

    async def watching(*given: Any) -> Any:
        walked.append(given)
        return await walk(*given)

    monkeypatch.setattr(sdk_responses, "async_maybe_transform", watching)
    _, seen = await outcome(CLIENTS["AsyncOpenAI"], INPUTS[case], own=True)
    assert len(seen) == 1
    assert bool(walked) == (case in ("the SDK's objects", "left out"))


@pytest.mark.parametrize("is_async", [False, True])
async def test_what_watches_the_sdks_create_sees_every_call(is_async: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Sentry, OpenTelemetry and Langfuse do it: the class' method is replaced."""
    kind: Any = sdk.AsyncCompletions if is_async else sdk.Completions
    original, watched = kind.create, []

    @functools.wraps(original)
    def watching(self: Any, **arguments: Any) -> Any:
        watched.append(arguments["messages"])
        return original(self, **arguments)

    monkeypatch.setattr(kind, "create", watching)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=ANSWER))
    client: Any = openai.OpenAI(api_key="k", http_client=httpx.Client(transport=transport))
    if is_async:
        client = openai.AsyncOpenAI(api_key="k", http_client=httpx.AsyncClient(transport=transport))
    answer = await ClientModel(client, "m").complete([{"role": "user", "content": "x"}])
    assert answer.messages[0]["content"] == "Go."
    assert watched == [[{"role": "user", "content": "x"}]]


def test_a_value_that_holds_itself_is_not_plain() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert not is_plain(endless)
    assert is_plain([[0] * 1000] * 100)
