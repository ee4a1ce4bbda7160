"""Lone surrogates, half of a character that a tool or a model cut in two: sent on to no model as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade import build
from agentcascade.assembly.components import make_model
from agentcascade.billing.door import Door, Tab
from agentcascade.config.sections import ModelConfig
from agentcascade.messages import encodable_messages, encodable_options
from agentcascade.models.scripted import ScriptedModel
from agentcascade.models.tokens import token_counter
from agentcascade.types import Step, Trajectory
from tests.fake_anthropic import FakeAnthropic
from tests.fake_openai import FakeOpenAI, Reply

HALF = "half \ud83d of"
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": json.dumps({"at": "x"})}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
REQUESTS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "a text": ([{"role": "user", "content": HALF}], {}),
    "a part": ([{"role": "user", "content": [{"type": "text", "text": HALF}]}], {}),
    "a tool's result": (
        [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": HALF},
        ],
        {"tools": [TOOL]},
    ),
    "arguments": (
        [
            {"role": "user", "content": "go"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{**CALL, "function": {"name": "look", "arguments": f'{{"at": "{HALF}"}}'}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "nothing"},
        ],
        {"tools": [TOOL]},
    ),
    "a tool": (
        [{"role": "user", "content": "go"}],
        {"tools": [{**TOOL, "function": {**TOOL["function"], "description": HALF}}]},  # type: ignore[dict-item]
    ),
}
SERVERS = {
    "openai/qwen": FakeOpenAI,
    "hosted_vllm/x/y": FakeOpenAI,
    "openai/x/y": FakeOpenAI,  # by litellm
    "openai/responses/gpt-4.1": FakeOpenAI,
    "anthropic/claude-sonnet-4-5": FakeAnthropic,
}


@pytest.fixture(params=SERVERS)
def model(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    with SERVERS[request.param]() as server:
        address = server.root if isinstance(server, FakeAnthropic) else server.url
        config = ModelConfig(name=request.param, api_base=address, api_key="sk-test-0123456789", retries=0)
        yield make_model(config, token_counter()), server


@pytest.mark.parametrize("stream", [False, True])
async def test_every_adapter_sends_a_question_mark(model: tuple[Any, Any], stream: bool) -> None:
    asked, server = model
    for what, (messages, options) in REQUESTS.items():
        tab = Tab()
        show = (lambda delta: None) if stream else None
        await Door().call(asked, messages, options, role="teacher", purpose="act", bill=tab, on_delta=show)
        assert len(tab.calls) == 1, what
        sent = json.dumps(server.requests[-1].body, ensure_ascii=False)
        assert "half ? of" in sent, what
    assert HALF in REQUESTS["a text"][0][0]["content"]  # the caller's own messages stay as they are


async def test_a_verifier_is_asked_about_what_a_tool_cut_in_two(tmp_path: Path) -> None:
    with FakeOpenAI([Reply(texts=("7",))]) as server:
        async with build(
            teacher=ScriptedModel(["go"], name="teacher"),
            student=ScriptedModel([f"go {HALF}"], name="student"),
            verifier={
                "name": "openai/qwen", "api_base": server.url, "api_key": "k", "ask": "always", "read": "scale",
                "reject": 0.1, "retries": 0,
            },
            bank={"url": f"sqlite:///{tmp_path / 'a.db'}"},
            retrieval={"k": 0},
            router={"name": "threshold", "options": {"n": 3, "threshold": 0.6}},
        ) as cascade:  # fmt: skip
            answer = await cascade.episode("go").complete([{"role": "user", "content": f"Task: {HALF}"}])
    decision = answer.agentcascade
    assert (decision.answered_by, decision.failures) == ("student", ())
    assert decision.verification is not None
    assert decision.verification.score == 0.7
    quoted = server.requests[-1].body["messages"][-1]["content"]
    assert quoted.count("half ? of") == 2  # of the conversation and of the candidate


async def test_they_are_banked_embedded_and_shown(tmp_path: Path) -> None:
    student = ScriptedModel(["go"], name="student")
    async with build(
        teacher=ScriptedModel(["go"], name="teacher"),
        student=student,
        bank={"url": f"sqlite:///{tmp_path / 'a.db'}"},
        retrieval={"embedder": "hashing", "index": "exact"},
        router={"name": "threshold", "options": {"n": 3, "threshold": 0.6}},
    ) as cascade:
        assert cascade.bank is not None
        step = Step(observation=HALF, action="go")
        assert await cascade.bank.add(Trajectory(goal=HALF, steps=(step,), success=True))
        assert not await cascade.bank.add(Trajectory(goal=HALF, steps=(step,), success=True))
        answer = await cascade.episode(HALF).complete([{"role": "user", "content": HALF}])
    assert (answer.agentcascade.answered_by, answer.agentcascade.failures) == ("student", ())
    assert len(answer.agentcascade.demonstrations) == 1


TEXTS = st.text(st.characters(codec=None), max_size=6)
JSON = st.recursive(
    TEXTS | st.none() | st.integers(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXTS, part, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from(["role", "content", "x"]), JSON), max_size=3), JSON)
def test_whatever_is_sent_can_be_encoded_and_what_can_be_is_the_same_object(messages: list[Any], value: Any) -> None:
    options = {"tools": value}
    for given_, clean in ((messages, encodable_messages(messages)), (options, encodable_options(options))):
        json.dumps(clean, ensure_ascii=False).encode()
        try:
            json.dumps(given_, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            continue
        assert clean is given_
