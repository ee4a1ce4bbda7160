"""Streams through real litellm from a local server: OpenAI's and Anthropic's events, faults, and who is told when."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agentcascade.errors import EmptyCompletion
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.openai import OpenAIModel
from agentcascade.models.tool_call_ids import make_id
from agentcascade.types import Delta, Usage
from tests.fake_openai import FakeOpenAI, Reply, Request

ASK = [{"role": "user", "content": "hi"}]
BOTH = pytest.mark.parametrize("make", [LiteLLMModel, OpenAIModel])
PRICE = {"input": "0.4", "output": "1.6", "cached_input": "0.1"}


def model(fake: FakeOpenAI, **more: Any) -> LiteLLMModel:
    from agentcascade.models.pricing import PriceTable

    prices = PriceTable({"openai/m": PRICE})
    return LiteLLMModel("openai/m", api_base=fake.url, api_key="x", prices=prices, **more)


def text_of(deltas: list[Delta]) -> str:
    return "".join(d.get("content") or "" for d in deltas)


async def test_a_streamed_answer_is_the_answer_with_its_whole_bill(fake_openai: Any) -> None:
    usage = {"prompt_tokens": 2000, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 1536}}
    fake = fake_openai([Reply(texts=("Thought: so.\nAction: look",), usage=usage)])
    deltas: list[Delta] = []
    streamed = await model(fake).stream(ASK, deltas.append)
    whole = await model(fake).complete(ASK)
    assert text_of(deltas) == "Thought: so.\nAction: look"
    assert len(deltas) == 4
    assert (streamed.messages, streamed.finish_reasons) == (whole.messages, whole.finish_reasons)
    assert (streamed.usage, streamed.dollars) == (whole.usage, whole.dollars)
    assert streamed.usage == Usage(input=464, cached_input=1536, output=30)
    assert streamed.dollars is not None


async def test_parallel_tool_calls_come_in_parts_and_whole(fake_openai: Any) -> None:
    calls = (("look", '{"where": "desk"}'), ("take", '{"what": "mug", "count": 2}'))
    fake = fake_openai([Reply(texts=(None,), tool_calls=calls)])
    deltas: list[Delta] = []
    completion = await model(fake).stream(
        ASK, deltas.append, tools=[{"type": "function", "function": {"name": "look"}}]
    )
    made = completion.messages[0]["tool_calls"]
    assert [(c["function"]["name"], c["function"]["arguments"]) for c in made] == list(calls)
    assert [c["id"] for c in made] == ["call_0", "call_1"]
    assert completion.finish_reasons == ("tool_calls",)
    assert sum(len(d.get("tool_calls", ())) for d in deltas) > 2


async def test_parts_are_handed_on_while_the_answer_is_still_being_made(fake_openai: Any) -> None:
    fake = fake_openai([Reply(texts=("one two three four",), chunk_delay=1)])
    first = asyncio.Event()
    work = asyncio.create_task(model(fake).stream(ASK, lambda _: first.set()))
    await asyncio.wait_for(first.wait(), 60)
    assert not work.done()
    assert (await work).messages[0]["content"] == "one two three four"


async def test_without_reported_usage_tokens_are_counted(fake_openai: Any) -> None:
    completion = await model(fake_openai([Reply(usage=None)])).stream(ASK, lambda _: None)
    assert completion.estimated
    assert completion.usage.prompt > 0


async def test_a_stream_that_breaks_off_is_no_answer(fake_openai: Any) -> None:
    fake = fake_openai([Reply(texts=("one two three four",), truncate_after=3)])
    deltas: list[Delta] = []
    with pytest.raises(Exception, match=r"broke off|closed|incomplete|peer") as raised:
        await model(fake).stream(ASK, deltas.append)
    assert not isinstance(raised.value, AssertionError)
    assert text_of(deltas) == "one two"
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_passing_failure_before_the_first_part_is_tried_again(fake_openai: Any, status: int) -> None:
    fake = fake_openai([Reply(status=status), Reply(texts=("hello there",))])
    deltas: list[Delta] = []
    await model(fake).stream(ASK, deltas.append)
    assert text_of(deltas) == "hello there"
    assert len(fake.requests) == 2


async def test_an_error_that_will_not_pass_is_raised_at_once(fake_openai: Any) -> None:
    fake = fake_openai([Reply(status=400)])
    with pytest.raises(Exception) as raised:
        await model(fake).stream(ASK, lambda _: None)
    assert getattr(raised.value, "status_code", None) == 400
    assert len(fake.requests) == 1


async def test_nothing_said_is_an_empty_completion_with_its_bill(fake_openai: Any) -> None:
    with pytest.raises(EmptyCompletion) as raised:
        await model(fake_openai([Reply(texts=("",))])).stream(ASK, lambda _: None)
    assert raised.value.completion is not None
    assert raised.value.completion.usage.prompt == 10


async def test_the_deadline_holds_over_the_whole_stream(fake_openai: Any) -> None:
    fake = fake_openai([Reply(texts=("word " * 50,), chunk_delay=0.2)])
    with pytest.raises(TimeoutError):
        await model(fake).stream(ASK, lambda _: None, timeout=0.6)


async def test_cancelling_closes_the_connection(fake_openai: Any) -> None:
    fake = fake_openai([Reply(texts=("word " * 100,), chunk_delay=0.1)])
    begun = asyncio.Event()
    work = asyncio.create_task(model(fake).stream(ASK, lambda _: begun.set()))
    await asyncio.wait_for(begun.wait(), 60)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert await asyncio.to_thread(fake.disconnected.wait, 60)


@pytest.mark.parametrize("name", ["openai/m", "anthropic/claude-sonnet-4-5"])
async def test_the_connection_is_closed_when_the_caller_fails(fake_openai: Any, name: str) -> None:
    """Even while somebody holds the error, and with it all that the stream was read through."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    fake = fake_openai([Reply(texts=("word " * 100,), chunk_delay=0.05, usage=usage)])

    def fail(_: Delta) -> None:
        raise ValueError("the caller's own")

    base = fake.url if name.startswith("openai") else fake.root
    with pytest.raises(ValueError, match="the caller's own"):
        await LiteLLMModel(name, api_base=base, api_key="x").stream(ASK, fail)
    assert await asyncio.to_thread(fake.disconnected.wait, 3)


def chunk(delta: dict[str, Any], index: int = 0, finish: str | None = None) -> dict[str, Any]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


BILL = {**chunk({}), "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}


@BOTH
async def test_calls_that_share_an_index_stay_apart(fake_openai: Any, make: Any) -> None:
    parts = (("a", "look", '{"x": '), (None, None, "1}"), ("b", "take", ""), ("b", None, '{"y": 2}'))
    calls = [
        chunk({"tool_calls": [{"index": 0, "id": id, "function": {"name": name, "arguments": arguments}}]})
        for id, name, arguments in parts
    ]
    events = [chunk({"role": "assistant", "content": ""}), *calls, chunk({}, finish="tool_calls"), BILL]
    fake = fake_openai([Reply(events=events)])
    completion = await make("openai/m", api_base=fake.url, api_key="x").stream(ASK, lambda _: None)
    assert [(c["id"], c["function"]) for c in completion.messages[0]["tool_calls"]] == [
        ("a", {"name": "look", "arguments": '{"x": 1}'}),
        ("b", {"name": "take", "arguments": '{"y": 2}'}),
    ]


@BOTH
async def test_only_the_first_of_several_choices_is_read(fake_openai: Any, make: Any) -> None:
    head = [chunk({"role": "assistant", "content": ""}, i) for i in (0, 1)]
    words = [chunk({"content": text}, i) for i, text in ((0, "zero"), (1, "ONE"), (0, " zero"), (1, " ONE"))]
    together = chunk({"content": "!"})
    together["choices"] += chunk({"content": "?"}, 1)["choices"]
    ends = [chunk({}, 0, "stop"), chunk({}, 1, "length")]
    fake = fake_openai([Reply(events=[*head, *words, together, *ends, BILL])])
    deltas: list[Delta] = []
    completion = await make("openai/m", api_base=fake.url, api_key="x").stream(ASK, deltas.append)
    assert text_of(deltas) == completion.messages[0]["content"] == "zero zero!"
    assert completion.finish_reasons == ("stop",)
    assert completion.usage == Usage(input=10, output=5)


@BOTH
@pytest.mark.parametrize("alone", [True, False])
async def test_a_refusal_is_an_answer(fake_openai: Any, make: Any, alone: bool) -> None:
    begin = {"role": "assistant", "content": "" if alone else "Well. "}
    parts = [chunk({"refusal": "I must"}), chunk({"refusal": " not."})]
    fake = fake_openai([Reply(events=[chunk(begin), *parts, chunk({}, finish="stop"), BILL])])
    deltas: list[Delta] = []
    completion = await make("openai/m", api_base=fake.url, api_key="x").stream(ASK, deltas.append)
    assert completion.messages[0]["refusal"] == "I must not."
    assert completion.messages[0].get("content") == (None if alone else "Well. ")
    assert "".join(d.get("refusal") or "" for d in deltas) == "I must not."
    assert text_of(deltas) == begin["content"]
    assert completion.usage == Usage(input=10, output=5)
    assert len(fake.requests) == 1


async def test_an_anthropic_stream_with_text_and_a_tool(fake_openai: Any) -> None:
    usage = {"input_tokens": 100, "output_tokens": 7, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 0}
    fake = fake_openai([Reply(texts=("let me look",), tool_calls=(("look", '{"where": "desk"}'),), usage=usage)])
    claude = LiteLLMModel("anthropic/claude-sonnet-4-5", api_base=fake.root, api_key="x")
    deltas: list[Delta] = []
    completion = await claude.stream(ASK, deltas.append, tools=[_tool("look")])
    (message,) = completion.messages
    assert message["content"] == "let me look"
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"where": "desk"}
    assert (completion.usage.input, completion.usage.cached_input, completion.usage.output) == (100, 40, 7)
    assert completion.dollars is not None
    assert text_of(deltas) == "let me look"


def _tool(name: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"where": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}


async def test_thinking_pauses_where_another_model_made_the_call(fake_openai: Any) -> None:
    """Anthropic refuses to think on in a tool exchange that began without thinking."""
    fake = fake_openai([Reply(texts=("done",), usage={"input_tokens": 5, "output_tokens": 1})])
    claude = LiteLLMModel("anthropic/claude-sonnet-4-5", api_base=fake.root, api_key="x", max_tokens=4000)
    thinking = {"type": "enabled", "budget_tokens": 1024}
    id = make_id("student", "salt", 0)
    call = {"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}}
    foreign: list[dict[str, Any]] = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id, "content": "a mug"},
    ]
    for messages in (foreign, [*foreign, {"role": "assistant", "content": "ok"}, {"role": "user", "content": "go on"}]):
        await claude.complete(messages, tools=[_tool("look")], thinking=thinking)
    sent: list[Request] = fake.requests
    assert "thinking" not in sent[0].body
    assert sent[1].body["thinking"] == thinking
