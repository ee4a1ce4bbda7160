"""`wrap` and OpenAI's Responses: create, parse, stream, by id, sync and async, with students that speak chat."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response, ResponseCompletedEvent, ResponseTextDeltaEvent
from pydantic import BaseModel
from sqlalchemy import select

import agentcascade
from agentcascade.errors import InvalidRequest
from agentcascade.storage import open_database, tables
from tests.fake_openai import FakeOpenAI, Reply, Request

Wrap = Callable[..., tuple[Any, FakeOpenAI]]
LOOK: Any = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}
PATCH: Any = {"type": "custom", "name": "patch"}
AGREED, TORN = Reply(texts=("student says",)), Reply(texts=("a", "b", "c"))


def by_model(student: Reply = AGREED, teacher: Reply | None = None) -> Callable[[Request], Reply]:
    other = teacher or Reply(texts=("teacher says so",))
    return lambda request: student if request.body.get("model") == "student" else other


@pytest.fixture
def wrap(tmp_path: Path) -> Iterator[Wrap]:
    with ExitStack() as stack:

        def start(script: Any = None, *, client: Any = OpenAI, **more: Any) -> Any:
            fake = stack.enter_context(FakeOpenAI(script or by_model()))
            options = {
                "student": "client/student", "bank": {"url": f"sqlite:///{tmp_path}/cascade.db"},
                "retrieval": {"embedder": "hashing", "index": "exact"}, "prompt": {"min_demonstrations": 0},
                "teacher": {"name": "client/gpt-x", "price": {"input": "1", "output": "2"}},
            } | more  # fmt: skip
            wrapped = agentcascade.wrap(client(base_url=fake.url, api_key="sk-own", max_retries=0), **options)
            stack.callback(wrapped.agentcascade.close)
            return wrapped, fake

        yield start


def paths(fake: FakeOpenAI) -> list[str]:
    return [f"{r.body['model']} {r.path.removeprefix('/v1/')}" for r in fake.requests]


def test_a_student_that_speaks_chat_answers_a_program_that_speaks_responses(wrap: Wrap) -> None:
    client, fake = wrap()
    answer = client.responses.create(model="gpt-x", input="hi", instructions="Be brief.")
    assert (answer.output_text, answer.agentcascade.answered_by) == ("student says", "student")
    assert isinstance(answer, Response)
    assert paths(fake) == ["student chat/completions"]
    assert fake.requests[0].body["messages"] == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]  # fmt: skip


def test_where_it_disagrees_the_teacher_is_asked_by_responses(wrap: Wrap) -> None:
    client, fake = wrap(by_model(TORN))
    answer = client.responses.create(
        model="gpt-x", input=[{"role": "user", "content": "hi"}], reasoning={"effort": "low", "summary": "auto"},
        max_output_tokens=50, store=False, tools=[LOOK, {"type": "web_search"}], text={"verbosity": "low"},
        extra_headers={"x-own": "1"}, temperature=0.5,
    )  # fmt: skip
    assert (answer.output_text, answer.agentcascade.answered_by) == ("teacher says so", "teacher")
    assert paths(fake) == ["student chat/completions", "gpt-x responses"]
    asked = fake.requests[1]
    assert asked.headers["x-own"] == "1"
    assert asked.body["tools"] == [LOOK, {"type": "web_search"}]
    expected = {"reasoning": {"effort": "low", "summary": "auto"}, "text": {"verbosity": "low"}, "store": False,
                "max_output_tokens": 50, "temperature": 0.5}  # fmt: skip
    assert {k: asked.body[k] for k in expected} == expected
    assert [t["function"]["name"] for t in fake.requests[0].body["tools"]] == ["look"], "the student runs no search"
    assert "x-own" not in fake.requests[0].headers
    teacher = answer.agentcascade.calls[-1]
    assert (teacher.model, str(teacher.dollars)) == ("127.0.0.1/gpt-x", "0.000014")


@pytest.mark.parametrize("mode", ["cascade", "teacher"])
def test_a_stream_is_of_the_sdks_events(wrap: Wrap, mode: str) -> None:
    client, _ = wrap(mode=mode)
    stream = client.responses.create(model="gpt-x", input="hi", stream=True)
    events = list(stream)
    texts = [e.delta for e in events if isinstance(e, ResponseTextDeltaEvent)]
    assert "".join(texts) == ("student says" if mode == "cascade" else "teacher says so")
    last = events[-1]
    assert isinstance(last, ResponseCompletedEvent)
    assert last.response.agentcascade == stream.agentcascade  # type: ignore[attr-defined]
    with client.responses.stream(model="gpt-x", input="hi") as helper:
        assert helper.get_final_response().output_text == "".join(texts)


class Mug(BaseModel):
    room: str


async def test_types_and_async(wrap: Wrap) -> None:
    said = Reply(texts=('{"room": "kitchen"}',))
    client, fake = wrap(by_model(said, said), client=AsyncOpenAI)
    parsed = await client.responses.parse(model="gpt-x", input="Where?", text_format=Mug)
    assert parsed._request_id == parsed.agentcascade.id
    assert parsed.output_parsed == Mug(room="kitchen")
    assert parsed.agentcascade.answered_by == "student"
    assert fake.requests[0].body["response_format"]["json_schema"]["name"] == "Mug"
    async with client.responses.stream(model="gpt-x", input="Where?", text_format=Mug) as stream:
        assert (await stream.get_final_response()).output_parsed == Mug(room="kitchen")
    stream = await client.responses.create(model="gpt-x", input="Where?", stream=True)
    assert [e.type async for e in stream][-1] == "response.completed"
    kept = await client.responses.retrieve(parsed.id)
    assert kept.output_text == parsed.output_text


def test_arguments_of_a_typed_tool_are_parsed(wrap: Wrap) -> None:
    call = Reply(texts=(None,), tool_calls=[("Mug", '{"room": "hall"}')])
    client, fake = wrap(by_model(call, call), mode="teacher")
    typed: Any = openai.pydantic_function_tool(Mug, description="Where a mug is.")
    parsed = client.responses.parse(model="gpt-x", input="Where?", tools=[LOOK, typed])
    assert parsed.output[0].parsed_arguments == Mug(room="hall")
    look, mug = fake.requests[0].body["tools"]
    assert look == LOOK
    assert (mug["name"], mug["strict"], mug["description"]) == ("Mug", True, "Where a mug is.")
    with pytest.raises(InvalidRequest, match="pydantic_function_tool"):
        client.responses.parse(model="gpt-x", input="Where?", tools=[{"type": "function", "function": dict(mug)}])


def test_a_tool_loop_by_id_with_a_custom_tool(wrap: Wrap) -> None:
    calls = Reply(texts=(None,), tool_calls=[("look", "{}"), ("patch", '{"input": "*** Begin"}')])
    replies = iter([calls, Reply(texts=("done",)), Reply(texts=("bye",))])
    client, fake = wrap(lambda r: next(replies), mode="teacher", student=None)
    first = client.responses.create(model="gpt-x", input="go", tools=[LOOK, PATCH])
    look, patch = first.output
    assert (look.name, patch.type, patch.input) == ("look", "custom_tool_call", "*** Begin")
    results = [{"type": "function_call_output", "call_id": look.call_id, "output": "a bed"},
               {"type": "custom_tool_call_output", "call_id": patch.call_id, "output": "ok"}]  # fmt: skip
    second = client.responses.create(model="gpt-x", input=results, tools=[LOOK, PATCH], previous_response_id=first.id)
    third = client.responses.create(model="gpt-x", input="bye", previous_response_id=second.id)
    assert third.output_text == "bye"
    kinds = [i["type"] for i in fake.requests[-1].body["input"]]
    assert kinds == ["message", "function_call", "function_call", "function_call_output", "function_call_output",
                     "message", "message"]  # fmt: skip
    assert "previous_response_id" not in fake.requests[-1].body, "the provider kept another conversation"
    assert len({r.agentcascade.episode for r in (first, second, third)}) == 1
    again = [{"role": "user", "content": "go"}, *first.output, *results]
    replies = iter([Reply()])
    fake.script = lambda r: next(replies)
    client.responses.create(model="gpt-x", input=again, tools=[LOOK, PATCH])
    assert [i["type"] for i in fake.requests[-1].body["input"]][1:] == [
        "function_call", "custom_tool_call", "function_call_output", "custom_tool_call_output"]  # fmt: skip


def test_it_is_recorded_and_billed_and_bounded(wrap: Wrap, tmp_path: Path) -> None:
    client, _ = wrap(mode="teacher", budgets={"per_episode": "0.00003"})
    client.responses.create(model="gpt-x", input="hi", max_output_tokens=2, metadata={"agentcascade_episode": "e"})
    with pytest.raises(agentcascade.errors.BudgetExceeded):
        client.responses.create(model="gpt-x", input="hi", max_output_tokens=9, metadata={"agentcascade_episode": "e"})
    with pytest.raises(InvalidRequest, match="within a budget"):
        client.responses.create(model="gpt-x", input="hi", tools=[{"type": "web_search"}])
    client.agentcascade.close()
    database = open_database(f"sqlite:///{tmp_path}/cascade.db")
    with database.begin() as connection:
        rows = connection.execute(select(tables.decisions.c.episode, tables.decisions.c.dollars)).all()
    database.close()
    assert ("e", "0.000014") in {(r.episode, str(r.dollars)) for r in rows}


def test_errors_are_the_providers_own(wrap: Wrap) -> None:
    client, _ = wrap([Reply(status=429, body={"error": {"message": "slow down", "code": "rate_limit_exceeded"}})],
                     mode="teacher")  # fmt: skip
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError):
            client.responses.create(model="gpt-x", input="hi", stream=stream)
    with pytest.raises(InvalidRequest, match="not found"):
        client.responses.create(model="gpt-x", input="hi", previous_response_id="resp_5")
    with pytest.raises(TypeError, match="model"):
        client.responses.create(input="hi")


def test_whatever_goes_past_the_cascade_is_said_once(wrap: Wrap, caplog: pytest.LogCaptureFixture) -> None:
    client, fake = wrap(mode="teacher")
    caplog.set_level(logging.WARNING, "agentcascade")
    for _ in range(2):
        client.beta.threads  # noqa: B018
        client.completions  # noqa: B018
    assert client.embeddings is not None
    assert [r.message.split()[0] for r in caplog.records] == ["client.beta.threads", "client.completions"]
    caplog.clear()
    raw = client.responses.with_raw_response.create(model="gpt-x", input="hi")
    assert raw.parse().output_text == "teacher says so"
    client.responses.create(model="gpt-x", input="hi", conversation="conv_1")
    assert [("bypass" in r.message) for r in caplog.records] == [True, True]
    assert paths(fake)[-1] == "gpt-x responses"
    answer = client.beta.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "hi"}])
    assert answer.agentcascade.answered_by == "teacher"
    with pytest.raises(openai.APIStatusError):
        client.responses.retrieve("resp_unknown")
    copied = client.with_options(timeout=5)
    assert copied.responses.create(model="gpt-x", input="hi").agentcascade.answered_by == "teacher"
