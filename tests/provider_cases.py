"""Provider quirks as cases: what a server does, and what must come of it through every adapter, whole and streamed.

A new quirk is one row in `agentcascade.models.quirks` and one `Case` in `CASES`; ``integration/models/test_adapters``
runs them. Providers whose habit it is stand beside the case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import openai

from agentcascade.errors import EmptyCompletion, bill_of
from agentcascade.models.anthropic import AnthropicModel
from agentcascade.models.endpoint import EndpointQuirks
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.message_fields import EXTRA
from agentcascade.models.openai import OpenAIModel
from agentcascade.models.openai_client import ClientModel, limited_twin
from agentcascade.models.pricing import Price, PriceTable
from agentcascade.models.quirks import NO_THINKING
from agentcascade.models.responses import ResponsesModel
from agentcascade.models.responses_calls import responses_calls
from agentcascade.types import Completion, Delta, Message, Usage
from tests.provider import USAGE, Answer, Out, Provider, last, part, whole

PRICE = Price(input="1", output="10", long_context=((1000, Price(input="2", output="20")),))
PRICES = PriceTable({"m": PRICE, "openai/m": PRICE, "127.0.0.1/m": PRICE, "anthropic/m": PRICE})
ASK = [{"role": "user", "content": "Go on, please."}]
KEY = "sk-contract-0123456789"
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
CALLED: list[Message] = [
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


def responses(url: str) -> Any:
    return ResponsesModel("openai/responses/m", api_base=url, api_key=KEY, retries=0, prices=PRICES, timeout=20)


def responses_client(url: str) -> Any:
    endpoint, made = EndpointQuirks(), openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=20)
    endpoint.supports_n = False
    limited = limited_twin(made)
    create = responses_calls(limited, endpoint, limited.responses.create)
    return ClientModel(made, "m", prices=PRICES, endpoint=endpoint, create=create)


def messages(url: str) -> Any:
    return AnthropicModel("anthropic/m", api_base=url, api_key=KEY, retries=0, prices=PRICES, timeout=20)


ADAPTERS: dict[str, Callable[[str], Any]] = {
    "litellm": litellm, "by address": by_address, "client": client, "sync client": sync_client,
    "responses": responses, "responses client": responses_client, "messages": messages,
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
CHAT = ("litellm", *NOT_LITELLM)
"""For what Responses and Messages have not: `n`, `seed`, fields of messages, finish reasons of one's own."""


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
        assert any(d.get(EXTRA, {}).get("choice", {}).get("logprobs") for d in got.deltas)


def with_logprobs(body: dict[str, Any], out: Out) -> None:
    told: dict[str, Any] = {
        "content": [{"token": "x", "logprob": -0.5, "bytes": None, "top_logprobs": []}],
        "refusal": None,
    }
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
    assert provider.bodies[-1]["messages"][1]["reasoning_content"] == NO_THINKING


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
    Case("a refusal", says({"content": None, "refusal": "I must not."}), kept(refusal="I must not.", content=None),
         adapters=CHAT),
    Case("content null beside a call", says({"content": None, "tool_calls": [LOOK]}, "tool_calls",
         [part({"tool_calls": [{"index": 0, **LOOK}]})]), kept(content=None)),
    Case("what is said beside the message", with_logprobs, beside, options={"logprobs": True, "top_logprobs": 1},
         adapters=CHAT),
    # Tool calls: Gemini's OpenAI endpoint, Ollama
    Case("a call", says({"content": None, "tool_calls": [LOOK]}, "tool_calls",
         [part({"tool_calls": [{"index": 0, **LOOK}]})]), called, options={"tools": TOOLS}),
    Case("call deltas without index", says({}, "tool_calls", LONE), called, ("streamed",), {"tools": TOOLS},
         adapters=CHAT),
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
    Case("filter chunks without delta", without_delta, answered(), ("streamed",), adapters=CHAT),
    Case("an unknown reason", says({"content": "hello"}, "eos"), answered()),
    Case("length without text", says({"content": None, "reasoning_content": "hm"}, "length"), silent("length")),
    Case("filtered without text", says({"content": None}, "content_filter"), silent("content_filter")),
    Case("stop without text", says({"content": ""}), silent("stop")),
    # n, seed, stream_options, logprobs: llama.cpp, Groq, Gemini, Mistral, older vLLM
    Case("n honoured", says({"content": "hello"}), three, ("whole",), {"n": 3}, adapters=CHAT),
    Case("n ignored", ignores_n, one_by_one, ("whole",), {"n": 3}, adapters=CHAT),
    Case("n refused", refuses("n", "Only one completion choice is allowed"), one_by_one, ("whole",), {"n": 3},
         adapters=CHAT),
    Case("seed refused", refuses("seed", 'Unknown name "seed": Cannot find field.'), after_one_refusal("seed"),
         options={"seed": 7}, adapters=CHAT),
    Case("stream_options refused", refuses("stream_options", "body -> stream_options: Extra inputs are not permitted",
         422), after_one_refusal("stream_options"), ("streamed",), adapters=CHAT),
    Case("logprobs refused", refuses("logprobs", "`logprobs` is not supported"), after_one_refusal("logprobs"),
         options={"logprobs": True}, adapters=CHAT),
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
    Case("thoughts wanted with calls", thoughts_wanted, thoughts_given, messages=CALLED, adapters=CHAT),
    Case("thoughts refused", thoughts_unknown, answered(), adapters=CHAT, messages=[
        {**m, "reasoning_content": "hm"} if m["role"] == "assistant" else m for m in CALLED]),
]  # fmt: skip
