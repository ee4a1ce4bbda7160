"""Bounded history as agents meet it: doors and `wrap`, real clients, providers that refuse what is not valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseInputItemParam

from agentcascade.config.keywords import HistoryKeywords
from agentcascade.integrations.openai import Wrapped
from tests.fake_openai import FakeOpenAI, Reply, Request

pytest.importorskip("fastapi", reason="needs the extra `server`")
pytest.importorskip("anthropic", reason="needs the extra `anthropic`")
import anthropic

import agentcascade
from agentcascade.config.load import CascadeConfig
from tests import fake_anthropic
from tests.fake_anthropic import FakeAnthropic
from tests.proxy import serving, settings

HISTORY: HistoryKeywords = {"keep": 2, "every": 2, "carry": 150}
STEPS = 7
NOTE = "This text is long and nobody will ever ask for it again. " * 12
CARRIED = "TICKET-0-77"
"""Seen in the first step, which no prompt shows at the seventh."""


def found(step: int) -> str:
    return json.dumps({"ticket": f"TICKET-{step}-77", "note": NOTE})


def chat_messages() -> list[Any]:
    messages: list[Any] = [
        {"role": "system", "content": "You are an agent."},
        {"role": "user", "content": "Refund my trip."},
    ]
    for step in range(STEPS):
        calls = [
            {"id": f"call_{step}{part}", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}
            for part in "ab"
        ]
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": found(step)} for call in calls]
    return messages


def torn(request: Request) -> Reply:
    return Reply(texts=("one", "two", "three")) if "student" in request.body["model"] else Reply(texts=("the teacher",))


def check_chat(messages: list[dict[str, Any]]) -> None:
    """What OpenAI demands: each call is answered behind it, and each result has its call before it."""
    waiting: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in waiting
            waiting.discard(message["tool_call_id"])
        else:
            assert not waiting
            waiting = {call["id"] for call in message.get("tool_calls") or ()}
    assert not waiting


def check_sent(fake: FakeOpenAI) -> None:
    """The students' requests are bounded, the teacher's is whole, and both are valid."""
    bodies = [request.body for request in fake.requests]
    students = [body for body in bodies if "student" in body["model"]]
    teachers = [body for body in bodies if "student" not in body["model"]]
    assert students
    assert teachers
    for body in (*students, *teachers):
        check_chat(body["messages"])
    for body in students:
        assert sum(m["role"] == "assistant" for m in body["messages"]) == 3
        assert CARRIED in str(body["messages"][1]["content"])
        assert "Refund my trip." in str(body["messages"][1]["content"])
    for body in teachers:
        assert sum(m["role"] == "assistant" for m in body["messages"]) == STEPS
        assert "# Earlier steps" not in str(body["messages"])


def test_chat_and_responses_doors(tmp_path: Path) -> None:
    messages = chat_messages()
    items: list[Any] = [{"role": "user", "content": "Refund my trip."}]
    for step in range(STEPS):
        call = {"type": "function_call", "call_id": f"call_{step}", "name": "look", "arguments": "{}"}
        items += [call, {"type": "function_call_output", "call_id": f"call_{step}", "output": found(step)}]
    with FakeOpenAI(torn) as fake:
        config = CascadeConfig(**settings(fake, tmp_path, mode="cascade", retrieval={"k": 0}, history=HISTORY))
        with serving(config) as proxy, openai.OpenAI(base_url=f"{proxy.base}/v1", api_key="k", max_retries=0) as client:
            whole = client.chat.completions.create(model="default", messages=messages)
            assert whole.choices[0].message.content == "the teacher"
            carried = whole.agentcascade["history_carried"]  # type: ignore[attr-defined]
            assert (carried["steps"], carried["tier"]) == (4, "low")
            assert carried["tokens_after"] < carried["tokens_before"] / 2
            check_sent(fake)
            fake.requests.clear()
            with client.chat.completions.create(model="default", messages=messages, stream=True) as stream:
                assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == "the teacher"
            check_sent(fake)
            fake.requests.clear()
            response = client.responses.create(model="default", instructions="You are an agent.", input=items)
            assert response.output_text == "the teacher"
            check_sent(fake)
            fake.requests.clear()
            more: list[ResponseInputItemParam] = [{"type": "message", "role": "user", "content": "Thanks. And now?"}]
            client.responses.create(model="default", previous_response_id=response.id, input=more)
            teacher = next(r.body for r in fake.requests if "student" not in r.body["model"])
            assert [m["content"] for m in teacher["messages"] if m["role"] == "tool"] == [
                found(step) for step in range(STEPS)
            ], "what is stored is whole"


def test_a_wrapped_client(tmp_path: Path) -> None:
    messages = chat_messages()
    before = json.dumps(messages)
    with FakeOpenAI(torn) as fake, openai.OpenAI(base_url=fake.url, api_key="k", max_retries=0) as own:
        client = agentcascade.wrap(
            own,
            student="client/student",
            bank={"url": f"sqlite:///{tmp_path}/a.db"},
            retrieval={"k": 0},
            history=HISTORY,
        )
        try:
            client.chat.completions.create(model="teacher", messages=messages)
        finally:
            Wrapped.of(client).close()
        check_sent(fake)
    assert json.dumps(messages) == before


@pytest.mark.parametrize("streamed", [False, True])
def test_the_messages_door_with_claude_as_bounded_teacher(tmp_path: Path, streamed: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "Refund my trip."}]
    for step in range(STEPS):
        use = [{"type": "tool_use", "id": f"toolu_{step}{part}", "name": "look", "input": {"at": "x"}} for part in "ab"]
        results = [{"type": "tool_result", "tool_use_id": b["id"], "content": found(step)} for b in use]
        messages += [
            {"role": "assistant", "content": use},
            {"role": "user", "content": [*results, {"type": "text", "text": "Go on."}] if step % 2 else results},
        ]
    tool = {"name": "look", "description": "Look.", "input_schema": {"type": "object", "properties": {"at": {}}}}
    body: dict[str, Any] = {"model": "default", "max_tokens": 2000, "messages": messages, "tools": [tool]}
    body["system"] = "You are an agent."
    with FakeAnthropic([fake_anthropic.text("done")]) as claude, FakeOpenAI() as fake:
        base = settings(fake, tmp_path, mode="teacher", retrieval={"k": 0}, history={**HISTORY, "teacher": True})
        base["teacher"] |= {"name": "anthropic/claude-opus-4-8", "api_base": claude.root}
        with serving(CascadeConfig(**base)) as proxy:
            client = anthropic.Anthropic(base_url=proxy.base, api_key="k", max_retries=0)
            if streamed:
                with client.messages.stream(**body) as stream:
                    answer = stream.get_final_message()
            else:
                answer = client.messages.create(**body)
    assert answer.content[0].text == "done"  # type: ignore[union-attr]
    assert not claude.refused
    sent = claude.requests[-1].body["messages"]
    assert sum(m["role"] == "assistant" for m in sent) == 3
    assert CARRIED in str(sent[0])
    assert "toolu_4b" in str(sent)
    assert "toolu_3b" not in str(sent)
