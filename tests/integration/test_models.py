"""`LiteLLMModel` through the real litellm, against a provider on a local port."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import litellm
import pytest

from agentcascade.errors import EmptyCompletion
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.pricing import Price, PriceTable
from agentcascade.models.tokens import token_counter
from agentcascade.protocols import ChatModel
from agentcascade.types import Usage
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.waiting import eventually

ASK = [{"role": "user", "content": "Go on."}]
KEY = "sk-very-secret-0123456789"
MINI = Price(input="0.40", cached_input="0.10", output="1.60")
SONNET = Price(input="3", cached_input="0.30", cache_write="3.75", cache_write_1h="6", output="15")
Start = Callable[..., FakeOpenAI]


def openai(
    server: FakeOpenAI, name: str = "openai/gpt-4.1-mini", price: Price | None = MINI, **kw: Any
) -> LiteLLMModel:
    table = PriceTable({name: price} if price else {})
    return LiteLLMModel(name, prices=table, api_base=server.url, api_key=KEY, **kw)


def anthropic(server: FakeOpenAI, price: Price = SONNET, **kw: Any) -> LiteLLMModel:
    name = "anthropic/claude-sonnet-4-5"
    return LiteLLMModel(name, prices=PriceTable({name: price}), api_base=server.root, api_key=KEY, **kw)


def test_is_a_chat_model() -> None:
    assert isinstance(LiteLLMModel("openai/gpt-4.1-mini"), ChatModel)


class TestBills:
    async def test_openai_n3_with_cached_and_reasoning_tokens(self, fake_openai: Start) -> None:
        usage = {
            "prompt_tokens": 2000,
            "prompt_tokens_details": {"cached_tokens": 1536},
            "completion_tokens": 90,
            "completion_tokens_details": {"reasoning_tokens": 30},
            "total_tokens": 2090,
        }
        server = fake_openai([Reply(["a", "b", "c"], usage=usage)])
        got = await openai(server).complete(ASK, n=3, seed=7, temperature=0.5)
        assert [m["content"] for m in got.messages] == ["a", "b", "c"]
        assert got.usage == Usage(input=464, cached_input=1536, output=60, reasoning=30)
        # 464 × 0.40 + 1536 × 0.10 + 90 × 1.60 = 185.6 + 153.6 + 144 = 483.2 dollars per million
        assert got.dollars == Decimal("0.0004832")
        assert got.calls == len(server.requests) == 1
        sent = server.requests[0].body
        assert (sent["n"], sent["seed"], sent["temperature"]) == (3, 7, 0.5)

    async def test_anthropic_n3_with_cache_reads_and_both_kinds_of_writes(self, fake_openai: Start) -> None:
        writes = {
            "input_tokens": 120,
            "cache_creation_input_tokens": 1500,
            "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 500},
            "cache_read_input_tokens": 0,
            "output_tokens": 40,
        }
        reads = {"input_tokens": 120, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 1500}
        server = fake_openai(
            [
                Reply(["a"], usage=writes),
                Reply(["b"], usage=reads | {"output_tokens": 40}),
                Reply(["c"], usage=reads | {"output_tokens": 50}),
            ]
        )
        got = await anthropic(server).complete(ASK, n=3, seed=7, temperature=0.5)
        assert sorted(m["content"] for m in got.messages) == ["a", "b", "c"]
        assert got.usage == Usage(input=360, cached_input=3000, cache_write=1000, cache_write_1h=500, output=130)
        # 360 × 3 + 3000 × 0.30 + 1000 × 3.75 + 500 × 6 + 130 × 15
        # = 1080 + 900 + 3750 + 3000 + 1950 = 10680 dollars per million
        assert got.dollars == Decimal("0.01068")
        assert got.calls == len(server.requests) == 3
        assert all(r.path == "/v1/messages" and "seed" not in r.body and "n" not in r.body for r in server.requests)
        assert {r.body["temperature"] for r in server.requests} == {0.5}

    async def test_long_context_is_judged_per_request_not_on_the_sum(self, fake_openai: Start) -> None:
        price = Price(input="1", output="1", long_context=((1000, Price(input="10", output="10")),))
        server = fake_openai([Reply(usage={"input_tokens": 599, "output_tokens": 1})])
        got = await anthropic(server, price).complete(ASK, n=3)
        assert got.usage.prompt == 1797
        assert got.dollars == Decimal("0.0018")

    async def test_deepseek_cache_hits(self, fake_openai: Start) -> None:
        usage = {"prompt_tokens": 100, "prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40}
        server = fake_openai([Reply(usage=usage | {"completion_tokens": 5})])
        got = await openai(server, "deepseek/deepseek-chat").complete(ASK)
        assert got.usage == Usage(input=40, cached_input=60, output=5)

    async def test_unknown_price_is_none_not_zero(self, fake_openai: Start) -> None:
        got = await openai(fake_openai(), "openai/nobody-knows-me", price=None).complete(ASK)
        assert got.usage == Usage(input=10, output=2)
        assert got.dollars is None

    async def test_a_price_of_zero_that_the_user_names_is_zero(self, fake_openai: Start) -> None:
        free = Price(input="0", output="0")
        assert (await openai(fake_openai(), "hosted_vllm/mine", price=free).complete(ASK)).dollars == 0

    async def test_without_usage_tokens_are_counted_and_paid(self, fake_openai: Start) -> None:
        got = await openai(fake_openai([Reply(["one two three"], usage=None)])).complete(ASK)
        assert got.estimated
        assert got.dollars == MINI.dollars(got.usage)
        assert got.usage.prompt >= token_counter()("Go on.")
        assert got.usage.output >= token_counter()("one two three")


class TestSamples:
    async def test_parallel_requests_get_seeds_of_their_own(self, fake_openai: Start) -> None:
        server = fake_openai()
        model = openai(server)
        model.supports_n = False
        got = await model.complete(ASK, n=3, seed=7)
        assert sorted(r.body["seed"] for r in server.requests) == [7, 8, 9]
        assert len(got.messages) == got.calls == 3

    async def test_a_provider_that_ignores_n_is_asked_again_and_remembered(self, fake_openai: Start) -> None:
        server = fake_openai([Reply(ignore_n=True)])
        model = openai(server)
        got = await model.complete(ASK, n=3, seed=7)
        assert len(got.messages) == 3
        assert got.usage == Usage(input=30, output=6)
        assert [r.body.get("n", 1) for r in server.requests] == [3, 1, 1]
        assert sorted(r.body["seed"] for r in server.requests) == [7, 8, 9]
        assert model.supports_n is False

    async def test_a_failed_sample_is_left_out(self, fake_openai: Start) -> None:
        server = fake_openai([Reply(status=400), Reply(["b"]), Reply(["c"])])
        model = openai(server)
        model.supports_n = False
        got = await model.complete(ASK, n=3)
        assert sorted(m["content"] for m in got.messages) == ["b", "c"]
        assert (got.calls, got.usage, got.dollars) == (2, Usage(input=20, output=4), Decimal("0.0000144"))

    async def test_a_hung_sample_is_left_out_at_the_deadline(self, fake_openai: Start) -> None:
        server = fake_openai(lambda r: Reply(delay=60.0 if r.body["seed"] == 8 else 0.0))
        model = openai(server)
        model.supports_n = False
        started = time.monotonic()
        got = await model.complete(ASK, n=3, seed=7, timeout=2.0)
        assert len(got.messages) == 2
        assert time.monotonic() - started < 20

    async def test_empty_messages_keep_their_places(self, fake_openai: Start) -> None:
        server = fake_openai([Reply(["a", None, ""])])
        got = await openai(server).complete(ASK, n=3)
        assert [m["content"] for m in got.messages] == ["a", None, ""]
        assert got.finish_reasons == ("stop",) * 3
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("provider", "expected"),
        [
            ("openai/gpt-4.1-mini", True),
            ("hosted_vllm/x", True),
            ("anthropic/claude-sonnet-4-5", False),
            ("groq/x", False),
        ],
    )
    def test_supports_n(self, provider: str, expected: bool) -> None:
        assert LiteLLMModel(provider).supports_n is expected


class TestMessages:
    @pytest.mark.parametrize("make", [openai, anthropic])
    async def test_tool_calls_are_plain_dictionaries(self, fake_openai: Start, make: Any) -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": 3, "input_tokens": 10, "output_tokens": 3}
        server = fake_openai([Reply([None], tool_calls=[("look", '{"at": "desk"}')], usage=usage)])
        tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
        got = await make(server).complete(ASK, tools=[tool])
        (message,) = got.messages
        assert type(message) is dict
        (call,) = message["tool_calls"]
        assert type(call) is dict
        assert call["function"] == {"name": "look", "arguments": '{"at": "desk"}'}
        assert got.finish_reasons == ("tool_calls",)
        assert len(server.requests[0].body["tools"]) == 1
        assert not [k for k in server.requests[0].body if k.startswith("_")]

    @pytest.mark.parametrize("make", [openai, anthropic])
    async def test_truncation_is_reported(self, fake_openai: Start, make: Any) -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": 3, "input_tokens": 10, "output_tokens": 3}
        got = await make(fake_openai([Reply(["half a th"], finish="length", usage=usage)]), max_tokens=3).complete(ASK)
        assert got.finish_reasons == ("length",)

    async def test_options_of_the_model_and_of_the_call_are_sent(self, fake_openai: Start) -> None:
        server = fake_openai()
        model = openai(server, temperature=0.2, max_tokens=50, options={"top_p": 0.9})
        await model.complete(ASK, temperature=0.0, presence_penalty=0.1)
        sent = server.requests[0].body
        assert (sent["temperature"], sent["max_tokens"], sent["top_p"], sent["presence_penalty"]) == (0.0, 50, 0.9, 0.1)

    async def test_the_callers_messages_are_not_changed(self, fake_openai: Start) -> None:
        messages = [{"role": "system", "content": "s"}, *ASK]
        await anthropic(fake_openai([Reply(usage={"input_tokens": 1, "output_tokens": 1})])).complete(messages)
        assert messages == [{"role": "system", "content": "s"}, *ASK]


class TestEmpty:
    @pytest.mark.parametrize("texts", [[None], [""]])
    async def test_nothing_said_raises_with_the_bill(self, fake_openai: Start, texts: list[str | None]) -> None:
        with pytest.raises(
            EmptyCompletion, match=r"gpt-4.1-mini returned no message \(finish reason content_filter\)"
        ) as e:
            await openai(fake_openai([Reply(texts, finish="content_filter")])).complete(ASK)
        assert e.value.completion is not None
        assert e.value.completion.usage == Usage(input=10, output=2)
        assert e.value.completion.dollars == Decimal("0.0000072")

    async def test_no_choices_at_all(self, fake_openai: Start) -> None:
        server = fake_openai([Reply([])])
        with pytest.raises(EmptyCompletion) as e:
            await openai(server).complete(ASK)
        assert e.value.completion is not None
        assert e.value.completion.usage == Usage(input=10, output=2)
        assert len(server.requests) == 1


class TestFailures:
    async def test_429_waits_as_long_as_the_provider_asks(self, fake_openai: Start) -> None:
        server = fake_openai([Reply(status=429, headers={"Retry-After": "1"}), Reply(["ok"])])
        started = time.monotonic()
        got = await openai(server).complete(ASK)
        assert got.messages[0]["content"] == "ok"
        assert time.monotonic() - started >= 0.9
        assert len(server.requests) == 2

    async def test_a_wait_past_the_deadline_is_not_waited_for(self, fake_openai: Start) -> None:
        server = fake_openai([Reply(status=429, headers={"Retry-After": "3600"})])
        started = time.monotonic()
        with pytest.raises(litellm.RateLimitError):
            await openai(server, timeout=20.0).complete(ASK)
        assert time.monotonic() - started < 15
        assert len(server.requests) == 1

    @pytest.mark.parametrize("make", [openai, anthropic])
    async def test_attempts_do_not_multiply(self, fake_openai: Start, make: Any) -> None:
        server = fake_openai([Reply(status=500)])
        with pytest.raises(litellm.InternalServerError, match="the fake says 500"):
            await make(server, retries=1).complete(ASK)
        assert len(server.requests) == 2

    @pytest.mark.parametrize(
        ("status", "error"),
        [(400, litellm.BadRequestError), (401, litellm.AuthenticationError), (404, litellm.NotFoundError)],
    )
    async def test_the_callers_mistakes_are_not_retried(self, fake_openai: Start, status: int, error: type) -> None:
        server = fake_openai([Reply(status=status)])
        with pytest.raises(error):
            await openai(server).complete(ASK, n=2)
        assert len(server.requests) == 1

    async def test_nobody_listens(self) -> None:
        model = LiteLLMModel("openai/x", api_base="http://127.0.0.1:9/v1", api_key=KEY, retries=1)
        with pytest.raises((litellm.APIConnectionError, litellm.InternalServerError)):
            await model.complete(ASK)

    async def test_the_deadline_counts_retries(self, fake_openai: Start) -> None:
        server = fake_openai([Reply(status=503, delay=0.3)])
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await openai(server, retries=50, timeout=1.0).complete(ASK)
        assert 0.9 <= time.monotonic() - started < 12

    async def test_cancellation_stops_every_request(self, fake_openai: Start) -> None:
        arrived = threading.Barrier(4)

        def script(_: Request) -> Reply:
            threading.Thread(target=arrived.wait, args=(60,), daemon=True).start()
            return Reply(delay=30.0)

        model = openai(fake_openai(script))
        model.supports_n = False
        before = asyncio.all_tasks()
        task = asyncio.create_task(model.complete(ASK, n=3))
        await asyncio.to_thread(arrived.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: not [t for t in asyncio.all_tasks() - before if "LiteLLMModel" in repr(t)])

    async def test_the_key_is_sent_and_seen_nowhere_else(
        self, fake_openai: Start, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: list[Request] = []

        def script(request: Request) -> Reply:
            seen.append(request)
            return Reply(texts=[""]) if len(seen) > 1 else Reply(status=500)

        model = openai(fake_openai(script))
        with caplog.at_level(logging.INFO), pytest.raises(EmptyCompletion) as e:
            await model.complete(ASK)
        assert seen[0].headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in repr(model) + str(e.value) + repr(e.value.completion) + caplog.text
