"""Cascades as models of litellm's: `completion`, `acompletion`, the Router, and the handler that its proxy loads."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from agentcascade.config.load import CascadeConfig
from agentcascade.integrations import litellm as integration
from agentcascade.storage import open_database, tables
from tests.fake_openai import FakeOpenAI, Reply, Request

litellm = integration.litellm

ASK: list[Any] = [{"role": "user", "content": "hi"}]
PRICE = {"input": "1", "output": "2"}
LOOK: Any = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}
WITHOUT_MCP = {} if find_spec("mcp") else {"_skip_mcp_handler": True}
"""litellm 1.106 itself cannot call tools, of any provider, without its own extra `mcp` or this."""
AGREED, TORN = Reply(texts=("student says",)), Reply(texts=("a", "b", "c"))
TEACHER = Reply(texts=("teacher says so",))
Register = Callable[..., tuple[integration.Provider, FakeOpenAI]]


def by_model(student: Reply = AGREED, teacher: Reply = TEACHER) -> Callable[[Request], Reply]:
    return lambda request: student if request.body.get("model") == "student" else teacher


def configuration(fake: FakeOpenAI, folder: Path, **more: Any) -> dict[str, Any]:
    model = {"api_base": fake.url, "api_key": "sk-up", "retries": 0, "price": PRICE}
    base: dict[str, Any] = {
        "teacher": {"name": "openai/teacher", **model},
        "student": {"name": "openai/student", **model},
        "bank": {"url": f"sqlite:///{folder}/cascade.db"},
        "retrieval": {"embedder": "hashing", "index": "exact"},
        "prompt": {"min_demonstrations": 0},
        "cascades": {"mail": {}, "mail-collect": {"mode": "collect"}, "mail-teacher": {"mode": "teacher"}},
    }
    return base | more


@pytest.mark.parametrize(
    "names", [{"extra_body": {"max_effort": "huge"}}, {"extra_headers": {"X-Agentcascade-Max-Effort": "huge"}}]
)
def test_a_ceiling_of_effort_is_read_of_body_and_headers(register: Register, names: Any) -> None:
    _, fake = register()
    with pytest.raises(litellm.exceptions.APIConnectionError, match="max_effort: an effort is one of"):
        litellm.completion(model="agentcascade/mail", messages=ASK, **names)
    assert fake.requests == []


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Register]:
    before = litellm.custom_provider_map
    with ExitStack() as stack:

        def start(script: Any = None, **more: Any) -> tuple[integration.Provider, FakeOpenAI]:
            fake = stack.enter_context(FakeOpenAI(script or by_model()))
            provider = integration.register(CascadeConfig(**configuration(fake, tmp_path, **more)))
            stack.callback(provider.close)
            return provider, fake

        yield start
    litellm.custom_provider_map = before


def words(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_a_completion_is_litellms_own_with_decision_and_cost(register: Register) -> None:
    register()
    answer = litellm.completion(model="agentcascade/mail", messages=ASK, max_tokens=5)
    assert isinstance(answer, litellm.ModelResponse)
    assert answer.choices[0].message.content == "student says"
    assert answer.usage.prompt_tokens == 10
    assert answer.agentcascade["answered_by"] == "student"
    # one call with n=3, billed by the fake as 10 tokens in and 2 out
    assert answer._hidden_params["response_cost"] == pytest.approx((10 * 1 + 2 * 2) / 1e6)
    assert answer._hidden_params["response_cost"] == float(answer.agentcascade["dollars"])


async def test_acompletion_defers_as_any_cascade_does(register: Register) -> None:
    _, fake = register(by_model(TORN))
    answer = await litellm.acompletion(
        model="agentcascade/mail", messages=ASK, temperature=0.7, stop=["END"], response_format={"type": "text"}
    )
    assert answer.choices[0].message.content == "teacher says so"
    assert answer.agentcascade["answered_by"] == "teacher"
    sent = fake.requests[-1].body
    assert (sent["temperature"], sent["stop"], sent["response_format"]) == (0.7, ["END"], {"type": "text"})


def test_n_answers_are_the_teachers(register: Register) -> None:
    register(by_model(teacher=Reply(texts=("one", "two"))))
    answer = litellm.completion(model="agentcascade/mail", messages=ASK, n=2)
    assert [c.message.content for c in answer.choices] == ["one", "two"]


@pytest.mark.parametrize("student", [AGREED, TORN], ids=["accepted", "deferred"])
def test_a_stream_has_usage_and_decision_at_its_end(register: Register, student: Reply) -> None:
    register(by_model(student))
    chunks = list(
        litellm.completion(model="agentcascade/mail", messages=ASK, stream=True, stream_options={"include_usage": True})
    )
    assert words(chunks) == ("student says" if student is AGREED else "teacher says so")
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    usages = [u for c in chunks if (u := getattr(c, "usage", None))]
    assert [u.prompt_tokens for u in usages] == [10]
    whole = litellm.stream_chunk_builder(chunks, messages=ASK)
    assert whole.choices[0].message.content == words(chunks)


async def test_an_asynchronous_stream_reads_the_same(register: Register) -> None:
    register(by_model(TORN))
    stream = await litellm.acompletion(model="agentcascade/mail", messages=ASK, stream=True)
    assert words([chunk async for chunk in stream]) == "teacher says so"


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_and_their_results(register: Register, stream: bool) -> None:
    calls = (("look", '{"at": "desk"}'), ("look", '{"at": "bed"}'))

    def script(request: Request) -> Reply:
        if request.body["messages"][-1]["role"] == "tool":
            return Reply(texts=("a mug",))
        return TORN if request.body["model"] == "student" else Reply(texts=(None,), tool_calls=calls)

    _, fake = register(script)
    answer = litellm.completion(
        model="agentcascade/mail",
        messages=ASK,
        tools=[LOOK],
        tool_choice="required",
        stream=stream,
        **WITHOUT_MCP,
    )
    if stream:
        answer = litellm.stream_chunk_builder(list(answer), messages=ASK)
    message = answer.choices[0].message
    assert [(c.function.name, c.function.arguments) for c in message.tool_calls] == list(calls)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert all(r.body["tool_choice"] == "required" and r.body["tools"] == [LOOK] for r in fake.requests)
    results = [{"role": "tool", "tool_call_id": c.id, "content": "mug"} for c in message.tool_calls]
    end = litellm.completion(model="agentcascade/mail", messages=[*ASK, message, *results], tools=[LOOK], **WITHOUT_MCP)
    assert end.choices[0].message.content == "a mug"


def test_metadata_says_which_episode_it_is(register: Register, tmp_path: Path) -> None:
    provider, fake = register()
    answer = litellm.completion(
        model="agentcascade/mail-collect",
        messages=ASK,
        metadata={"agentcascade_episode": "run-7", "agentcascade_goal": "greet"},
    )
    assert (answer.agentcascade["episode"], answer.agentcascade["goal"]) == ("run-7", "greet")
    assert "agentcascade" not in json.dumps(fake.requests[0].body)
    provider.close()
    database = open_database(f"sqlite:///{tmp_path}/cascade.db")
    with database.begin() as connection:
        drafts = connection.execute(select(tables.drafts.c.episode, tables.drafts.c.goal)).all()
    database.close()
    assert [tuple(d) for d in drafts] == [("run-7", "greet")]


def test_headers_say_it_too(register: Register) -> None:
    register()
    answer = litellm.completion(
        model="agentcascade/mail", messages=ASK, extra_headers={"X-AgentCascade-Episode": "run-8"}
    )
    assert answer.agentcascade["episode"] == "run-8"


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, "AuthenticationError"), (429, "RateLimitError"), (400, "BadRequestError"), (500, "InternalServerError")],
)
def test_the_teachers_errors_are_litellms_own(register: Register, status: int, error: str) -> None:
    register(by_model(Reply(status=500), Reply(status=status)))
    with pytest.raises(getattr(litellm, error)):
        litellm.completion(model="agentcascade/mail", messages=ASK, num_retries=0)


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_cascade_is_a_bad_request_with_a_hint(register: Register, stream: bool) -> None:
    register()
    with pytest.raises(Exception, match=r"there is no cascade 'mial'.*mail"):
        list(litellm.completion(model="agentcascade/mial", messages=ASK, stream=stream, num_retries=0))


def test_over_budget_is_a_typed_error(register: Register) -> None:
    register(budgets={"per_episode": "0.000001"})
    with pytest.raises(Exception, match=r"(?i)budget"):
        litellm.completion(model="agentcascade/mail", messages=ASK, num_retries=0)


def test_a_stream_that_is_closed_early_is_closed_upstream(register: Register) -> None:
    _, fake = register(by_model(teacher=Reply(texts=("word " * 100,), chunk_delay=0.05)))
    stream = litellm.completion(model="agentcascade/mail-teacher", messages=ASK, stream=True)
    next(stream)
    stream.completion_stream.close()
    assert fake.disconnected.wait(60)


async def test_a_router_spreads_over_cascades_and_falls_back(register: Register) -> None:
    register(by_model(Reply(status=500), Reply(status=500)))
    with FakeOpenAI([Reply(texts=("plain",))]) as other:
        router = litellm.Router(
            model_list=[
                {"model_name": "agent", "litellm_params": {"model": "agentcascade/mail"}},
                {
                    "model_name": "spare",
                    "litellm_params": {"model": "openai/x", "api_base": other.url, "api_key": "k"},
                },
            ],
            fallbacks=[{"agent": ["spare"]}],
            num_retries=0,
        )
        answer = await router.acompletion(model="agent", messages=ASK)
    assert answer.choices[0].message.content == "plain"


async def test_a_router_streams_and_calls_at_once(register: Register) -> None:
    register()
    router = litellm.Router(
        model_list=[{"model_name": "agent", "litellm_params": {"model": "agentcascade/mail"}}], num_retries=0
    )
    stream = await router.acompletion(model="agent", messages=ASK, stream=True)
    assert words([chunk async for chunk in stream]) == "student says"
    answers = await asyncio.gather(
        *(router.acompletion(model="agent", messages=[{"role": "user", "content": str(i)}]) for i in range(10))
    )
    assert len({a.agentcascade["episode"] for a in answers}) == 10


def test_the_handler_that_litellms_proxy_loads(fake_openai: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """`custom_provider_map` names `agentcascade.integrations.litellm.handler`: by import, configured by environment."""
    fake = fake_openai(by_model())
    (tmp_path / "agentcascade.yaml").write_text(json.dumps(configuration(fake, tmp_path)))
    monkeypatch.setenv("AGENTCASCADE_CONFIG", str(tmp_path / "agentcascade.yaml"))
    module, name = ["agentcascade.integrations.litellm", "handler"]
    handler = getattr(importlib.import_module(module), name)
    monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "agentcascade", "custom_handler": handler}])
    litellm.utils.custom_llm_setup()
    try:
        answer = litellm.completion(model="agentcascade/mail", messages=ASK)
        assert answer.choices[0].message.content == "student says"
    finally:
        handler.close()


def test_closed_and_used_again(register: Register) -> None:
    provider, _ = register()
    litellm.completion(model="agentcascade/mail", messages=ASK)
    provider.close()
    provider.close()
    assert litellm.completion(model="agentcascade/mail", messages=ASK).choices[0].message.content == "student says"


def test_registering_again_replaces_the_provider_and_keeps_others(register: Register) -> None:
    class Other(litellm.CustomLLM):  # type: ignore[misc,name-defined]
        pass

    other = {"provider": "elsewhere", "custom_handler": Other()}
    litellm.custom_provider_map = [*litellm.custom_provider_map, other]
    first, _ = register()
    second, _ = register()
    handlers = {item["provider"]: item["custom_handler"] for item in litellm.custom_provider_map}
    assert handlers["agentcascade"] is second
    assert first is not second
    assert handlers["elsewhere"] is other["custom_handler"]
