"""`text_calls: true`: tool calls that a small model's server leaves in its text are calls, on every surface."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from agentcascade import build, wrap
from agentcascade.assembly.components import make_model
from agentcascade.config.effort import Effort
from agentcascade.config.keywords import ModelKeywords
from agentcascade.config.sections import ModelConfig
from agentcascade.envs.bfcl.text_calls import with_calls
from agentcascade.models.tokens import token_counter
from agentcascade.step.effort_ceiling import capped, is_above
from tests.fake_openai import FakeOpenAI, Reply, Request

PLACE = {"type": "object", "properties": {"at": {"type": "string"}}}
LOOK: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": PLACE}}
ASK: list[Any] = [{"role": "user", "content": "Where is the mug?"}]
WRITTEN = 'look({"at": "bed"})'
PARTS: dict[str, Any] = {
    "retrieval": {"k": 0},
    "bank": {"url": "sqlite:///:memory:"},
    "prompt": {"min_demonstrations": 0},
    "actions": {"format": "tools"},
}


def brain(request: Request) -> Reply:
    if request.body["model"] == "student":
        return Reply(texts=(WRITTEN,) * int(request.body.get("n") or 1))
    return Reply(texts=("the teacher's",))


@pytest.mark.parametrize("text_calls", [True, False])
async def test_calls_in_a_students_text_are_voted_on(text_calls: bool) -> None:
    with FakeOpenAI(brain) as fake:
        shared: ModelKeywords = {"api_base": fake.url, "api_key": "k", "retries": 0}
        student: Any = {"name": "openai/student", "text_calls": text_calls, **shared}
        async with build(None, teacher={"name": "openai/t", **shared}, student=student, **PARTS) as cascade:
            episode, messages, ids = cascade.episode(), list(ASK), []
            for _ in range(2):
                answer = await episode.complete(messages, tools=[LOOK])
                message = answer.choices[0].message
                if not text_calls:
                    assert not message.tool_calls
                    return
                (call,) = message.tool_calls or []
                assert call.type == "function"
                assert (call.function.name, call.function.arguments) == ("look", '{"at": "bed"}')
                assert answer.agentcascade.answered_by == "student"
                assert answer.choices[0].finish_reason == "tool_calls"
                ids.append(call.id)
                told = {"role": "tool", "tool_call_id": call.id, "content": "nothing"}
                messages += [message.model_dump(exclude_none=True), told]
    assert len(set(ids)) == 2


def test_of_a_wrapped_clients_student_and_in_a_stream() -> None:
    with FakeOpenAI(brain) as fake:
        client = openai.OpenAI(base_url=fake.url, api_key="k", max_retries=0)
        ours: Any = wrap(client, student={"name": "client/student", "text_calls": True}, **PARTS)
        with ours.agentcascade:
            chunks = list(ours.chat.completions.create(model="t", messages=ASK, tools=[LOOK], stream=True))
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert calls[0].function.name == "look"
    assert not any(choice.delta.content for chunk in chunks for choice in chunk.choices)


async def test_a_teacher_that_writes_calls_streams_them_whole() -> None:
    with FakeOpenAI([Reply(texts=(WRITTEN,))]) as fake:
        teacher: Any = {"name": "openai/t", "api_base": fake.url, "api_key": "k", "retries": 0, "text_calls": True}
        async with (
            build(None, teacher=teacher, mode="teacher", **PARTS) as cascade,
            cascade.episode().stream(ASK, tools=[LOOK]) as stream,
        ):
            deltas = [choice["delta"] async for chunk in stream for choice in chunk["choices"]]
    assert [call["function"]["name"] for delta in deltas for call in delta.get("tool_calls") or ()] == ["look"]
    assert not any(delta.get("content") for delta in deltas)


async def test_calls_of_a_teacher_have_ids_of_their_own_in_every_turn() -> None:
    with FakeOpenAI([Reply(texts=(WRITTEN,)), Reply(texts=(WRITTEN,))]) as fake:
        teacher: Any = {"name": "openai/t", "api_base": fake.url, "api_key": "k", "retries": 0, "text_calls": True}
        async with build(None, teacher=teacher, mode="teacher", **PARTS) as cascade:
            answers = [await cascade.episode().complete(ASK, tools=[LOOK]) for _ in range(2)]
    ids = [call.id for answer in answers for call in answer.choices[0].message.tool_calls or ()]
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ('{"at": "bed"}', '{"at": "bed"}'),
        (r'"{\"at\": \"bed\"}"', '{"at": "bed"}'),
        ('"bed"', None),
        ("[1]", None),
        ("7", None),
        ("null", None),
        ('{"at": NaN}', None),
        (r'"{\"at\": 1e999}"', None),
    ],
)
def test_arguments_are_an_object_or_the_answer_stays_text(arguments: str, read: str | None) -> None:
    message = {"role": "assistant", "content": f'{{"name": "look", "arguments": {arguments}}}'}
    calls = with_calls(message, [LOOK]).get("tool_calls")
    assert (calls and calls[0]["function"]["arguments"]) == read


@pytest.mark.parametrize("tools", [[5], [{"function": 5}], [{"function": {}}], [{"type": "custom", "custom": {}}], []])
def test_what_no_tool_offers_is_not_called(tools: Any) -> None:
    message = {"role": "assistant", "content": WRITTEN}
    assert with_calls(message, tools) is message


@pytest.mark.parametrize("text_calls", [True, False])
async def test_a_ceiling_of_effort_holds_for_a_model_whose_text_is_read(text_calls: bool) -> None:
    config = ModelConfig(name="openai/gpt-5-mini", api_key="k", effort="high", text_calls=text_calls)
    model = make_model(config, token_counter())
    assert is_above(model, Effort("low"))
    with FakeOpenAI([Reply(texts=(WRITTEN,))]) as fake:
        config = config.model_copy(update={"api_base": fake.url})
        under = capped(make_model(config, token_counter()), Effort("low"))
        answer = await under.complete(ASK, tools=[LOOK])
    assert fake.requests[0].body["reasoning_effort"] == "low"
    assert bool(answer.messages[0].get("tool_calls")) is text_calls
