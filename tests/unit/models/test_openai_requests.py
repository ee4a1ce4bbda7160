"""Our own chat requests against those of OpenAI's `post`: the same bytes go out, the same answers and errors come."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from agentcascade.models import openai_requests
from agentcascade.models.http_client import model_client
from agentcascade.models.openai_requests import OpenAIRequests

Handler = Callable[[httpx.Request], httpx.Response]
BODY = {"model": "m", "messages": [{"role": "user", "content": "ä “quoted” \u2028"}], "temperature": 0.5}
SOON = {"retry-after-ms": "1"}


def answers(*responses: httpx.Response | Exception) -> Handler:
    """One after another; the last of them again and again."""
    left = list(responses)

    def handle(request: httpx.Request) -> httpx.Response:
        one = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(one, Exception):
            raise one
        return httpx.Response(one.status_code, headers=one.headers, content=one.content)

    return handle


def said(
    status: int, content: bytes = b'{"choices": []}', kind: str = "application/json", **more: str
) -> httpx.Response:
    headers = {"content-type": kind, **{k.replace("_", "-"): v for k, v in more.items()}}
    return httpx.Response(status, headers=headers, content=content)


ERROR = b'{"error": {"message": "no", "code": "bad", "param": "p", "type": "t"}}'
CASES: dict[str, Callable[[], Handler]] = {
    "an answer": lambda: answers(said(200)),
    "JSON of another media type": lambda: answers(said(201, b"[1]", "application/problem+json; charset=utf-8")),
    "a text": lambda: answers(said(200, b"hello", "text/plain")),
    "no media type": lambda: answers(httpx.Response(200, content=b"hello")),
    "what is no JSON": lambda: answers(said(200, b"{")),
    "refused": lambda: answers(said(400, ERROR)),
    "refused without words": lambda: answers(said(404, b"")),
    "too many, then an answer": lambda: answers(said(429, ERROR, **SOON), said(503, ERROR, **SOON), said(200)),
    "too many for ever": lambda: answers(said(429, ERROR, **SOON)),
    "told not to try again": lambda: answers(said(500, ERROR, x_should_retry="false")),
    "told to try again": lambda: answers(said(400, ERROR, x_should_retry="true", **SOON), said(200)),
    "to wait for hours": lambda: answers(said(429, ERROR, retry_after="7200")),
    "a redirect to nowhere": lambda: answers(httpx.Response(304)),
    "slow, then an answer": lambda: answers(httpx.ReadTimeout("slow"), said(200)),
    "slow for ever": lambda: answers(httpx.ReadTimeout("slow")),
    "unreachable": lambda: answers(httpx.ConnectError("refused")),
    "broken, then refused": lambda: answers(httpx.RemoteProtocolError("cut"), said(422, ERROR)),
}


async def outcome(handler: Handler, own: bool, options: dict[str, Any]) -> tuple[Any, list[Any]]:
    """(what was returned or raised, all requests that went out)."""
    seen: list[Any] = []

    def handle(request: httpx.Request) -> httpx.Response:
        headers = sorted(request.headers.multi_items())
        seen.append((request.method, str(request.url), headers, request.content, request.extensions["timeout"]))
        return handler(request)

    http = httpx.AsyncClient(transport=httpx.MockTransport(handle), follow_redirects=True)
    base = "http://somewhere.test/v1/"
    client: Any = openai.AsyncOpenAI(
        api_key="sk-1", organization="org", base_url=base, max_retries=2, timeout=7, http_client=http
    )
    result: Any
    try:
        if own:
            result = await OpenAIRequests(client).post("/chat/completions", BODY, options)
        else:
            result = await client.post("/chat/completions", cast_to=object, body=BODY, options=dict(options))
    except Exception as error:
        kept = {k: getattr(error, k, None) for k in ("status_code", "body", "code", "param", "type", "request_id")}
        result = type(error), str(error), kept, type(error.__cause__), error.__suppress_context__
    await client.close()
    return result, seen


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai.AsyncOpenAI, "_calculate_retry_timeout", lambda *_, **__: 0.0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("options", [{"timeout": 3.5}, {}, {"timeout": 3, "headers": {"x-own": "1"}}], ids=str)
async def test_the_same_goes_out_and_comes_back(case: str, options: dict[str, Any]) -> None:
    theirs = await outcome(CASES[case](), False, options)
    ours = await outcome(CASES[case](), True, options)
    assert ours == theirs


async def test_the_kept_head_is_that_of_its_key_and_timeout() -> None:
    seen: list[tuple[Any, ...]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        timeout = request.headers["x-stainless-read-timeout"]
        seen.append((request.headers["authorization"], timeout, json.loads(request.content)["n"]))
        return said(200)

    http = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    client = openai.AsyncOpenAI(api_key="one", base_url="http://somewhere.test", http_client=http)
    requests = OpenAIRequests(client)
    await requests.post("/chat/completions", {"n": 1}, {"timeout": 3})
    await requests.post("/chat/completions", {"n": 2}, {"timeout": 4})
    client.api_key = "two"
    await requests.post("/chat/completions", {"n": 3}, {"timeout": 4})
    assert seen == [("Bearer one", "3", 1), ("Bearer one", "4", 2), ("Bearer two", "4", 3)]
    with pytest.raises(ValueError, match="JSON"):  # no number that is none
        await requests.post("/chat/completions", {"n": float("nan")}, {"timeout": 3})
    assert len(seen) == 3
    await client.close()


async def test_the_client_of_configured_models_takes_them() -> None:
    """It is OpenAI's own class, or the SDK would send everything itself."""
    client = openai.AsyncOpenAI(api_key="k", base_url="http://127.0.0.1:9", http_client=model_client(1), max_retries=0)
    built: list[Any] = []
    build = client._build_request
    client._build_request = lambda *a, **k: built.append(a) or build(*a, **k)  # type: ignore[method-assign,func-returns-value]
    requests = OpenAIRequests(client)
    for _ in range(2):
        with pytest.raises(openai.APIConnectionError):
            await requests.post("/chat/completions", {}, {"timeout": 1})
    assert len(built) == 1
    await client.close()


@pytest.mark.parametrize(("name", "value"), [("HAS_PARTS", False), ("PRIVATE", ("_build_request", "_gone"))])
async def test_a_version_without_what_is_used_of_it_sends_them_itself(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES["too many, then an answer"]
    theirs = await outcome(case(), False, {"timeout": 3})
    monkeypatch.setattr(openai_requests, name, value)
    monkeypatch.setattr(OpenAIRequests, "_head", None)
    assert await outcome(case(), True, {"timeout": 3}) == theirs


async def test_a_client_that_has_another_http_library_sends_them_itself() -> None:
    """The SDK's own one is httpx2's since its version 3."""
    client = openai.AsyncOpenAI(api_key="k", base_url="http://127.0.0.1:9", max_retries=0)
    assert openai_requests.can_send_for(client) is isinstance(client._client, httpx.AsyncClient)
    with pytest.raises(openai.APIConnectionError):
        await OpenAIRequests(client).post("/chat/completions", {}, {"timeout": 1})
    await client.close()
