"""A committee over real HTTP: a wrapped client's, a proxy's; its calls in the ledger, its budget in the database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openai import OpenAI

import agentcascade
from agentcascade.config.load import CascadeConfig
from agentcascade.storage import open_database
from agentcascade.storage.tables import calls, decisions
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.proxy import PRICE, serving, settings

SAID = {"a": "look", "b": "look", "c": "go", "teacher": "teach"}
ASK: list[Any] = [{"role": "user", "content": "hi"}]


def reply(request: Request) -> Reply:
    model = str(request.body["model"]).removeprefix("openai/")
    return Reply(status=500) if model == "down" else Reply(texts=(SAID[model],))


def asked(fake: FakeOpenAI) -> list[str]:
    return [str(request.body["model"]) for request in fake.requests]


def test_members_behind_the_programs_own_client(tmp_path: Path) -> None:
    with FakeOpenAI(reply) as fake:
        client = agentcascade.wrap(
            OpenAI(base_url=fake.url, api_key="sk-own", max_retries=0),
            student={"name": "client/c", "price": {"input": "2", "output": "2"}},
            students=[{"name": "client/b", "price": PRICE}, {"name": "client/a", "price": PRICE}],
            sampling={"across": "students"},
            router={"name": "threshold", "options": {"needed": 2}},
            bank={"url": f"sqlite:///{tmp_path}/a.db"},
            retrieval={"k": 0},
        )
        answer = client.chat.completions.create(model="teacher", messages=ASK)
        assert answer.choices[0].message.content == "look"
        assert answer.model == "b"
        assert sorted(asked(fake)) == ["a", "b"]
        client.agentcascade.close()  # type: ignore[attr-defined]


def test_a_proxys_committee_within_a_budget_with_a_member_that_is_down(tmp_path: Path) -> None:
    with FakeOpenAI(reply) as fake:
        shared = {"api_base": fake.url, "api_key": "sk-upstream-0123456789abcdefghij", "retries": 0, "price": PRICE}
        config = settings(
            fake,
            tmp_path,
            student={"name": "openai/down", **shared},
            students=[{"name": "openai/a", **shared}, {"name": "openai/b", **shared, "weight": 2}],
            router={"name": "threshold", "options": {"needed": 3}},
            sampling={"across": "students", "staged": "never"},
            budgets={"per_namespace": "1"},
        )
        with serving(CascadeConfig.load(None, **config)) as proxy:
            answer = proxy.chat().json()
        assert answer["choices"][0]["message"]["content"] == "look"
        assert answer["model"] == "a"  # as its provider calls it
        assert answer["agentcascade"]["reason"] == "agreement 3/4, answer of openai/a"
        assert answer["agentcascade"]["votes"] == {"look": 3}
    database = open_database(f"sqlite:///{tmp_path}/cascade.db")
    try:
        with database.begin() as connection:
            decision = connection.execute(decisions.select()).one()
            billed = connection.execute(calls.select()).all()
    finally:
        database.close()
    failures = decision.failures if isinstance(decision.failures, list) else json.loads(decision.failures)
    assert failures[0].endswith("(openai/down)")
    assert sorted((c.model, c.role, c.purpose) for c in billed if c.dollars) == [
        ("openai/a", "student", "sample"),
        ("openai/b", "student", "sample"),
    ]


TOOL: list[Any] = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def test_a_tool_exchange_goes_on_with_the_member_that_called_under_its_providers_own_id(tmp_path: Path) -> None:
    """A program's own client and loop: the call of b is taken, since a and b agree less than b and c."""

    def told(request: Request) -> Reply:
        model = str(request.body["model"])
        if request.body["messages"][-1]["role"] == "tool":
            return Reply(texts=(f"{model} has read it",))
        arguments = '{"x": 1}' if model == "a" else '{"x": 2}'
        return Reply(texts=(None,), tool_calls=(("look", arguments),), finish="tool_calls")

    with FakeOpenAI(told) as fake:
        client = agentcascade.wrap(
            OpenAI(base_url=fake.url, api_key="sk-own", max_retries=0),
            student={"name": "client/c", "price": {"input": "9", "output": "9"}},
            students=[
                {"name": "client/b", "price": {"input": "3", "output": "3"}},
                {"name": "client/a", "price": PRICE},
            ],
            sampling={"across": "students"},
            router={"name": "threshold", "options": {"needed": 2}},
            bank={"url": f"sqlite:///{tmp_path}/a.db"},
            retrieval={"k": 0},
            tools={"keep_model": True},
        )
        first = client.chat.completions.create(model="teacher", messages=ASK, tools=TOOL)
        (called,) = first.choices[0].message.tool_calls or []
        assert (first.model, sorted(asked(fake))) == ("b", ["a", "b", "c"])
        result = {"role": "tool", "tool_call_id": called.id, "content": "a mug"}
        told_so_far: Any = [*ASK, first.choices[0].message.model_dump(exclude_none=True), result]
        second = client.chat.completions.create(model="teacher", messages=told_so_far, tools=TOOL)
        assert second.choices[0].message.content == "b has read it"
        assert asked(fake)[3:] == ["b"]
        sent = fake.requests[-1].body["messages"]
        assert sent[-1]["tool_call_id"] == sent[-2]["tool_calls"][0]["id"] != called.id, "its provider's own id"
        client.agentcascade.close()  # type: ignore[attr-defined]


def test_members_that_refuse_in_whatever_way_have_no_vote(tmp_path: Path) -> None:
    def answer(**message: Any) -> dict[str, Any]:
        reason = message.pop("finish_reason", "stop")
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
        usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
        return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}

    said = {
        "words": answer(content="I'm sorry, but I can't assist with that."),
        "words2": answer(content="I'm sorry, but I can't assist with that."),
        "field": answer(content=None, refusal="I'm sorry, but I can't assist with that."),
        "filter": answer(content="I'm sorry, but", finish_reason="content_filter"),
        "teacher": answer(content="teach"),
    }

    def told(request: Request) -> Reply:
        return Reply(body=said[str(request.body["model"])])

    with FakeOpenAI(told) as fake:
        shared = {"api_base": fake.url, "api_key": "sk-upstream-0123456789abcdefghij", "retries": 0, "price": PRICE}
        config = settings(
            fake,
            tmp_path,
            student={"name": "openai/words", **shared},
            students=[{"name": f"openai/{name}", **shared} for name in ("words2", "field", "filter")],
            router={"name": "threshold", "options": {"needed": 2}},
            sampling={"across": "students", "staged": "never"},
        )
        with serving(CascadeConfig.load(None, **config)) as proxy:
            got = proxy.chat().json()
    assert got["choices"][0]["message"]["content"] == "teach"
    field = got["agentcascade"]
    assert (field["answered_by"], field["votes"], field["samples"]) == ("teacher", {}, 4)
    assert sum(call["role"] == "student" and bool(call["dollars"]) for call in field["calls"]) == 4, "paid for"


def test_members_of_one_endpoint_have_their_own_keys_and_a_stream_is_one_members_answer(tmp_path: Path) -> None:
    with FakeOpenAI(reply) as fake:
        keys = {name: f"sk-key-of-{name}-0123456789abcdefghij" for name in ("a", "b")}
        shared = {"api_base": fake.url, "retries": 0, "price": PRICE}
        config = settings(
            fake,
            tmp_path,
            student={"name": "openai/a", "api_key": keys["a"], **shared},
            students=[{"name": "openai/b", "api_key": keys["b"], **shared}],
            router={"name": "threshold", "options": {"needed": 2}},
            sampling={"across": "students"},
        )
        with serving(CascadeConfig.load(None, **config)) as proxy:
            streamed = proxy.chat(stream=True, stream_options={"include_usage": True}).text
        sent = {str(r.body["model"]): r.headers["authorization"] for r in fake.requests}
        assert sent == {name: f"Bearer {key}" for name, key in keys.items()}
        assert not any(r.body.get("stream") for r in fake.requests), "nothing of a sample is shown before the verdict"
    chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert said == "look"
    (field,) = [chunk["agentcascade"] for chunk in chunks if "agentcascade" in chunk]
    assert field["reason"] == "agreement 2/2, answer of openai/a"
    assert [chunk["usage"]["prompt_tokens"] for chunk in chunks if chunk.get("usage")] == [10], (
        "of the one that answered"
    )
