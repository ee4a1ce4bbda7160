"""The deterministic model that other tests and the examples lean on."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest

from agentcascade.errors import ConfigError, EmptyCompletion
from agentcascade.models.pricing import Price
from agentcascade.models.scripted import ScriptedModel
from agentcascade.protocols import ChatModel

ASK = [{"role": "user", "content": "hello world"}]


async def test_tells_a_list_in_turn_and_its_last_for_ever() -> None:
    model = ScriptedModel(["a", "b"])
    assert isinstance(model, ChatModel)
    assert [m["content"] for m in (await model.complete(ASK, n=3)).messages] == ["a", "b", "b"]
    assert model.requests == [ASK]


async def test_a_function_sees_the_messages_and_the_sample() -> None:
    model = ScriptedModel(lambda messages, i: f"{messages[-1]['content']} {i}")
    assert [m["content"] for m in (await model.complete(ASK, n=2)).messages] == ["hello world 0", "hello world 1"]


async def test_bills_the_prompt_once_and_every_sample() -> None:
    price = Price(input=1, output=10)
    one = await ScriptedModel(["hello world"], price=price).complete(ASK)
    three = await ScriptedModel(["hello world"], price=price).complete(ASK, n=3)
    assert three.usage.prompt == one.usage.prompt > 2
    assert three.usage.output > one.usage.output
    assert three.dollars == Decimal(three.usage.prompt + 10 * three.usage.output) / 1_000_000
    assert (await ScriptedModel(["x"]).complete(ASK)).dollars is None


async def test_errors_and_silence() -> None:
    model = ScriptedModel(
        [ConnectionError("down"), {"role": "assistant", "content": None}], price=Price(input=1, output=1)
    )
    with pytest.raises(ConnectionError, match="down"):
        await model.complete(ASK)
    with pytest.raises(EmptyCompletion) as error:
        await model.complete(ASK)
    assert error.value.completion is not None
    assert error.value.completion.dollars


async def test_delay_meets_the_deadline() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await ScriptedModel(["late"], delay=30).complete(ASK, timeout=0.05)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("script", [[], "abc"])
def test_a_script_must_be_a_list_with_answers(script: object) -> None:
    with pytest.raises(ConfigError, match="at least one answer"):
        ScriptedModel(script)  # type: ignore[arg-type]


async def test_a_refusal_is_an_answer() -> None:
    refusal = {"role": "assistant", "content": None, "refusal": "I must not."}
    completion = await ScriptedModel([refusal]).complete([{"role": "user", "content": "hi"}])
    assert completion.messages == (refusal,)
