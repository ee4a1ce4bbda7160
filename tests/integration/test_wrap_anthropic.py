"""`wrap` of Anthropic's own clients: create, stream, parse, beta, tool runners, copies, and what goes past it."""

from __future__ import annotations

import logging
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest

from agentcascade.integrations.openai import Wrapped

pytest.importorskip("anthropic", reason="needs the extra `anthropic`")
import anthropic
from pydantic import BaseModel

from agentcascade import ScriptedModel, wrap
from agentcascade.errors import ConfigError
from tests.fake_anthropic import KEY, FakeAnthropic, Reply, call, text, thinking

ASK: list[Any] = [{"role": "user", "content": "Where is the mug?"}]
LOOK: dict[str, Any] = {"name": "look", "description": "Look.", "input_schema": {"type": "object", "properties": {}}}
PRICE = {"input": "3", "output": "15"}
LOOKS = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]}  # fmt: skip


def client(fake: FakeAnthropic, kind: Any = None, **more: Any) -> Any:
    made = (kind or anthropic.Anthropic)(base_url=fake.root, api_key=KEY, max_retries=0)
    base = {"retrieval": {"k": 0}, "actions": {"format": "tools"}, "mode": "teacher"}
    return wrap(made, **{**base, **more})


def request(**more: Any) -> dict[str, Any]:
    return {"model": "claude-opus-4-8", "max_tokens": 50, "messages": ASK, "tools": [LOOK], **more}


def test_create_asks_the_model_that_is_named_by_the_programs_own_client() -> None:
    reply = Reply([thinking("hm"), {"type": "text", "text": "On the desk."}])
    price = {"name": "127.0.0.1/claude-opus-4-8", "price": PRICE}
    with FakeAnthropic([reply]) as fake:
        wrapped = client(fake, teacher=price)
        with wrapped.agentcascade:
            marked = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
            more = {"system": [marked], "extra_body": {"temperature": 0.5}, "extra_headers": {"anthropic-beta": "b-1"}}
            answer = wrapped.messages.create(**request(thinking={"type": "disabled"}, **more))
    (sent,) = fake.requests
    assert answer.agentcascade.answered_by == "teacher"
    assert answer.agentcascade.dollars == Decimal("0.00006")
    assert type(answer) is anthropic.types.Message
    assert [b.type for b in answer.content] == ["thinking", "text"]
    assert sent.body["system"] == [marked]
    assert sent.body["temperature"] == 0.5
    assert sent.body["thinking"] == {"type": "disabled"}
    assert sent.headers["anthropic-beta"] == "b-1"
    assert KEY in (sent.headers.get("x-api-key", "") + sent.headers.get("authorization", ""))


class Claude(str, Enum):  # noqa: UP042  a StrEnum is written as its values anyway
    OPUS = "claude-opus-4-8"


def test_a_model_named_by_a_programs_enum_is_asked_by_its_own_name() -> None:
    with FakeAnthropic([text("On the desk.")]) as fake:
        wrapped = client(fake)
        with wrapped.agentcascade:
            answer = wrapped.messages.create(**request(model=Claude.OPUS, tools=[]))
    assert fake.requests[0].body["model"] == "claude-opus-4-8"
    assert answer.agentcascade.calls[-1].model.endswith("/claude-opus-4-8")


@pytest.mark.parametrize("mode", ["teacher", "cascade"])
def test_streams_and_their_helpers(mode: str) -> None:
    student = ScriptedModel([LOOKS], name="cheap")
    reply = call("look", {}, said="Let me look.")
    with FakeAnthropic([reply]) as fake:
        wrapped = client(fake, mode=mode, student=student)
        with wrapped.agentcascade:
            with wrapped.messages.create(**request(), stream=True) as events:
                kinds = [event.type for event in events]
                decision = events.agentcascade
            with wrapped.messages.stream(**request()) as stream:
                words = "".join(stream.text_stream)
                final = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert decision.answered_by == ("student" if mode == "cascade" else "teacher")
    assert words == ("" if mode == "cascade" else "Let me look.")
    assert final.content[-1].name == "look"
    assert final.stop_reason == "tool_use"
    assert len(fake.requests) == (0 if mode == "cascade" else 2)


class Place(BaseModel):
    where: str


def test_parse_gives_the_programs_own_type() -> None:
    with FakeAnthropic([text('{"where": "desk"}')]) as fake:
        wrapped = client(fake)
        with wrapped.agentcascade:
            plain = wrapped.messages.parse(**request(tools=[]), output_format=Place)
            beta = wrapped.beta.messages.parse(**request(tools=[]), output_format=Place)
            with wrapped.messages.stream(**request(tools=[]), output_format=Place) as stream:
                streamed = stream.get_final_message()
    for answer in (plain, beta, streamed):
        assert answer.parsed_output == Place(where="desk")
    assert plain.agentcascade.answered_by == "teacher"
    assert fake.requests[0].body["output_config"]["format"]["schema"]["required"] == ["where"]
    assert fake.requests[1].body["output_config"] == fake.requests[0].body["output_config"]


def test_a_tool_runner_goes_through_its_loop() -> None:
    seen: list[str] = []

    @anthropic.beta_tool
    def look() -> str:
        """Look around."""
        seen.append("looked")
        return "a mug on the desk"

    with FakeAnthropic([call("look", {}), text("On the desk.")]) as fake:
        wrapped = client(fake, student=ScriptedModel([LOOKS], name="cheap"), mode="shadow")
        with wrapped.agentcascade as control, control.episode("run-1", goal="find the mug") as running:
            runner = wrapped.beta.messages.tool_runner(**request(tools=[look]))
            last = runner.until_done()
    assert seen == ["looked"]
    assert last.content[0].text == "On the desk."
    assert not fake.refused
    assert running.id == "run-1"


async def test_the_asynchronous_client() -> None:
    reply = call("look", {}, said="Let me look.")
    with FakeAnthropic([reply]) as fake:
        wrapped = client(fake, anthropic.AsyncAnthropic)
        answer = await wrapped.messages.create(**request())
        async with await wrapped.messages.create(**request(), stream=True) as events:
            kinds = [event.type async for event in events]
        async with wrapped.messages.stream(**request()) as stream:
            final = await stream.get_final_message()
        counted = await wrapped.messages.count_tokens(model="claude-opus-4-8", messages=ASK)
        await wrapped.agentcascade.aclose()
    assert answer.agentcascade.answered_by == "teacher"
    assert kinds[-1] == "message_stop"
    assert final.content[0].text == "Let me look."
    assert counted.input_tokens == 42


def test_copies_are_wrapped_and_the_programs_own_client_is_not() -> None:
    with FakeAnthropic() as fake:
        own = anthropic.Anthropic(base_url=fake.root, api_key=KEY, max_retries=0)
        wrapped = wrap(own, mode="teacher", retrieval={"k": 0})
        with Wrapped.of(wrapped):
            faster: Any = wrapped.with_options(timeout=3, default_headers={"x-app": "me"})
            assert isinstance(faster, anthropic.Anthropic)
            assert faster.messages.create(**request()).agentcascade.answered_by == "teacher"
            assert fake.requests[0].headers["x-app"] == "me"
            assert not hasattr(own.messages.create(**request()), "agentcascade")


def test_errors_are_the_sdks_own() -> None:
    limited = Reply(status=429, error=("rate_limit_error", "slow down"))
    broken = text("one two three four", error_after=6, error=("overloaded_error", "Overloaded"))
    with FakeAnthropic([limited, broken]) as fake:
        wrapped = client(fake)
        with wrapped.agentcascade:
            with pytest.raises(anthropic.RateLimitError, match="slow down"):
                wrapped.messages.create(**request())
            with pytest.raises(Exception, match="Overloaded"), wrapped.messages.stream(**request()) as stream:
                stream.until_done()


def test_what_goes_past_the_cascade_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with FakeAnthropic() as fake:
        wrapped = client(fake)
        with wrapped.agentcascade, caplog.at_level(logging.WARNING, "agentcascade.integrations"):
            for _ in range(2):
                assert wrapped.messages.with_raw_response.create(**request()).parse().content[0].text == "hello"
                with pytest.raises(anthropic.NotFoundError):
                    wrapped.messages.batches.create(requests=[])
    said = [r.message for r in caplog.records if "past the cascade" in r.message]
    assert len(said) == 2
    assert "with_raw_response" in said[0]
    assert "/v1/messages/batches" in said[1]


def test_a_student_behind_the_same_client() -> None:
    with FakeAnthropic([text("same")]) as fake:
        wrapped = client(fake, mode="cascade", student="client/claude-haiku-4-5", actions={"format": "text"})
        with wrapped.agentcascade:
            answer = wrapped.messages.create(**request(tools=[]))
    assert answer.agentcascade.answered_by == "student"
    assert {r.body["model"] for r in fake.requests} == {"claude-haiku-4-5"}


def test_other_clients_are_named() -> None:
    with pytest.raises(ConfigError, match=r"anthropic\.Anthropic"):
        wrap(object())  # type: ignore[type-var]
