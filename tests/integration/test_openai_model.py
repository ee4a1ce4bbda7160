"""OpenAI's own client gives the answers and bills that litellm gives; which names take which way."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from inspect import signature
from typing import Any

import openai
import pytest

from agentcascade.assembly.components import make_model
from agentcascade.config.sections import ModelConfig
from agentcascade.errors import EmptyCompletion
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.openai import OpenAIModel, create_parameters, loopback_key, needs_no_translation
from agentcascade.models.pricing import PriceTable
from agentcascade.models.tokens import token_counter
from agentcascade.types import Usage
from tests.fake_openai import FakeOpenAI, Reply

ASK = [{"role": "user", "content": "hi"}]
USAGE = {
    "prompt_tokens": 2000, "completion_tokens": 90,
    "prompt_tokens_details": {"cached_tokens": 1536}, "completion_tokens_details": {"reasoning_tokens": 30},
}  # fmt: skip
PRICES = PriceTable({"openai/m": {"input": "0.4", "cached_input": "0.1", "output": "1.6"}})


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def both(fake: FakeOpenAI, **more: Any) -> list[Any]:
    given = {"api_base": fake.url, "api_key": "x", "prices": PRICES, **more}
    return [LiteLLMModel("openai/m", **given), OpenAIModel("openai/m", **given)]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(texts=("hello there",), usage=USAGE),
        Reply(texts=("one", "two", "three"), usage=USAGE),
        Reply(texts=("",), tool_calls=(("look", '{"x": 1}'), ("take", "{}")), usage=USAGE),
        Reply(texts=("cut",), finish="length"),
        Reply(texts=("uncounted",), usage=None),
        Reply(texts=("alone",), ignore_n=True),
    ],
)
@pytest.mark.parametrize("n", [1, 3])
async def test_the_same_answer_and_the_same_bill(fake_openai: Any, reply: Reply, n: int) -> None:
    if n == 1 and len(reply.texts) > 1:
        return
    by_litellm, direct = [await m.complete(ASK, n=n, temperature=0.1, seed=7) for m in both(fake_openai([reply]))]
    fields = {"messages", "finish_reasons", "usage", "dollars", "calls", "model"}
    assert direct.model_dump(include=fields) == by_litellm.model_dump(include=fields)


def test_what_the_sdks_create_takes_is_known_without_it() -> None:
    taken = signature(openai.resources.chat.completions.AsyncCompletions.create).parameters
    assert create_parameters() == taken.keys() - {"self", "messages", "model", "stream"}
    assert {"tools", "max_tokens", "extra_headers"} <= create_parameters()


async def test_the_bill_by_hand(fake_openai: Any) -> None:
    _, direct = both(fake_openai([Reply(usage=USAGE)]))
    completion = await direct.complete(ASK)
    assert completion.usage == Usage(input=464, cached_input=1536, output=60, reasoning=30)
    assert completion.dollars == Decimal("0.0004832")


async def test_what_is_sent_is_what_was_asked(fake_openai: Any) -> None:
    fake = fake_openai()
    _, direct = both(fake, max_tokens=50, options={"top_p": 0.5})
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    private = {"role": "assistant", "content": "a", "thinking_blocks": [{}], "reasoning_content": "r"}
    await direct.complete(
        [*ASK, private, *ASK], n=2, temperature=0.3, seed=5, tools=tools, top_k=4, stop=None, max_tokens=9
    )
    (request,) = fake.requests
    assert request.headers["authorization"] == "Bearer x"
    assert request.body == {
        "model": "m", "messages": [*ASK, {"role": "assistant", "content": "a"}, *ASK], "n": 2, "temperature": 0.3,
        "seed": 5, "tools": tools, "top_p": 0.5, "top_k": 4, "max_tokens": 9,
    }  # fmt: skip


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_passing_failures_are_tried_again(fake_openai: Any, status: int) -> None:
    fake = fake_openai([Reply(status=status, headers={"retry-after": "0"}), Reply(texts=("hello",))])
    _, direct = both(fake)
    assert (await direct.complete(ASK)).messages[0]["content"] == "hello"
    assert len(fake.requests) == 2


async def test_errors_are_openais_which_litellms_are_too(fake_openai: Any) -> None:
    fake = fake_openai([Reply(status=429, headers={"retry-after": "0"})])
    for model in both(fake, retries=0):
        with pytest.raises(openai.RateLimitError):
            await model.complete(ASK)
    fake.script = [Reply(status=400)]
    for model in both(fake):
        with pytest.raises(openai.BadRequestError):
            await model.complete(ASK)


async def test_the_deadline_holds_over_all_tries(fake_openai: Any) -> None:
    _, direct = both(fake_openai([Reply(delay=60)]))
    started = time.perf_counter()
    with pytest.raises(TimeoutError):
        await direct.complete(ASK, timeout=0.3)
    assert time.perf_counter() - started < 30


async def test_nothing_said_is_an_empty_completion_with_its_bill(fake_openai: Any) -> None:
    _, direct = both(fake_openai([Reply(texts=("",))]))
    with pytest.raises(EmptyCompletion) as raised:
        await direct.complete(ASK, n=2)
    assert raised.value.completion is not None
    assert raised.value.completion.usage.prompt == 10


async def test_a_refusal_is_an_answer_that_was_billed(fake_openai: Any) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "refusal": "I must not."}}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
    for model in both(fake_openai([Reply(body=body)])):
        completion = await model.complete(ASK)
        assert completion.messages == ({"role": "assistant", "content": None, "refusal": "I must not."},)
        assert completion.dollars == Decimal("0.0004832")


async def test_streams_are_the_same_too(fake_openai: Any) -> None:
    fake = fake_openai([Reply(texts=("so it goes",), tool_calls=(("look", '{"x": 1}'),), usage=USAGE)])
    made = []
    for model in both(fake):
        deltas: list[Any] = []
        completion = await model.stream(ASK, deltas.append)
        made.append((completion.messages, completion.usage, completion.dollars, completion.finish_reasons))
        assert "".join(d.get("content") or "" for d in deltas) == "so it goes"
    assert made[0] == made[1]


async def test_a_broken_stream_raises_and_cancelling_closes_the_connection(fake_openai: Any) -> None:
    fake = fake_openai([Reply(texts=("one two three",), truncate_after=3)])
    _, direct = both(fake, retries=0)
    with pytest.raises((ConnectionError, openai.APIError)):
        await direct.stream(ASK, lambda _: None)
    fake.script = [Reply(texts=("word " * 100,), chunk_delay=0.1)]
    begun = asyncio.Event()
    work = asyncio.create_task(direct.stream(ASK, lambda _: begun.set()))
    await asyncio.wait_for(begun.wait(), 60)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert await asyncio.to_thread(fake.disconnected.wait, 60)


def test_one_model_serves_several_event_loops(fake_openai: Any) -> None:
    _, direct = both(fake_openai())
    for _ in range(2):
        assert asyncio.run(direct.complete(ASK)).messages


@pytest.mark.parametrize(
    ("name", "api_base", "options", "plain"),
    [
        ("openai/gpt-4.1-mini", None, {}, True),
        ("openai/gpt-4o", None, {"top_p": 0.9}, True),
        ("openai/ft:gpt-4.1-2025-04-14:me", None, {}, True),
        ("openai/gpt-5", None, {}, False),
        ("openai/o3-mini", None, {}, False),
        ("openai/gpt-4o-audio-preview", None, {}, False),
        ("openai/responses/gpt-4.1", None, {}, False),
        ("openai/my-model", None, {}, False),
        ("openai/my-model", "http://localhost:1/v1", {}, True),
        ("openai/gpt-5", "http://localhost:1/v1", {}, False),
        ("hosted_vllm/Qwen/Qwen3-8B", "http://localhost:1/v1", {}, True),
        ("hosted_vllm/Qwen/Qwen3-8B", None, {}, False),
        ("anthropic/claude-sonnet-4-5", None, {}, False),
        ("azure/gpt-4.1", "http://localhost:1", {}, False),
        ("gpt-4.1", None, {}, False),
        ("openai/gpt-4.1", None, {"fallbacks": ["x"]}, False),
    ],
)
def test_only_names_that_need_no_translation_go_directly(
    name: str, api_base: str | None, options: dict[str, Any], plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOSTED_VLLM_API_BASE", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(variable, raising=False)
    assert needs_no_translation(name, api_base, options) == plain
    if name.startswith("hosted_vllm/") and api_base is None:  # looked up among the students that run
        return
    model = make_model(ModelConfig(name=name, api_base=api_base, options=options), token_counter())
    other = "ResponsesModel" if "/responses/" in name else "LiteLLMModel"
    other = "AnthropicModel" if name.startswith("anthropic/") else other
    assert type(model).__name__ == ("OpenAIModel" if plain else other)


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "OPENAI_API_BASE"])
async def test_an_address_of_the_environment_is_one_too(
    variable: str, fake_openai: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    fake = fake_openai()
    monkeypatch.setenv(variable, fake.url)
    model = make_model(ModelConfig(name="openai/qwen", retries=0, options={"top_k": 5}), token_counter())
    assert type(model).__name__ == "LiteLLMModel"  # top_k among its options is for litellm to know
    model = make_model(ModelConfig(name="openai/qwen", retries=0), token_counter())
    assert isinstance(model, OpenAIModel)
    thoughts = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "no"}
    assert (await model.complete([*ASK, thoughts, result], top_k=5)).messages
    sent = fake.requests[-1].body
    assert sent["top_k"] == 5  # a server of one's own may know it; OpenAI itself refuses it
    assert sent["messages"][1]["reasoning_content"] == "hm"
    assert model.asked_with({})["address"] == fake.url
    monkeypatch.setenv(variable, "https://api.openai.com/v1")
    assert model.drops({"top_k": 5}) == {"top_k"}


@pytest.mark.parametrize("name", ["openai/qwen", "openai/Qwen/Qwen2.5-1.5B", "hosted_vllm/qwen"])  # direct, by litellm
async def test_a_server_on_this_machine_needs_no_key(
    name: str, fake_openai: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_openai()
    for variable in ("OPENAI_API_KEY", "HOSTED_VLLM_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(variable, raising=False)
    model = make_model(ModelConfig(name=name, api_base=fake.url, retries=0), token_counter())
    assert (await model.complete(ASK)).messages
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    model = make_model(ModelConfig(name=name, api_base=fake.url, retries=0), token_counter())
    assert (await model.complete(ASK)).messages
    sent = [r.headers["authorization"] for r in fake.requests]
    assert sent[1] == ("Bearer sk-own" if name.startswith("openai/") else sent[0])
    assert "sk-own" not in sent[0]


@pytest.mark.parametrize(
    ("name", "base", "key"),
    [
        ("openai/m", "http://127.0.0.1:8000/v1", "none"),
        ("openai/m", "http://127.8.8.8/v1", "none"),
        ("openai/m", "http://[::1]:8000/v1", "none"),
        ("openai/m", "http://localhost:8000/v1", "none"),
        ("openai/m", "http://127.0.0.1.example.com/v1", None),
        ("openai/m", "http://localhost.example.com/v1", None),
        ("openai/m", "http://192.168.0.5:8000/v1", None),
        ("openai/m", None, None),
        ("anthropic/m", "http://127.0.0.1:8000", None),
    ],
)
def test_only_a_server_on_this_machine_does_without_a_key(
    name: str, base: str | None, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(variable, raising=False)
    assert loopback_key(name, base) == key
