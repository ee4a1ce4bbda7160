"""The proxy as OpenAI's own client meets it, unmodified: parameters, errors, retries, streams, unknown routes."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.fake_openai import FakeOpenAI, Reply

pytest.importorskip("fastapi", reason="needs the extra `server`")
from agentcascade._util.ports import free_port
from agentcascade.config.load import CascadeConfig
from tests.proxy import Proxy, serving, settings

HI: Any = [{"role": "user", "content": "hi"}]
ROUTES = ["openai/teacher", "openai/gpt-5", "groq/teacher", "deepseek/teacher"]
"""Teachers that are reached by OpenAI's client, and by litellm in its various ways."""
Start = Callable[..., tuple[openai.OpenAI, FakeOpenAI]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(script: Any = None, retries: int = 0, **more: Any) -> tuple[openai.OpenAI, FakeOpenAI]:
            fake = stack.enter_context(FakeOpenAI(script)) if script else stack.enter_context(FakeOpenAI())
            config = settings(fake, tmp_path, **{"mode": "teacher"} | more)
            proxy = stack.enter_context(serving(CascadeConfig(**config)))
            http = stack.enter_context(httpx.Client(trust_env=False))
            client = openai.OpenAI(base_url=f"{proxy.base}/v1", api_key="none", max_retries=retries, http_client=http)
            return client, fake

        yield begin


def teacher(name: str, url: str, **more: Any) -> dict[str, Any]:
    return {"teacher": {"name": name, "api_base": url, "api_key": "k", "retries": 0, "timeout_seconds": 60} | more}


def failing(status: int, error: dict[str, Any], headers: dict[str, str] | None = None) -> Reply:
    return Reply(status=status, body={"error": error}, headers=headers or {})


LONG = {
    "message": "This model's maximum context length is 8192 tokens, however you requested 9000 tokens",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}
FILTERED = {"message": "The response was filtered", "type": "invalid_request_error", "param": "prompt"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ROUTES)
def test_a_providers_error_keeps_code_param_and_request_id(tmp_path: Path, name: str, stream: bool) -> None:
    script: list[Reply] = [
        failing(400, LONG, {"x-request-id": "req_up"}),
        failing(400, FILTERED | {"code": "content_filter"}),
        failing(429, {"message": "no money", "type": "insufficient_quota", "code": "insufficient_quota"},
                {"retry-after": "17"}),
    ]  # fmt: skip
    with FakeOpenAI(script) as fake, serving(
        CascadeConfig(**settings(fake, tmp_path, mode="teacher") | teacher(name, fake.url))
    ) as proxy, openai.OpenAI(base_url=f"{proxy.base}/v1", api_key="none", max_retries=0) as client:  # fmt: skip
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="default", messages=HI, stream=stream)
        assert (caught.value.code, caught.value.status_code) == ("context_length_exceeded", 400)
        assert caught.value.response.headers["x-upstream-request-id"] == "req_up"
        assert "maximum context length" in caught.value.message
        if "litellm" not in str(caught.value):  # some of litellm's own paths keep only the text
            assert caught.value.param == "messages"
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="default", messages=HI, stream=stream)
        assert caught.value.code in ("content_filter", "content_policy_violation")
        with pytest.raises(openai.RateLimitError) as limited:
            client.chat.completions.create(model="default", messages=HI, stream=stream)
        assert (limited.value.code, limited.value.type) == ("insufficient_quota", "insufficient_quota")
        assert limited.value.response.headers["retry-after"] == "17"


@pytest.mark.parametrize(
    ("status", "code", "retried"), [(401, "upstream_auth", False), (404, "upstream_model", False), (500, None, True)]
)
def test_what_would_fail_again_is_not_tried_again(start: Start, status: int, code: str | None, retried: bool) -> None:
    client, fake = start([failing(status, {"message": "secret words of the server's", "type": "x"})], retries=1)
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="default", messages=HI)
    assert caught.value.status_code == 502
    assert code is None or caught.value.code == code
    assert "secret words" not in str(caught.value)
    assert len(fake.requests) == 1 + retried


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("place", ["refused", "no-such-host.invalid"])
def test_a_provider_that_cannot_be_reached_is_a_bad_gateway(
    tmp_path: Path, name: str, stream: bool, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1" if place == "refused" else f"http://{place}/v1"
    with FakeOpenAI() as fake, serving(
        CascadeConfig(**settings(fake, tmp_path, mode="teacher") | teacher(name, url))
    ) as proxy:  # fmt: skip
        response = proxy.chat(stream=stream)
    assert response.status_code in (502, 504), response.text
    assert response.json()["error"]["type"] in ("upstream_error", "timeout_error")
    assert "Traceback" not in caplog.text
    assert not any(record.exc_info for record in caplog.records if record.name.startswith("agentcascade"))


EVERYTHING: dict[str, Any] = {
    "logprobs": True,
    "top_logprobs": 2,
    "functions": [{"name": "f", "parameters": {}}],
    "function_call": "auto",
    "logit_bias": {"1": 1},
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "reasoning_effort": "low",
    "verbosity": "low",
    "seed": 7,
    "stop": ["x"],
    "store": False,
    "top_p": 0.5,
    "temperature": 0.5,
    "user": "u",
    "prompt_cache_key": "p",
    "safety_identifier": "s",
    "extra_body": {
        "chat_template_kwargs": {"enable_thinking": False},
        "guided_regex": "a+",
        "top_k": 5,
        "brand_new": 1,
    },
}


def test_every_parameter_reaches_the_provider(start: Start) -> None:
    client, fake = start()
    client.chat.completions.create(model="default", messages=HI, **EVERYTHING)
    (request,) = fake.requests
    asked = EVERYTHING | EVERYTHING["extra_body"]
    del asked["extra_body"]
    assert {k: request.body.get(k) for k in asked} == asked


def test_what_is_left_out_is_said(start: Start) -> None:
    client, fake = start()
    raw = client.chat.completions.with_raw_response.create(
        model="default", messages=HI, extra_body={"api_base": "http://evil", "timeout": 1, "extra_headers": {"a": "b"}}
    )
    assert raw.headers["x-agentcascade-ignored"] == "api_base,extra_headers,timeout"
    assert not {"api_base", "timeout", "extra_headers"} & fake.requests[0].body.keys()
    assert raw.parse().choices[0].message.content == "hello"


def test_custom_tools_in_a_conversation(start: Start) -> None:
    client, fake = start()
    called: Any = {"id": "c1", "type": "custom", "custom": {"name": "py", "input": "1+1"}}
    history: Any = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]
    tools: Any = [{"type": "custom", "custom": {"name": "py"}}]
    assert client.chat.completions.create(model="default", messages=history, tools=tools).choices
    assert fake.requests[0].body["messages"][1]["tool_calls"] == [called]
    broken: Any = [*HI, {"role": "assistant", "tool_calls": [{"id": "c1", "type": "custom"}]}]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="default", messages=broken)


def test_models_and_what_is_not_there(start: Start) -> None:
    client, _ = start()
    assert client.models.retrieve("default").id == "default"
    assert [m.id for m in client.models.list()] == ["default"]
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("org/other")
    assert missing.value.code == "model_not_found"
    for ask in (
        lambda: client.embeddings.create(model="default", input="x"),
        lambda: client.completions.create(model="default", prompt="x"),
        lambda: client.images.generate(model="default", prompt="x"),
        lambda: client.files.list(),
    ):
        with pytest.raises(openai.NotFoundError) as missing:
            ask()
        assert "/v1/chat/completions" in str(missing.value)


def test_a_stream_that_fails_in_the_middle_raises_in_the_client(start: Start) -> None:
    client, _ = start([Reply(texts=("one two three four",), truncate_after=3)])
    words = []
    with pytest.raises(openai.APIError), client.chat.completions.create(model="default", messages=HI, stream=True) as s:
        words += [c.choices[0].delta.content for c in s if c.choices]
    assert words == [] or "one" in "".join(filter(None, words))


def test_raw_and_helper_streams(start: Start) -> None:
    client, _ = start()
    with client.chat.completions.with_streaming_response.create(model="default", messages=HI) as raw:
        assert json.loads(raw.read())["choices"][0]["message"]["content"] == "hello"
    with client.chat.completions.stream(model="default", messages=HI, stream_options={"include_usage": True}) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "hello"
    assert final.usage is not None
    assert final.usage.prompt_tokens == 10
    slow, _ = start([Reply(delay=3)])
    with pytest.raises(openai.APITimeoutError):
        slow.with_options(timeout=0.3).chat.completions.create(model="default", messages=HI)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with FakeOpenAI(lambda _: Reply()) as fake:
        config = settings(fake, tmp_path_factory.mktemp("plain"), mode="teacher", server={"body_seconds": 2})
        with serving(CascadeConfig(**config)) as running:
            yield running


BODY = json.dumps({"model": "default", "messages": HI}).encode()
LENGTH = f"content-length: {len(BODY)}\r\n".encode()
JSON = b"host: localhost\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("head", "body", "first"),
    [
        (b"POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\n" + LENGTH, BODY, b" 200 "),
        (b"POST /v1/chat/completions HTTP/1.1\r\nexpect: 100-continue\r\n" + JSON + LENGTH, BODY, b" 100 "),
        (
            b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n" + JSON,
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
            b" 200 ",
        ),
        (b"HEAD /v1/models HTTP/1.1\r\n" + JSON, b"", b" 200 "),
        (b"OPTIONS /v1/chat/completions HTTP/1.1\r\n" + JSON, b"", b" 405 "),
        (b"GET /v1/models HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(400)) + JSON, b"", b" 431 "),
        (b"GET /v1/models HTTP/1.1\r\nx: " + b"y" * 300_000 + b"\r\n" + JSON, b"", b" 431 "),
        (b"GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n", b"", b" 400 "),
    ],
    ids=["http-1.0", "expect", "chunked", "head", "options", "many-headers", "long-header", "two-hosts"],
)
def test_ways_to_send_a_request(proxy: Proxy, head: bytes, body: bytes, first: bytes) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
        try:
            client.sendall(head + b"connection: close\r\n\r\n" + body)
        except ConnectionError:  # it has answered, and reads no more
            assert first == b" 431 "
        got = b""
        try:
            while part := client.recv(65536):
                got += part
        except ConnectionError:
            pass
    if not got:
        assert first == b" 431 ", "a reset may overtake the answer to a head that was still being sent"
        return
    assert first in got.split(b"\r\n")[0], got[:300]
    if first == b" 100 ":
        assert b"HTTP/1.1 200" in got
    if head.startswith(b"HEAD"):
        assert got.endswith(b"\r\n\r\n")


def test_a_key_is_asked_for_before_a_body(tmp_path: Path) -> None:
    """Who has none gets the answer at once, and what was announced is neither waited for nor kept."""
    with FakeOpenAI() as fake, serving(CascadeConfig(**settings(fake, tmp_path, mode="teacher"))) as running:
        running.key("k")
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", running.port), timeout=60) as client:
            client.sendall(head + b"content-length: 7000000\r\n\r\n" + b"x" * 1000)
            assert client.recv(4096).startswith(b"HTTP/1.1 401 ")
            client.sendall(b"x" * 1_000_000)
            client.sendall(b"x" * (7_000_000 - 1_001_000))  # thrown away: then the connection takes the next request
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_half_sent_bodies_share_a_bound(tmp_path: Path) -> None:
    """Without keys: what is still coming in is bounded over all connections; short requests are served meanwhile."""
    limits = {"max_body_bytes": 1_000_000, "max_incoming_bytes": 2_000_000, "body_seconds": 60}
    with FakeOpenAI() as fake, serving(
        CascadeConfig(**settings(fake, tmp_path, mode="teacher", server=limits))
    ) as running, ExitStack() as stack:  # fmt: skip
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        sockets = []
        for _ in range(6):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=60))
            client.sendall(head + b"content-length: 900000\r\n\r\n" + b"x" * 890_000)
            sockets.append(client)
        refused: set[socket.socket] = set()
        while len(refused) < 4:
            told, _, _ = select.select([s for s in sockets if s not in refused], [], [], 60)
            assert told, "what is held has a bound"
            assert all(s.recv(4096).startswith(b"HTTP/1.1 503 ") for s in told)
            refused |= set(told)
        assert running.chat().status_code == 200
        for client in sockets:
            client.close()


def test_a_whole_answer_for_every_request(proxy: Proxy) -> None:
    """Bodies that are compressed, deep or wide are refused with a reason."""
    deep = b'{"model":"default","messages":[{"role":"user","content":"a"}],"x":' + b"[" * 5000 + b"]" * 5000 + b"}"
    response = proxy.http.post("/v1/chat/completions", content=deep, headers={"content-type": "application/json"})
    assert response.status_code == 400
    wide = b'{"model":"default","messages":[' + b",".join([b"{}"] * 100_000) + b"]}"
    response = proxy.http.post("/v1/chat/completions", content=wide, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert "(and" not in response.text, "it stops at the first: listing millions of faults takes a minute"
    parts = b'{"model":"default","messages":[{"role":"user","content":[' + b",".join([b"1"] * 100_000) + b"]}]}"
    assert proxy.http.post("/v1/chat/completions", content=parts).json()["error"]["message"].count("more") <= 1
    lists = b'{"model":"default","messages":[],"x":[' + b",".join([b"[]"] * 600_000) + b"]}"
    assert "lists and objects" in proxy.http.post("/v1/chat/completions", content=lists).text
