"""AnthropicModel against a server that refuses what Anthropic does: thinking, caches, errors, two that take turns."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from agentcascade import ScriptedModel, Usage, build
from agentcascade.errors import BrokenStream, ConfigError, EmptyCompletion, ProviderError, bill_of
from agentcascade.models.anthropic import AnthropicModel, AnthropicRefusal
from agentcascade.models.deltas import DeltaAssembler
from agentcascade.models.pricing import Price, PriceTable
from tests import fake_anthropic
from tests.fake_anthropic import FakeAnthropic, Reply, text, thinking

ASK: list[dict[str, Any]] = [{"role": "user", "content": "Go."}]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
PRICE = Price(input="3", output="15", cached_input="0.3", cache_write="3.75", cache_write_1h="6")


def claude(fake: FakeAnthropic, name: str = "claude-sonnet-4-5", **more: Any) -> AnthropicModel:
    prices = PriceTable({f"anthropic/{name}": PRICE})
    settings: dict[str, Any] = {"api_base": fake.root, "api_key": fake_anthropic.KEY, "retries": 0, "prices": prices}
    return AnthropicModel(f"anthropic/{name}", **(settings | {"timeout": 10} | more))


async def said(model: AnthropicModel, messages: Any, streamed: bool, **options: Any) -> tuple[Any, list[Any]]:
    deltas: list[Any] = []
    if streamed:
        return await model.stream(messages, deltas.append, **options), deltas
    return await model.complete(messages, **options), deltas


@pytest.mark.parametrize("streamed", [False, True])
class TestAnswers:
    async def test_usage_by_class_has_its_price(self, streamed: bool) -> None:
        usage = {
            "input_tokens": 100, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 300,
            "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
            "output_tokens": 50, "output_tokens_details": {"thinking_tokens": 20}, "service_tier": "standard",
        }  # fmt: skip
        with FakeAnthropic([text("hello there", usage=usage)]) as fake:
            completion, _ = await said(claude(fake), ASK, streamed)
        expected = Usage(input=100, cached_input=1000, cache_write=200, cache_write_1h=100, output=50)
        if not streamed:  # the last event tells the sum alone
            expected = expected.model_copy(update={"output": 30, "reasoning": 20})
        assert completion.usage.prompt == 1400
        assert completion.usage.completion == 50
        assert completion.usage.cache_write_1h == 100
        assert completion.dollars == PRICE.dollars(completion.usage)
        assert completion.fields["anthropic"]["usage"]["service_tier"] == "standard"
        assert not completion.estimated

    async def test_what_it_thought_goes_back_as_it_was(self, streamed: bool) -> None:
        first = Reply([thinking("look around first"), {"type": "redacted_thinking", "data": "AbC"},
                       {"type": "text", "text": "Let me look."},
                       {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "bed"}}])  # fmt: skip
        thinks = {"type": "enabled", "budget_tokens": 1024}
        with FakeAnthropic([first, text("a bed")]) as fake:
            model = claude(fake)
            completion, deltas = await said(model, ASK, streamed, tools=TOOLS, thinking=thinks, max_tokens=3000)
            message = completion.messages[0]
            result = {"role": "tool", "tool_call_id": "toolu_1", "content": "a bed"}
            again = [*ASK, message, result]
            await said(model, again, streamed, tools=TOOLS, thinking=thinks, max_tokens=3000)
        assert not fake.refused
        assert message["reasoning_content"] == "look around first"
        assert message["tool_calls"][0]["function"]["name"] == "look"
        assert fake.requests[1].body["messages"][1]["content"] == first.content
        assert fake.requests[1].body["thinking"] == thinks
        if streamed:
            assembler = DeltaAssembler()
            for delta in deltas:
                assembler.add(delta)
            assert assembler.message["tool_calls"] == message["tool_calls"]

    async def test_a_tool_exchange_of_a_model_that_did_not_think_goes_on_without(self, streamed: bool) -> None:
        calls = [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
        chat = [*ASK, {"role": "assistant", "content": None, "tool_calls": calls},
                {"role": "tool", "tool_call_id": "c1", "content": "a bed"}]  # fmt: skip
        with FakeAnthropic() as fake:
            await said(claude(fake), chat, streamed, tools=TOOLS, reasoning_effort="high")
            await said(claude(fake, "claude-opus-4-8"), chat, streamed, tools=TOOLS, reasoning_effort="high")
        assert not fake.refused
        older, newer = fake.requests
        assert "thinking" not in older.body
        assert newer.body["thinking"] == {"type": "adaptive"}
        assert newer.body["output_config"] == {"effort": "high"}

    async def test_thinking_that_it_does_not_know_is_left_out_once_refused(self, streamed: bool) -> None:
        foreign = {"type": "thinking", "thinking": "hm", "signature": "of another model"}
        chat = [*ASK, {"role": "assistant", "content": "I see.", "thinking_blocks": [foreign]}, *ASK]
        with FakeAnthropic() as fake:
            completion, _ = await said(claude(fake), chat, streamed)
        assert len(fake.refused) == 1
        assert completion.messages[0]["content"] == "hello"
        assert fake.requests[0].body["messages"][1]["content"] == [{"type": "text", "text": "I see."}]

    async def test_a_refusal_is_the_providers_own(self, streamed: bool) -> None:
        reply = Reply(status=429, error=("rate_limit_error", "slow down"), headers={"retry-after": "7"})
        with FakeAnthropic([reply]) as fake, pytest.raises(AnthropicRefusal, match="slow down") as raised:
            await said(claude(fake), ASK, streamed)
        assert raised.value.status_code == 429
        assert raised.value.body["error"]["type"] == "rate_limit_error"
        assert raised.value.response.headers["retry-after"] == "7"
        assert bill_of(raised.value) is None

    async def test_what_fails_in_passing_is_tried_again(self, streamed: bool) -> None:
        with FakeAnthropic([Reply(status=529, error=("overloaded_error", "busy"), headers={"retry-after": "0"}),
                            text("hello")]) as fake:  # fmt: skip
            completion, _ = await said(claude(fake, retries=1), ASK, streamed)
        assert completion.messages[0]["content"] == "hello"
        assert len(fake.requests) == 2

    async def test_an_empty_answer_keeps_its_bill(self, streamed: bool) -> None:
        with FakeAnthropic([Reply([], "end_turn")]) as fake, pytest.raises(EmptyCompletion) as raised:
            await said(claude(fake), ASK, streamed)
        assert bill_of(raised.value).usage == Usage(input=10, output=2)  # type: ignore[union-attr]

    async def test_without_a_key_nothing_is_sent(self, streamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        with FakeAnthropic() as fake:
            with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY"):
                await said(claude(fake, api_key=None), ASK, streamed)
            monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "sk-ant-oat01-0123456789")
            await said(claude(fake, api_key=None), ASK, streamed)
        assert fake.requests[0].headers["authorization"] == "Bearer sk-ant-oat01-0123456789"
        assert "x-api-key" not in fake.requests[0].headers

    async def test_a_callers_own_headers_and_fields_win(self, streamed: bool) -> None:
        headers = {"X-Api-Key": "sk-ant-own-0123456789", "anthropic-beta": "context-1m-2025-08-07"}
        body = {"context_management": {"edits": []}, "top_k": 3}
        with FakeAnthropic() as fake:
            await said(claude(fake), ASK, streamed, extra_headers=headers, extra_body=body, top_k=1)
        (request,) = fake.requests
        assert request.headers["x-api-key"] == "sk-ant-own-0123456789"
        assert request.headers["anthropic-beta"] == "context-1m-2025-08-07"
        assert request.body.items() >= body.items()


class TestStreams:
    async def test_an_error_event_ends_it_with_a_bill(self) -> None:
        reply = text("one two three four", error_after=6, error=("overloaded_error", "Overloaded"))
        deltas: list[Any] = []
        with FakeAnthropic([reply]) as fake, pytest.raises(ProviderError, match="Overloaded") as raised:
            await claude(fake, retries=3).stream(ASK, deltas.append)
        assert raised.value.status_code == 529
        assert len(fake.requests) == 1, "the caller has seen some of it"
        assert [d["content"] for d in deltas if d.get("content")] == ["one ", "two ", "three "]
        bill = bill_of(raised.value)
        assert bill is not None
        assert bill.usage.input == 10, "as the first event said"
        assert bill.usage.completion >= 3
        assert bill.estimated

    async def test_one_that_breaks_off_is_said_to(self) -> None:
        broken = text("one two three four", truncate_after=5)
        with FakeAnthropic([broken]) as fake, pytest.raises(BrokenStream) as raised:
            await claude(fake).stream(ASK, lambda _: None)
        assert bill_of(raised.value) is not None


async def test_samples_are_requests_of_their_own() -> None:
    with FakeAnthropic() as fake:
        completion = await claude(fake).complete(ASK, n=3, seed=1, temperature=1.5)
    assert len(completion.messages) == completion.calls == len(fake.requests) == 3
    assert completion.usage == Usage(input=30, output=6)
    assert completion.dollars == 3 * (PRICE.dollars(Usage(input=10, output=2)) or Decimal(0))
    assert {r.body["temperature"] for r in fake.requests} == {1}
    assert all("seed" not in r.body and "n" not in r.body for r in fake.requests)


async def test_parameters_that_exclude_each_other_are_learnt() -> None:
    def script(request: fake_anthropic.Request) -> Reply:
        if "temperature" in request.body and "top_p" in request.body:
            said = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
            return Reply(status=400, error=("invalid_request_error", said))
        return text("hello")

    with FakeAnthropic(script) as fake:
        model = claude(fake)
        for _ in range(2):
            await model.complete(ASK, temperature=0.5, top_p=0.9)
    assert [sorted(r.body.keys() & {"temperature", "top_p"}) for r in fake.requests] == [
        ["temperature", "top_p"], ["temperature"], ["temperature"]
    ]  # fmt: skip


async def test_tokens_are_counted_by_the_provider() -> None:
    with FakeAnthropic() as fake:
        assert await claude(fake).count_tokens(ASK, TOOLS, {"max_tokens": 5}) == 42
    (request,) = fake.others
    assert request.body.keys() == {"model", "messages", "tools"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_two_models_take_turns_and_each_is_sent_what_it_takes(streamed: bool) -> None:
    """Claude thinks and calls, the student calls, and again: nobody is sent another's thoughts or ids."""
    replies = [
        Reply([thinking("first"), {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]),
        Reply([thinking("third"), {"type": "text", "text": "done"}]),
    ]
    student_call = {"id": "call/9", "type": "function", "function": {"name": "look", "arguments": '{"at": "desk"}'}}
    agreeing = {"role": "assistant", "content": None, "tool_calls": [student_call], "reasoning_content": "hm"}
    student = ScriptedModel([agreeing], name="cheap")
    config = {"retrieval": {"k": 0}, "actions": {"format": "tools"}}
    with FakeAnthropic(replies) as fake:
        teacher = claude(fake, "claude-opus-4-8")
        async with build(teacher=teacher, student=student, router={"name": "unanimity"}, **config) as cascade:  # type: ignore[arg-type]
            chat = list(ASK)
            episodes = [cascade.episode(mode=mode, stateless=True) for mode in ("teacher", "cascade", "teacher")]
            for episode in episodes:
                options = {"thinking": {"type": "adaptive"}} if episode.mode == "teacher" else {}
                _, messages, _ = await episode.answer(
                    chat, tools=TOOLS, options=options, on_delta=(lambda _: None) if streamed else None
                )
                chat.append(messages[0])
                for one in messages[0].get("tool_calls") or ():
                    chat.append({"role": "tool", "tool_call_id": one["id"], "content": "a bed"})
    assert not fake.refused
    content = [t["content"] for t in fake.requests[1].body["messages"]]
    assert [b["type"] for b in content[1]] == ["thinking", "tool_use"]
    assert content[1][1]["id"] == "toolu_1"
    assert [b["type"] for b in content[3]] == ["tool_use"], "not what the student thought"
    assert content[4][0]["tool_use_id"] == content[3][0]["id"]
    assert chat[-1]["content"] == "done"
