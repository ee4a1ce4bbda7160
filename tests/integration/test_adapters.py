"""The contract of the model adapters: one table of what servers do, asked through every adapter, whole and streamed.

A case is what the server answers and what must come of it. Providers whose habit it is stand beside the case.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import openai
import pytest
from provider import BLOCK, USAGE, Answer, Out, Provider, last, part, whole

from agentcascade.errors import EmptyCompletion, bill_of
from agentcascade.models import chat_completions, http_transport
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.message_fields import BESIDE
from agentcascade.models.openai import OpenAIModel
from agentcascade.models.openai_client import ClientModel
from agentcascade.models.pricing import Price, PriceTable
from agentcascade.models.quirks import NO_THOUGHT
from agentcascade.types import Completion, Delta, Usage

PRICE = Price(input="1", output="10", long_context=((1000, Price(input="2", output="20")),))
PRICES = PriceTable({"m": PRICE, "openai/m": PRICE, "127.0.0.1/m": PRICE})
ASK = [{"role": "user", "content": "Go on, please."}]
KEY = "sk-contract-0123456789"
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
CALLED = [
    *ASK,
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "a bed"},
]  # fmt: skip


def litellm(url: str) -> Any:
    return LiteLLMModel("openai/m", api_base=url, api_key=KEY, retries=0, prices=PRICES, timeout=20)


def by_address(url: str) -> Any:
    return OpenAIModel("openai/m", api_base=url, api_key=KEY, retries=0, prices=PRICES, timeout=20)


def client(url: str) -> Any:
    made = openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=20)
    return ClientModel(made, "m", prices=PRICES)


def sync_client(url: str) -> Any:
    return ClientModel(openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=20), "m", prices=PRICES)


ADAPTERS: dict[str, Callable[[str], Any]] = {
    "litellm": litellm, "by address": by_address, "client": client, "sync client": sync_client
}  # fmt: skip
FORMS = ("whole", "streamed")


@dataclass
class Got:
    """What one call came to."""

    completion: Completion | None = None
    error: BaseException | None = None
    deltas: list[Delta] = field(default_factory=list)

    @property
    def answer(self) -> Completion:
        assert self.error is None, repr(self.error)
        assert self.completion is not None
        return self.completion

    @property
    def bill(self) -> Completion:
        assert self.error is not None, self.completion
        bill = bill_of(self.error)
        assert bill is not None, repr(self.error)
        return bill

    @property
    def text(self) -> str:
        return "".join(d.get("content") or "" for d in self.deltas)


async def ask(model: Any, form: str, messages: Any = ASK, **options: Any) -> Got:
    got = Got()
    try:
        if form == "whole":
            got.completion = await model.complete(messages, **options)
        else:
            got.completion = await model.stream(messages, got.deltas.append, **options)
    except BaseException as error:
        got.error = error
    return got


@dataclass(frozen=True)
class Case:
    """What the server says, and what must come of it through every adapter."""

    name: str
    answer: Answer
    check: Callable[[Got, Provider], None]
    forms: tuple[str, ...] = FORMS
    options: dict[str, Any] = field(default_factory=dict)
    messages: Any = field(default_factory=lambda: ASK)
    adapters: tuple[str, ...] = tuple(ADAPTERS)


NOT_LITELLM = ("by address", "client", "sync client")
"""litellm's own classes drop what they do not know."""


def says(message: dict[str, Any], finish: str | None = "stop", chunks: Any = None, **more: Any) -> Answer:
    """The message whole, or as one chunk (or `chunks`); `more` beside the choices."""

    def answer(body: dict[str, Any], out: Out) -> None:
        if body.get("stream"):
            said = chunks or [part({"role": "assistant", **message})]
            beside = {k: v for k, v in more.items() if k != "usage"}
            ended = [] if finish is None else [part({}, finish)]
            out.events([{**c, **beside} for c in [*said, *ended]] + [last(more.get("usage", USAGE))])
        else:
            out.json(whole(message, finish, n=body.get("n", 1), **more))

    return answer


def refuses(name: str, said: str, status: int = 400) -> Answer:
    """A server that knows no `name` and says `said`."""

    def answer(body: dict[str, Any], out: Out) -> None:
        if name in body:
            out.json({"error": {"message": said, "type": "invalid_request_error"}}, status)
        else:
            says({"content": "hello"})(body, out)

    return answer


def answered(text: str = "hello") -> Callable[[Got, Provider], None]:
    def check(got: Got, _: Provider) -> None:
        assert got.answer.messages[0]["content"] == text
        assert not got.deltas or got.text == text

    return check


def after_one_refusal(name: str) -> Callable[[Got, Provider], None]:
    def check(got: Got, provider: Provider) -> None:
        assert got.answer.messages[0]["content"] == "hello"
        assert [name in b for b in provider.bodies] == [True, False], "asked once, learnt, left out"

    return check


def failed(*words: str, lost: int | None = None) -> Callable[[Got, Provider], None]:
    def check(got: Got, _: Provider) -> None:
        assert isinstance(got.error, Exception), got
        assert any(w in str(got.error) for w in words), repr(got.error)
        if lost is not None:
            assert (got.bill.lost, got.bill.estimated) == (lost, True)

    return check


def estimated(got: Got, _: Provider) -> None:
    assert got.answer.estimated
    assert got.answer.usage.prompt >= 4, "what was sent"
    assert got.answer.usage.completion >= 40, "what was received"
    assert got.answer.dollars == PRICE.dollars(got.answer.usage) > 0


def believed(got: Got, _: Provider) -> None:
    assert not got.answer.estimated
    assert got.answer.usage == Usage(input=10, output=2)
    assert got.answer.dollars == Decimal("0.00003")


def silent(finish: str) -> Callable[[Got, Provider], None]:
    def check(got: Got, provider: Provider) -> None:
        assert isinstance(got.error, EmptyCompletion)
        assert (got.bill.finish_reasons, len(got.bill.messages)) == ((finish,), 1), "for the caller, as it is"
        assert (got.bill.usage.prompt, got.bill.usage.completion) == (10, 2)
        assert len(provider.bodies) == 1, "once"

    return check


LOOK = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "bed"}'}}


def called(got: Got, _: Provider) -> None:
    (call,) = got.answer.messages[0]["tool_calls"]
    assert call["function"] == {"name": "look", "arguments": '{"at": "bed"}'}
    assert got.answer.finish_reasons == ("tool_calls",)


def kept(**fields: Any) -> Callable[[Got, Provider], None]:
    def check(got: Got, _: Provider) -> None:
        message = got.answer.messages[0]
        assert {k: message.get(k) for k in fields} == fields

    return check


def beside(got: Got, _: Provider) -> None:
    assert got.answer.fields["service_tier"] == "flex"
    assert got.answer.fields["system_fingerprint"] == "fp_1"
    assert got.answer.fields["model"]
    (choice,) = got.answer.choice_fields
    assert [t["logprob"] for t in choice["logprobs"]["content"]] == [-0.5]
    if got.deltas:
        assert any(d.get(BESIDE, {}).get("choice", {}).get("logprobs") for d in got.deltas)


def with_logprobs(body: dict[str, Any], out: Out) -> None:
    told = {"content": [{"token": "x", "logprob": -0.5, "bytes": None, "top_logprobs": []}], "refusal": None}
    said = whole({"content": "x"}, service_tier="flex", system_fingerprint="fp_1")
    said["choices"][0]["logprobs"] = told
    more = {"service_tier": "flex", "system_fingerprint": "fp_1"}
    if body.get("stream"):
        out.events([{**part({"content": "x"}, logprobs=told), **more}, {**part({}, "stop"), **more}, last()])
    else:
        out.json(said)


def breaks_off(body: dict[str, Any], out: Out) -> None:
    out.events([part({"role": "assistant", "content": "word "}), *[part({"content": "word "})] * 49], done=False)


def broken(got: Got, _: Provider) -> None:
    assert isinstance(got.error, ConnectionError)
    assert not isinstance(got.error, AssertionError)
    assert len(got.text.split()) == 50
    assert got.bill.estimated
    assert got.bill.lost == 0, "what came is known"
    assert got.bill.usage.completion >= 50
    assert got.bill.dollars == PRICE.dollars(got.bill.usage)


def error_as_event(body: dict[str, Any], out: Out) -> None:
    out.events([part({"role": "assistant", "content": "half"}), {"error": {"message": "overloaded", "code": 529}}])


def without_delta(body: dict[str, Any], out: Out) -> None:
    note = {"index": 0, "finish_reason": None, "content_filter_results": {}, "content_filter_offsets": {"check": 1}}
    chunk = {"id": "", "object": "", "created": 0, "model": ""}
    prompt = {**chunk, "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    said = [part({"role": "assistant", "content": "hel"}), part({"content": "lo"}), part({}, "stop")]
    out.events([prompt, *said, {**chunk, "choices": [note]}, last()])


def only_done(body: dict[str, Any], out: Out) -> None:
    out.events([part({"role": "assistant", "content": "hel"}), part({"content": "lo"}), last()])


def ignores_n(body: dict[str, Any], out: Out) -> None:
    out.json(whole({"content": "hello"}))


def one_by_one(got: Got, provider: Provider) -> None:
    assert [m["content"] for m in got.answer.messages] == ["hello"] * 3
    assert [b.get("n", 1) for b in provider.bodies] in ([3, 1, 1], [3, 1, 1, 1])
    paid = len([b for b in provider.bodies if b.get("n", 1) == 1 or len(provider.bodies) == 3])
    assert got.answer.usage == Usage(input=10 * paid, output=2 * paid)


def three(got: Got, provider: Provider) -> None:
    assert len(got.answer.messages) == 3
    assert len(provider.bodies) == 1
    assert got.answer.usage == Usage(input=10, output=2)


def thoughts_wanted(body: dict[str, Any], out: Out) -> None:
    if any(m.get("tool_calls") and not m.get("reasoning_content") for m in body["messages"]):
        said = "The `reasoning_content` in the thinking mode must be passed back to the API."
        out.json({"error": {"message": said, "type": "invalid_request_error"}}, 400)
    else:
        says({"content": "hello"})(body, out)


def thoughts_given(got: Got, provider: Provider) -> None:
    assert got.answer.messages[0]["content"] == "hello"
    assert provider.bodies[-1]["messages"][1]["reasoning_content"] == NO_THOUGHT


def page(body: dict[str, Any], out: Out) -> None:
    out.raw(b"<html><body>Welcome to the proxy</body></html>", 200, {"content-type": "text/html"})


def bad_gateway(body: dict[str, Any], out: Out) -> None:
    out.raw(b"<html>502 Bad Gateway</html>", 502, {"content-type": "text/html"})


def refused_without_bill(got: Got, _: Provider) -> None:
    assert isinstance(got.error, Exception)
    assert bill_of(got.error) is None, "nothing was generated"


def with_usage(usage: Any) -> Answer:
    words = {"content": "word " * 50}
    return says(words, usage=usage)


THOUGHT = {"type": "reasoning.text", "text": "hm, the bed", "index": 0, "format": "x"}
CITED = {"type": "url_citation", "url_citation": {"url": "https://example.org", "start_index": 0, "end_index": 1}}
EVERYTHING: dict[str, Any] = {
    "content": "x",
    "reasoning": "hm",
    "reasoning_details": [THOUGHT],
    "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}],
    "annotations": [CITED],
    "citations": ["https://example.org"],
    "function_call": {"name": "look", "arguments": "{}"},
    "audio": {"id": "a1", "data": "AAAA", "transcript": "hm", "expires_at": 9},
    "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
    "a_field_of_tomorrow": {"x": [1]},
}
"""OpenRouter, Groq, Together, Perplexity, OpenAI's audio and web search, and a server of next year."""
IN_PARTS = [
    part({"role": "assistant", "reasoning": "h", "reasoning_details": [{**THOUGHT, "text": "hm, "}]}),
    part({"reasoning": "m", "reasoning_details": [{**THOUGHT, "text": "the bed"}]}),
    part({"thinking_blocks": [{"type": "thinking", "thinking": "h"}]}),
    part({"thinking_blocks": [{"type": "thinking", "thinking": "m", "signature": "c2ln"}]}),
    part({"function_call": {"name": "look", "arguments": ""}}), part({"function_call": {"arguments": "{}"}}),
    part({"audio": {"id": "a1", "data": "AA", "transcript": "h"}}),
    part({"audio": {"data": "AA", "transcript": "m", "expires_at": 9}}),
    part({k: EVERYTHING[k] for k in ("content", "annotations", "citations", "images", "a_field_of_tomorrow")}),
]  # fmt: skip


def thoughts_unknown(body: dict[str, Any], out: Out) -> None:
    if any(m.keys() - {"role", "content", "tool_calls", "tool_call_id"} for m in body["messages"]):
        out.json({"error": {"message": "property 'messages.1.reasoning_content' is unsupported"}}, 400)
    else:
        says({"content": "hello"})(body, out)


LONE = [
    part({"tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at"'}}]}),
    part({"tool_calls": [{"function": {"arguments": ': "bed"}'}}]}),
]

AS_OBJECT = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": {"at": "bed"}}}


def vllm_error(body: dict[str, Any], out: Out) -> None:
    """vLLM's own error object, after which it says that it is done."""
    error = {"object": "error", "message": "the engine is dead", "type": "InternalServerError", "code": 500}
    if body.get("stream"):
        out.events([part({"role": "assistant", "content": "half"}), error])
    else:
        out.json(error)


def null_among_chunks(body: dict[str, Any], out: Out) -> None:
    out.events([part({"role": "assistant", "content": "hel"}), None, part({"content": "lo"}), part({}, "stop"), last()])


def not_the_half(got: Got, _: Provider) -> None:
    assert got.error is not None or got.answer.messages[0]["content"] == "hello"
    assert got.error is None or got.bill.usage.completion >= 1


CASES = [
    Case("an ordinary answer", says({"content": "hello"}), answered()),
    Case("usage as reported", says({"content": "hello"}), believed),
    # Fields: DeepSeek and vLLM; OpenRouter, Groq, Together; OpenAI
    Case("reasoning_content", says({"content": "x", "reasoning_content": "hm"}), kept(reasoning_content="hm")),
    Case("every other field", says(EVERYTHING, chunks=IN_PARTS), kept(**EVERYTHING), adapters=NOT_LITELLM),
    Case("a refusal", says({"content": None, "refusal": "I must not."}), kept(refusal="I must not.", content=None)),
    Case("content null beside a call", says({"content": None, "tool_calls": [LOOK]}, "tool_calls",
         [part({"tool_calls": [{"index": 0, **LOOK}]})]), kept(content=None)),
    Case("what is said beside the message", with_logprobs, beside, options={"logprobs": True, "top_logprobs": 1}),
    # Tool calls: Gemini's OpenAI endpoint, Ollama
    Case("a call", says({"content": None, "tool_calls": [LOOK]}, "tool_calls",
         [part({"tool_calls": [{"index": 0, **LOOK}]})]), called, options={"tools": TOOLS}),
    Case("call deltas without index", says({}, "tool_calls", LONE), called, ("streamed",), {"tools": TOOLS}),
    Case("a call whose arguments are an object", says({"content": None, "tool_calls": [AS_OBJECT]}, "tool_calls",
         [part({"tool_calls": [{"index": 0, **AS_OBJECT}]})]), called, options={"tools": TOOLS}),
    *[Case(f"calls that are {kind}", says({"content": "hello", "tool_calls": calls}, chunks=[
         part({"content": "hello", "tool_calls": calls})]), answered(), adapters=NOT_LITELLM)
      for kind, calls in {"a number": 5, "an object": {"id": "c1"}, "nulls": [None, 5]}.items()],
    *[Case(f"thoughts as {name}", says({"content": "x", name: "hm, the bed"}, chunks=[part({name: "hm, "}),
         part({name: "the bed"}), part({"content": "x"})]), kept(**{name: "hm, the bed"}), adapters=NOT_LITELLM)
      for name in ("thinking", "reasoning_text", "thoughts")],
    # Endings: vLLM with tool parsers, Azure, reasoning models at their limit
    Case("done without a reason", only_done, answered(), ("streamed",)),
    Case("filter chunks without delta", without_delta, answered(), ("streamed",)),
    Case("an unknown reason", says({"content": "hello"}, "eos"), answered()),
    Case("length without text", says({"content": None, "reasoning_content": "hm"}, "length"), silent("length")),
    Case("filtered without text", says({"content": None}, "content_filter"), silent("content_filter")),
    Case("stop without text", says({"content": ""}), silent("stop")),
    # n, seed, stream_options, logprobs: llama.cpp, Groq, Gemini, Mistral, older vLLM
    Case("n honoured", says({"content": "hello"}), three, ("whole",), {"n": 3}),
    Case("n ignored", ignores_n, one_by_one, ("whole",), {"n": 3}),
    Case("n refused", refuses("n", "Only one completion choice is allowed"), one_by_one, ("whole",), {"n": 3}),
    Case("seed refused", refuses("seed", 'Unknown name "seed": Cannot find field.'), after_one_refusal("seed"),
         options={"seed": 7}),
    Case("stream_options refused", refuses("stream_options", "body -> stream_options: Extra inputs are not permitted",
         422), after_one_refusal("stream_options"), ("streamed",)),
    Case("logprobs refused", refuses("logprobs", "`logprobs` is not supported"), after_one_refusal("logprobs"),
         options={"logprobs": True}),
    # Bills
    *[Case(f"usage {name}", with_usage(usage), estimated) for name, usage in {
        "missing": None, "empty": {}, "null": {"prompt_tokens": None, "completion_tokens": None},
        "zero": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        "far too little": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
    }.items()],
    *[Case(f"usage {name}", with_usage(usage), estimated) for name, usage in {
        "negative": {"prompt_tokens": -10, "completion_tokens": -2, "total_tokens": -12},
        "beyond belief": {"prompt_tokens": 10**15, "completion_tokens": 10**15, "total_tokens": 2 * 10**15},
    }.items()],
    # Errors that look like answers: OpenRouter, gateways
    Case("error inside a 200", lambda b, o: o.json({"error": {"message": "Rate limit exceeded", "code": 429}}),
         failed("Rate limit exceeded"), ("whole",)),
    Case("vLLM's error", vllm_error, failed("the engine is dead"), adapters=NOT_LITELLM),
    Case("vLLM's error", vllm_error, failed("the engine is dead"), ("streamed",), adapters=("litellm",)),
    Case("null among the chunks", null_among_chunks, not_the_half, ("streamed",)),
    Case("error as an event", error_as_event, failed("overloaded"), ("streamed",)),
    Case("a page", page, failed("chat completion", "answer", "broke off", "Page", "JSON", "response", "error")),
    Case("a gateway's page", bad_gateway, refused_without_bill),
    Case("no choices", lambda b, o: o.json({**whole({}), "choices": []}), failed("no message"), ("whole",)),
    Case("null", lambda b, o: o.json(None), failed(""), ("whole",)),
    Case("nested beyond reason", lambda b, o: o.raw(b'{"choices":' + b"[" * 100_000, 200,
         {"content-type": "application/json"}), failed(""), ("whole",)),
    Case("a stream that breaks off", breaks_off, broken, ("streamed",)),
    # Thoughts that go back: DeepSeek
    Case("thoughts wanted with calls", thoughts_wanted, thoughts_given, messages=CALLED),
    Case("thoughts refused", thoughts_unknown, answered(), messages=[
        {**m, "reasoning_content": "hm"} if m["role"] == "assistant" else m for m in CALLED]),
]  # fmt: skip


def tables() -> list[Any]:
    return [
        pytest.param(case, form, name, id=f"{case.name}-{form}-{name}")
        for case in CASES
        for form in case.forms
        for name in case.adapters
    ]


@pytest.mark.parametrize(("case", "form", "adapter"), tables())
async def test_the_contract(case: Case, form: str, adapter: str) -> None:
    with Provider(case.answer) as provider:
        got = await ask(ADAPTERS[adapter](provider.url), form, case.messages, **case.options)
    case.check(got, provider)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("adapter", ADAPTERS)
class TestBounds:
    """What a hostile server may cost: neither memory nor secrets."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http_transport, "BODY", 2 * 2**20)
        monkeypatch.setattr(http_transport, "LINE", 2**20)
        monkeypatch.setattr(chat_completions, "MOST_CHUNKS", 2_000)

    @pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
    async def test_an_endless_body_is_not_read_on(self, adapter: str, form: str, kind: str) -> None:
        with Provider(lambda b, o: o.endless(BLOCK, kind, provider.stopped)) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert "MiB" in str(got.error), repr(got.error)
        assert got.bill.lost == 1

    @pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
    async def test_a_body_that_swells_is_not_unpacked(self, adapter: str, form: str, kind: str) -> None:
        with Provider(lambda b, o: o.bomb(kind)) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert "MiB" in str(got.error), repr(got.error)

    async def test_other_codings_than_those_asked_for_are_refused(self, adapter: str, form: str) -> None:
        odd = {"content-type": "application/json", "content-encoding": "br"}
        with Provider(lambda b, o: o.raw(b"\x8b\x02\x80", 200, odd)) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert "encoded as 'br'" in str(got.error)
        assert provider.headers[0]["accept-encoding"] == "gzip, deflate"

    async def test_gzip_is_read(self, adapter: str, form: str) -> None:
        import gzip
        import json

        data = json.dumps(whole({"content": "hello"})).encode()
        if form == "streamed":
            said = [part({"role": "assistant", "content": "hello"}), part({}, "stop"), last()]
            data = b"".join(b"data: " + json.dumps(c).encode() + b"\n\n" for c in said)
        kind = "application/json" if form == "whole" else "text/event-stream"
        headers = {"content-type": kind, "content-encoding": "gzip"}
        with Provider(lambda b, o: o.raw(gzip.compress(data), 200, headers)) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert got.answer.messages[0]["content"] == "hello"

    async def test_chunks_without_end(self, adapter: str, form: str) -> None:
        if form == "whole":
            return
        with Provider(lambda b, o: o.events(part({"content": "w "}) for _ in range(10_000))) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert "chunks" in str(got.error) or "MiB" in str(got.error)
        assert got.bill.usage.completion >= 1_900, "what came is paid for"

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_no_redirect_to_another_origin(self, adapter: str, form: str, status: int) -> None:
        with Provider(says({"content": "stolen"}), host="127.0.0.2") as thief:
            to = {"location": f"{thief.url}/chat/completions"}
            with Provider(lambda b, o: o.json({}, status, to)) as provider:
                got = await ask(ADAPTERS[adapter](provider.url), form)
        assert not thief.bodies
        assert not thief.headers
        assert "redirects to http://127.0.0.2" in str(got.error)
        assert got.error is not None
        assert bill_of(got.error) is None

    async def test_a_redirect_at_the_same_origin_is_followed(self, adapter: str, form: str) -> None:
        def answer(body: dict[str, Any], out: Out) -> None:
            if len(provider.bodies) == 1:
                out.json({}, 308, {"location": "/v1/chat/completions?moved=1"})
            else:
                says({"content": "hello"})(body, out)

        with Provider(answer) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), form)
        assert got.answer.messages[0]["content"] == "hello"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("adapter", ADAPTERS)
class TestTimeouts:
    async def test_nobody_listens(self, adapter: str, form: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        got = await ask(ADAPTERS[adapter](f"http://127.0.0.1:{port}/v1"), form)
        assert isinstance(got.error, Exception)
        assert bill_of(got.error) is None, "nothing was sent"

    async def test_a_call_that_is_cancelled_may_be_billed(self, adapter: str, form: str) -> None:
        with Provider(lambda b, o: (provider.stopped.wait(20), None)[1]) as provider:
            asking = asyncio.ensure_future(ask(ADAPTERS[adapter](provider.url), form))
            await asyncio.to_thread(provider.reached.wait, 15)
            asking.cancel()
            got = await asking
        assert isinstance(got.error, asyncio.CancelledError)
        assert (got.bill.lost, got.bill.calls, got.bill.usage) == (1, 1, Usage())

    async def test_a_first_byte_that_is_late(self, adapter: str, form: str) -> None:
        with Provider(lambda b, o: (provider.stopped.wait(20), None)[1]) as provider:
            model = ADAPTERS[adapter](provider.url)
            if form == "streamed" or adapter != "by address":
                with pytest.raises(TimeoutError) as raised:
                    await asyncio.wait_for(model.complete(ASK) if form == "whole" else model.stream(ASK, print), 2)
                error: BaseException = raised.value
            else:
                got = await ask(model, form, timeout=2)
                assert got.error is not None
                error = got.error
        bill = bill_of(error)
        assert bill is not None
        assert bill.lost == 1


@pytest.mark.parametrize("adapter", ADAPTERS)
class TestParallel:
    """Requests for one sample each, where a server takes no `n`."""

    async def test_one_that_fails_leaves_the_others_and_their_bill(self, adapter: str) -> None:
        for failing, n in ((2, 2), (1, 3), (2, 3)):

            def answer(body: dict[str, Any], out: Out, failing: int = failing) -> None:
                if len(provider.bodies) == failing:
                    out.json({"error": {"message": "overloaded"}}, 500)
                else:
                    out.json(whole({"content": "hello"}))

            with Provider(answer) as provider:
                model = ADAPTERS[adapter](provider.url)
                model.supports_n = False
                got = await ask(model, "whole", n=n)
            assert [m["content"] for m in got.answer.messages] == ["hello"] * (n - 1)
            assert got.answer.usage == Usage(input=10 * (n - 1), output=2 * (n - 1))

    async def test_the_first_answer_is_kept_when_those_after_an_ignored_n_fail(self, adapter: str) -> None:
        def answer(body: dict[str, Any], out: Out) -> None:
            if "n" in body:
                out.json(whole({"content": "hello"}))
            else:
                out.json({"error": {"message": "overloaded"}}, 500)

        with Provider(answer) as provider:
            got = await ask(ADAPTERS[adapter](provider.url), "whole", n=2)
        assert [m["content"] for m in got.answer.messages] == ["hello"]
        assert got.answer.usage == Usage(input=10, output=2)

    async def test_each_request_has_its_own_price_tier(self, adapter: str) -> None:
        usage = {"prompt_tokens": 800, "completion_tokens": 10, "total_tokens": 810}
        with Provider(lambda b, o: o.json(whole({"content": "hello"}, usage=usage))) as provider:
            model = ADAPTERS[adapter](provider.url)
            model.supports_n = False
            got = await ask(model, "whole", n=3)
        assert got.answer.dollars == 3 * PRICE.dollars(Usage(input=800, output=10))

    async def test_a_cancelled_fan_out_hands_over_what_came_and_what_was_lost(self, adapter: str) -> None:
        def answer(body: dict[str, Any], out: Out) -> None:
            if len(provider.bodies) == 1:
                out.json(whole({"content": "hello"}))
            else:
                provider.stopped.wait(20)

        with Provider(answer) as provider:
            model = ADAPTERS[adapter](provider.url)
            model.supports_n = False
            came, read = asyncio.Event(), chat_completions.Request.read
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(chat_completions.Request, "read", lambda self, r: (read(self, r), came.set())[0])
                asking = asyncio.ensure_future(ask(model, "whole", n=3))
                await asyncio.wait_for(came.wait(), 15)
                await asyncio.to_thread(provider.all_reached.wait, 15)
                asking.cancel()
                got = await asking
        assert isinstance(got.error, asyncio.CancelledError)
        assert (got.bill.lost, got.bill.calls, got.bill.usage) == (2, 3, Usage(input=10, output=2))


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_stream_that_is_cancelled_hands_over_what_was_streamed(adapter: str) -> None:
    def answer(body: dict[str, Any], out: Out) -> None:
        def chunks() -> Iterator[Any]:
            yield part({"role": "assistant", "content": "word " * 50})
            provider.stopped.wait(20)

        out.events(chunks())

    seen = asyncio.Event()
    with Provider(answer) as provider:
        model = ADAPTERS[adapter](provider.url)
        asking = asyncio.ensure_future(model.stream(ASK, lambda _: seen.set()))
        await asyncio.wait_for(seen.wait(), 15)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await asking
    bill = bill_of(raised.value)
    assert bill is not None
    assert bill.usage.completion >= 50
    assert (bill.lost, bill.estimated) == (0, True)


@pytest.mark.parametrize("adapter", ["by address", "client", "sync client"])
async def test_a_refusal_is_learnt_once(adapter: str) -> None:
    with Provider(refuses("seed", "seed: Extra inputs are not permitted", 422)) as provider:
        model = ADAPTERS[adapter](provider.url)
        for _ in range(3):
            await model.complete(ASK, seed=3)
    assert ["seed" in b for b in provider.bodies] == [True, False, False, False]


async def test_the_programs_own_client_keeps_its_hooks_and_gets_none_of_ours() -> None:
    seen: list[str] = []

    async def own(response: Any) -> None:
        seen.append(str(response.status_code))

    http = openai.DefaultAsyncHttpxClient(event_hooks={"response": [own]})
    with Provider(says({"content": "hello"})) as provider:
        made = openai.AsyncOpenAI(base_url=provider.url, api_key=KEY, http_client=http)
        await ClientModel(made, "m").complete(ASK)
        assert seen == ["200"]
        assert http.event_hooks == {"request": [], "response": [own]}
        await made.chat.completions.create(model="m", messages=ASK)  # type: ignore[arg-type]
    assert seen == ["200", "200"]
