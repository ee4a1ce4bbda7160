"""A provider that says back the key it was sent: the exception of `wrap` and `build` says it nowhere, and stays its."""

from __future__ import annotations

import asyncio
import json
import ssl
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pydantic
import pytest

pytest.importorskip("anthropic", reason="needs the extra `anthropic`")
import anthropic

from agentcascade import build, wrap
from agentcascade._util import error_secrets, known_secrets
from tests.provider import Out, Provider

KEY = "Zq7-plain-form-0123456789xyzw"
"""Of no form that a pattern knows."""
ASK: list[Any] = [{"role": "user", "content": "Where is the mug?"}]
PLAIN: dict[str, Any] = {"mode": "teacher", "retrieval": {"k": 0}, "bank": {"url": "sqlite:///:memory:"}}
SAID = f"Incorrect API key provided: {KEY}."


def refuses(body: dict[str, Any], out: Out) -> None:
    error = {"message": SAID, "type": "authentication_error", "code": "invalid_api_key", KEY: [{"k": KEY}]}
    headers = {"x-echo": f"Bearer {KEY}", "content-type": "application/json"}
    out.raw(json.dumps({"type": "error", "error": error}).encode(), 401, headers)


def breaks_off(body: dict[str, Any], out: Out) -> None:
    """An error as an event of a stream, after the first word."""
    event = {"error": {"message": SAID, "type": "authentication_error", "code": "401"}, "type": "error"}
    out.raw(b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n", 200, {"content-type": "text/event-stream"})


def said(error: BaseException) -> str:
    """All that a program could log of an exception."""
    texts, seen, waiting = [], set[int](), [error]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        waiting += [e for e in (each.__cause__, each.__context__) if e is not None]
        texts += [repr(each), str(each), repr(vars(each)), "".join(traceback.format_exception_only(each))]
        for name in ("response", "_response", "request", "_request"):
            try:
                http = getattr(each, name)
                texts += [repr(http.headers.multi_items()), str(http.url), repr(http.content), http.text]
            except Exception as missing:
                texts.append(type(missing).__name__)
    return "\n".join(texts)


Ask = Callable[[bool], None]
"""One request, streamed or not, to the end of its answer."""
OPENAI = {"model": "m", "messages": ASK}
SURFACES: dict[str, tuple[Any, Callable[..., Any]]] = {
    "openai": (openai.OpenAI, lambda c, **more: c.chat.completions.create(**OPENAI, **more)),
    "async openai": (openai.AsyncOpenAI, lambda c, **more: c.chat.completions.create(**OPENAI, **more)),
    "responses": (openai.OpenAI, lambda c, **more: c.responses.create(model="m", input="Where?", **more)),
    "anthropic": (anthropic.Anthropic, lambda c, **more: c.messages.create(max_tokens=9, **OPENAI, **more)),
    "async anthropic": (anthropic.AsyncAnthropic, lambda c, **more: c.messages.create(max_tokens=9, **OPENAI, **more)),
}
BUILT = ("openai/m", "openai/responses/m", "anthropic/m", "groq/m")


@contextmanager
def wrapped(kind: Any, create: Callable[..., Any], url: str) -> Iterator[Ask]:
    base = url.removesuffix("/v1") if "Anthropic" in kind.__name__ else url
    client = wrap(kind(base_url=base, api_key=KEY, max_retries=0), **PLAIN)

    def ask(stream: bool) -> None:
        answer = create(client, stream=stream)
        if stream:
            list(answer)

    async def ask_async(stream: bool) -> None:
        answer = await create(client, stream=stream)
        if stream:
            [event async for event in answer]

    with client.agentcascade, asyncio.Runner() as runner:
        yield (lambda stream: runner.run(ask_async(stream))) if "Async" in kind.__name__ else ask


@contextmanager
def built(name: str, url: str) -> Iterator[Ask]:
    async def ask(stream: bool) -> None:
        if not stream:
            await cascade.episode().complete(ASK)
            return
        async with cascade.episode().stream(ASK) as chunks:
            [chunk async for chunk in chunks]

    with asyncio.Runner() as runner:
        cascade = build(None, teacher={"name": name, "api_base": url, "api_key": KEY, "retries": 0}, **PLAIN)
        yield lambda stream: runner.run(ask(stream))
        runner.run(cascade.aclose())


@pytest.fixture(autouse=True)
def _no_key_is_known_from_elsewhere() -> Iterator[None]:
    assert KEY not in known_secrets.known_secrets()
    yield
    known_secrets._registered.pop(KEY, None)
    known_secrets._configured.pop(KEY, None)


@pytest.mark.parametrize("surface", [*SURFACES, *BUILT])
def test_an_exception_says_no_key(surface: str) -> None:
    with Provider(refuses) as provider:
        opened = wrapped(*SURFACES[surface], provider.url) if surface in SURFACES else built(surface, provider.url)
        with opened as ask:
            for answer, stream in ((refuses, False), (refuses, True), (breaks_off, True)):
                provider.answer = answer
                with pytest.raises(Exception) as caught:
                    ask(stream)
                error: Any = caught.value
                text = said(error)
                assert "Incorrect API key provided: [key]" in text
                assert KEY not in text
                assert KEY[:10] not in text
                if answer is refuses:
                    assert error.status_code == 401
                    assert "AuthenticationError" in type(error).__name__ or "Refusal" in type(error).__name__
                    headers = getattr(error, "litellm_response_headers", None) or error.response.headers
                    assert headers["x-echo"] == "Bearer [key]"
    assert all(KEY in " ".join(headers.values()) for headers in provider.headers)


def test_a_response_is_cleaned_in_its_own_encoding_and_by_what_its_request_was_sent_with() -> None:
    request = httpx.Request("POST", "https://user:pw-012345@host/v1?key=k-0123456789", headers={"X-Api-Key": KEY})
    page = httpx.Response(
        401, content=f"<p>ünknown {KEY}, k-0123456789</p>".encode("utf-16"), request=request,
        headers={"content-type": "text/html; charset=utf-16"},
    )  # fmt: skip
    error = httpx.HTTPStatusError(f"401 for {request.url}", request=request, response=page)
    error_secrets.remove_secrets(error)
    assert page.text == "<p>ünknown [key], [key]</p>"
    assert page.content.decode("utf-16") == page.text
    assert str(error) == "401 for https://user:[key]@host/v1?key=[key]"
    assert KEY not in said(error)
    assert "0123456789" not in said(error)


def test_nothing_is_too_deep_and_what_is_too_wide_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    known_secrets.register(KEY)
    body: Any = KEY
    for _ in range(5000):
        body = {"error": [body, 1]}
    error = openai.APIError("no", request=openai.OpenAI(api_key="k")._client.build_request("GET", "/"), body=body)
    error_secrets.remove_secrets(error)
    inner: Any = error.body
    for _ in range(5000):
        inner = inner["error"][0]
    assert inner == "[key]"
    monkeypatch.setattr(error_secrets, "MOST_VALUES", 10)
    error.body = {"many": [{"k": KEY} for _ in range(100)]}
    error_secrets.remove_secrets(error)
    assert KEY not in repr(error.body)


def test_causes_go_round_in_circles_and_in_groups() -> None:
    known_secrets.register(KEY)
    first, second = ValueError(f"first {KEY}"), KeyError(f"second {KEY}")
    first.__cause__, second.__cause__ = second, first
    group = ExceptionGroup("both", [OSError(f"third {KEY}")])
    second.__context__ = group
    first.add_note(f"with {KEY}")
    error_secrets.remove_secrets(first)
    assert KEY not in said(first) + said(group.exceptions[0])
    assert str(first) == "first [key]"
    assert first.__notes__ == ["with [key]"]


class Slotted(Exception):
    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, f"no {KEY}", f"/tmp/{KEY}"),
        ssl.SSLError(1, f"no {KEY}"),
        ImportError(f"no {KEY}", name=KEY),
        Slotted(f"no {KEY}"),
        RuntimeError("no", (KEY, [(KEY,)], {KEY}, frozenset({KEY}))),
        RuntimeError(ValueError(f"no {KEY}")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_texts_in_slots_tuples_sets_and_arguments_are_cleaned(error: BaseException) -> None:
    known_secrets.register(KEY)
    error_secrets.remove_secrets(error)
    assert KEY not in said(error)
    assert "[key]" in said(error)


def test_tuples_in_tuples_take_no_time_without_end() -> None:
    known_secrets.register(KEY)
    nested: Any = (KEY,)
    for _ in range(60):
        nested = (nested, nested)
    error = RuntimeError(nested)
    error_secrets.remove_secrets(error)
    assert KEY not in said(error)


class Unaskable:
    """What a proxy of somebody's library is: every question is a request, which fails."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


def test_an_attribute_that_cannot_be_asked_keeps_neither_the_error_nor_the_others_from_being_cleaned() -> None:
    known_secrets.register(KEY)
    error: Any = RuntimeError(f"no {KEY}")
    error.client, error.body = Unaskable(), {"key": KEY}
    error_secrets.remove_secrets(error)
    assert (str(error), error.body) == ("no [key]", {"key": "[key]"})


def test_a_cause_that_cannot_be_changed_is_cut_off() -> None:
    class Answer(pydantic.BaseModel):
        number: int

    known_secrets.register(KEY)
    first, error = ValueError("first"), RuntimeError("no")
    with pytest.raises(pydantic.ValidationError) as caught:
        Answer.model_validate({"number": KEY})
    caught.value.__context__, error.__cause__ = first, caught.value
    error_secrets.remove_secrets(error)
    assert error.__cause__ is first
    assert KEY not in said(error)
