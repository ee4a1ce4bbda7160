"""`ChatAgentCascade` as LangChain programs meet it, over HTTP to a fake provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig

from agentcascade.config.keywords import ModelKeywords
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.provider import Out, Provider, last, part, whole

pytest.importorskip("langchain_core", reason="needs the extra `langchain`")
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel

from agentcascade import build
from agentcascade.errors import InvalidRequest
from agentcascade.integrations.langchain import ChatAgentCascade

PRICE = {"input": "1", "output": "2"}
AGREED, TORN = Reply(texts=("student says",)), Reply(texts=("a", "b", "c"))
TEACHER = Reply(texts=("teacher says so",))
Chat = Callable[..., tuple[ChatAgentCascade, FakeOpenAI]]


def by_model(student: Reply = AGREED, teacher: Reply = TEACHER) -> Callable[[Request], Reply]:
    return lambda request: student if request.body["model"] == "student" else teacher


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    with ExitStack() as stack:

        def start(script: Any = None, *, model: Any = None, **more: Any) -> tuple[ChatAgentCascade, FakeOpenAI]:
            fake = stack.enter_context(FakeOpenAI(script or by_model()))
            own = {"api_base": fake.url, "api_key": "x", "retries": 0, "price": PRICE}
            options: dict[str, Any] = {
                "teacher": {"name": "openai/teacher", **own},
                "student": {"name": "openai/student", **own},
                "bank": {"url": f"sqlite:///{tmp_path}/cascade.db"},
                "retrieval": {"embedder": "hashing", "index": "exact"},
                "prompt": {"min_demonstrations": 0},
            } | more
            cascade = stack.enter_context(build(**options))
            return ChatAgentCascade(cascade=cascade, **(model or {})), fake

        yield start


def said(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = message.response_metadata["agentcascade"]
    return found


def test_an_answer_says_who_gave_it_and_what_it_cost(chat: Chat) -> None:
    model, _ = chat()
    answer = model.invoke([SystemMessage("be brief"), HumanMessage("hi")])
    assert answer.content == "student says"
    assert (said(answer)["answered_by"], said(answer)["agreement"]) == ("student", 1.0)
    assert float(said(answer)["dollars"]) == pytest.approx((10 + 2 * 2) / 1e6)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 12
    assert answer.response_metadata["finish_reason"] == "stop"


def test_settings_of_the_model_and_of_the_call_reach_the_teacher(chat: Chat) -> None:
    model, fake = chat(mode="teacher", model={"temperature": 0.3, "max_tokens": 9, "options": {"top_p": 0.5}})
    model.bind(max_tokens=7, presence_penalty=0.1).invoke("hi", stop=["END"])
    body = fake.requests[0].body
    assert {k: body[k] for k in ("temperature", "max_tokens", "top_p", "presence_penalty", "stop")} == {
        "temperature": 0.3, "max_tokens": 7, "top_p": 0.5, "presence_penalty": 0.1, "stop": ["END"],
    }  # fmt: skip


def test_another_model_is_refused_with_advice(chat: Chat) -> None:
    model, fake = chat()
    with pytest.raises(InvalidRequest, match="make a ChatAgentCascade of that cascade"):
        model.invoke("hi", model="gpt-4o")
    assert not fake.requests


@pytest.mark.parametrize(("student", "text"), [(AGREED, "student says"), (TORN, "teacher says so")])
async def test_a_stream_adds_up_to_the_answer(chat: Chat, student: Reply, text: str) -> None:
    model, _ = chat(by_model(student))
    for chunks in ([c async for c in model.astream("hi")], await asyncio.to_thread(lambda: list(model.stream("hi")))):
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        assert whole.content == text
        assert whole.usage_metadata is not None
        assert whole.usage_metadata["input_tokens"] == 10
        assert said(whole)["answered_by"] == text.split()[0]
        assert [c.chunk_position for c in chunks].count("last") == 1


def test_callbacks_hear_the_words_as_they_come(chat: Chat) -> None:
    class Ear(BaseCallbackHandler):
        heard: list[str] = []  # noqa: RUF012

        def on_llm_new_token(self, token: Any, **_: Any) -> None:
            self.heard.append(token)

    model, _ = chat(by_model(TORN))
    list(model.stream("hi", {"callbacks": [Ear()]}))
    assert [t for t in Ear.heard if t] == ["teacher", " says", " so"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stream_that_nobody_reads_on_is_closed_upstream(chat: Chat, asynchronous: bool) -> None:
    model, fake = chat([Reply(texts=("word " * 100,), chunk_delay=0.05)], mode="teacher")
    if asynchronous:
        stream = model.astream("hi")
        assert isinstance(stream, AsyncGenerator)
        await anext(stream)
        await stream.aclose()
    else:

        def read() -> None:
            for _ in model.stream("hi"):
                break

        await asyncio.to_thread(read)
    assert await asyncio.to_thread(fake.disconnected.wait, 60)


@tool
def look(at: str) -> str:
    """Look at something."""
    return f"a mug on the {at}"


def test_tools_are_called_and_their_results_understood(chat: Chat) -> None:
    def script(request: Request) -> Reply:
        if request.body["messages"][-1]["role"] == "tool":
            return Reply(texts=("there is a mug",))
        return (
            TORN if request.body["model"] == "student" else Reply(texts=(None,), tool_calls=[("look", '{"at": "bed"}')])
        )

    model, fake = chat(script)
    bound = model.bind_tools([look], tool_choice="look")
    asked = bound.invoke("where is the mug?")
    assert [(c["name"], c["args"]) for c in asked.tool_calls] == [("look", {"at": "bed"})]
    assert fake.requests[-1].body["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    result = look.invoke(asked.tool_calls[0])
    assert isinstance(result, ToolMessage)
    end = model.bind_tools([look]).invoke([HumanMessage("where is the mug?"), asked, result])
    assert end.content == "there is a mug"
    sent = fake.requests[-1].body["messages"]
    assert sent[-2]["tool_calls"][0]["id"] == sent[-1]["tool_call_id"]


def test_arguments_that_are_no_json_are_an_invalid_call(chat: Chat) -> None:
    model, _ = chat([Reply(texts=(None,), tool_calls=[("look", "{at: bed")])], mode="teacher")
    answer = model.bind_tools([look]).invoke("hi")
    assert not answer.tool_calls
    assert answer.invalid_tool_calls[0]["args"] == "{at: bed"


class Place(BaseModel):
    """A place."""

    room: str
    shelf: int


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_structured_output_by_response_format(chat: Chat, method: str) -> None:
    model, fake = chat(by_model(Reply(texts=('{"room": "hall", "shelf": 3}', '{"shelf":3, "room":"hall"}', "no"))))
    with pytest.raises(ValueError, match="Invalid json output: teacher says so"):
        model.with_structured_output(Place, method=method).invoke("where?")
    kind = {"json_schema": "json_schema", "json_mode": "json_object"}[method]
    assert {r.body["response_format"]["type"] for r in fake.requests} == {kind}

    model, fake = chat(
        by_model(
            Reply(texts=('{"room": "hall", "shelf": 3}', '{"shelf":3, "room":"hall"}', '{"room":"hall","shelf":3}'))
        )
    )
    found = model.with_structured_output(Place, method=method, include_raw=True).invoke("where?")
    assert (found["parsed"], found["parsing_error"]) == (Place(room="hall", shelf=3), None)
    assert said(found["raw"])["answered_by"] == "student", "agreed by value"


def test_structured_output_that_does_not_parse_is_handed_over_with_the_error(chat: Chat) -> None:
    model, _ = chat(mode="teacher")
    found = model.with_structured_output(Place.model_json_schema(), method="json_schema", include_raw=True).invoke("?")
    assert (found["raw"].content, found["parsed"]) == ("teacher says so", None)
    assert "Invalid json" in str(found["parsing_error"])
    with pytest.raises(ValueError, match="method='magic'"):
        model.with_structured_output(Place, method="magic")


def test_n_answers_are_generations(chat: Chat) -> None:
    model, _ = chat(by_model(teacher=Reply(texts=("one", "two"))))
    result = model.generate([[HumanMessage("hi")]], n=2)
    assert [g.text for g in result.generations[0]] == ["one", "two"]


def test_thinking_goes_back_to_the_provider_with_its_signature(chat: Chat) -> None:
    thought = {"type": "thinking", "thinking": "the bed, I guess", "signature": "c2lnbmVk"}
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "bed"}}
    usage = {"input_tokens": 10, "output_tokens": 2}
    body = {"id": "1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use", "usage": usage}
    with FakeOpenAI([Reply(body=body | {"content": [thought, call]}), Reply(usage=usage)]) as anthropic:
        claude = {"name": "anthropic/claude-sonnet-4-5", "api_base": anthropic.root, "api_key": "x", "retries": 0}
        model, _ = chat(mode="teacher", teacher=claude)
        bound = model.bind_tools([look])
        asked = bound.invoke("where is the mug?")
        assert asked.tool_calls[0]["args"] == {"at": "bed"}
        end = bound.invoke([HumanMessage("where is the mug?"), asked, look.invoke(asked.tool_calls[0])])
        sent = anthropic.requests[-1].body["messages"]
    assert end.content == "hello"
    assert thought in sent[1]["content"]


def test_streamed_thinking_goes_back_in_one_piece(chat: Chat) -> None:
    """LangGraph adds the chunks of a stream up and sends the sum."""
    usage = {"input_tokens": 10, "output_tokens": 2}
    head: dict[str, Any] = {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": []}
    thoughts = [
        {"type": "thinking_delta", "thinking": "the bed, "},
        {"type": "thinking_delta", "thinking": "I guess"},
        {"type": "signature_delta", "signature": "c2lnbmVk"},
    ]
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    arguments = {"type": "input_json_delta", "partial_json": '{"at": "bed"}'}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": head | {"stop_reason": None, "usage": usage}}]
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    for index, (block, parts) in enumerate([(thinking, thoughts), (call, [arguments])]):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": part} for part in parts]
        events.append({"type": "content_block_stop", "index": index})
    events += [
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    with FakeOpenAI([Reply(events=events), Reply(usage=usage)]) as anthropic:
        claude = {"name": "anthropic/claude-sonnet-4-5", "api_base": anthropic.root, "api_key": "x", "retries": 0}
        model, _ = chat(mode="teacher", teacher=claude)
        bound = model.bind_tools([look])
        chunks = list(bound.stream("where is the mug?"))
        asked = reduce(add, chunks)
        bound.invoke([HumanMessage("where is the mug?"), asked, look.invoke(asked.tool_calls[0])])
        sent = anthropic.requests[-1].body["messages"]
    whole = {"type": "thinking", "thinking": "the bed, I guess", "signature": "c2lnbmVk"}
    assert [b for b in sent[1]["content"] if b["type"] == "thinking"] == [whole]
    assert asked.additional_kwargs["reasoning_content"] == "the bed, I guess"


async def test_a_chain_in_a_batch_keeps_its_episodes_apart(chat: Chat) -> None:
    model, _ = chat()
    chain = ChatPromptTemplate.from_messages([("human", "task {n}")]) | model
    answers = await chain.abatch([{"n": i} for i in range(8)])
    assert len({said(a)["episode"] for a in answers}) == 8


def test_the_runs_metadata_names_episode_and_goal(chat: Chat) -> None:
    model, fake = chat(mode="collect")
    run: RunnableConfig = {"metadata": {"agentcascade_episode": "run-1", "agentcascade_goal": "greet", "customer": "7"}}
    answer = model.invoke("hi", run)
    assert (said(answer)["episode"], said(answer)["goal"]) == ("run-1", "greet")
    assert "metadata" not in fake.requests[0].body


@pytest.mark.parametrize("stream", [False, True])
def test_the_teachers_error_is_not_hidden(chat: Chat, stream: bool) -> None:
    model, _ = chat(by_model(Reply(status=500), Reply(status=401)))
    with pytest.raises(Exception, match=r"401|Authentication"):
        list(model.stream("hi")) if stream else model.invoke("hi")


def test_with_retry_and_fallbacks_work_as_for_any_model(chat: Chat) -> None:
    broken, _ = chat([Reply(status=500)], mode="teacher")
    spare, _ = chat(mode="teacher")
    assert broken.with_fallbacks([spare]).invoke("hi").content == "teacher says so"


async def test_thoughts_of_every_provider_go_back_with_their_calls_and_come_with_what_is_said_beside() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    said = {"content": None, "reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}

    def answer(body: dict[str, Any], out: Out) -> None:
        out.json(whole({**said, "tool_calls": [call]}, "tool_calls", service_tier="flex", system_fingerprint="fp"))

    with Provider(answer) as provider:
        teacher: ModelKeywords = {"name": "openai/m", "api_base": provider.url, "api_key": "k", "retries": 0}
        with build(teacher=teacher, mode="teacher") as cascade:
            model = ChatAgentCascade(cascade=cascade)
            first = await model.ainvoke([HumanMessage("go")])
            await model.ainvoke([HumanMessage("go"), first, ToolMessage("ok", tool_call_id="c1")])
    assert (first.response_metadata["service_tier"], first.response_metadata["system_fingerprint"]) == ("flex", "fp")
    sent = provider.bodies[1]["messages"][1]
    assert {k: sent[k] for k in said if k != "content"} == {k: v for k, v in said.items() if k != "content"}


@pytest.mark.parametrize("stream", [False, True])
def test_signatures_and_formats_go_back_as_they_came(stream: bool) -> None:
    signed = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}, **signed}
    thought = {"type": "reasoning.text", "text": "the bed", "index": 0, "format": "anthropic-v1", "signature": "c2c"}
    pieces = [{**thought, "text": "the ", "signature": None}, {**thought, "text": "bed"}]

    def answer(body: dict[str, Any], out: Out) -> None:
        if body.get("stream"):
            thoughts = [part({"reasoning_details": [p]}) for p in pieces]
            out.events([*thoughts, part({"tool_calls": [{"index": 0, **call}]}), part({}, "tool_calls"), last()])
        else:
            out.json(whole({"content": None, "reasoning_details": [thought], "tool_calls": [call]}, "tool_calls"))

    with Provider(answer) as provider:
        teacher: ModelKeywords = {"name": "openai/m", "api_base": provider.url, "api_key": "k", "retries": 0}
        with build(teacher=teacher, mode="teacher") as cascade:
            model = ChatAgentCascade(cascade=cascade)
            first: Any = None
            for chunk in model.stream("go") if stream else [model.invoke("go")]:
                first = chunk if first is None else first + chunk
            model.invoke([HumanMessage("go"), first, ToolMessage("ok", tool_call_id=first.tool_calls[0]["id"])])
    sent = provider.bodies[1]["messages"][1]
    assert sent["tool_calls"][0]["extra_content"] == signed["extra_content"]
    assert sent["reasoning_details"] == [thought]


def test_a_call_of_a_custom_tool_is_a_call_and_goes_back_as_one() -> None:
    call = {"id": "c1", "type": "custom", "custom": {"name": "shell", "input": "ls"}}

    with Provider(lambda body, out: out.json(whole({"content": None, "tool_calls": [call]}, "tool_calls"))) as provider:
        teacher: ModelKeywords = {"name": "openai/m", "api_base": provider.url, "api_key": "k", "retries": 0}
        with build(teacher=teacher, mode="teacher") as cascade:
            model = ChatAgentCascade(cascade=cascade)
            first = model.invoke("go")
            model.invoke([HumanMessage("go"), first, ToolMessage("ok", tool_call_id=first.tool_calls[0]["id"])])
    assert (first.tool_calls[0]["name"], first.tool_calls[0]["args"]) == ("shell", {"__arg1": "ls"})
    assert provider.bodies[1]["messages"][1]["tool_calls"] == [call]
