"""Prompt caching over HTTP: a provider with Anthropic's rules bills what our requests really hit, by every adapter."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from agentcascade import LiteLLMModel, ScriptedModel, build
from agentcascade.models.anthropic import AnthropicModel
from agentcascade.types import Step, Trajectory
from tests.fake_openai import FakeOpenAI
from tests.prompt_caches import CachingProvider, anthropic_blocks

NAME = "anthropic/claude-sonnet-4-5"
SYSTEM = "You run errands in a house. " + "Rules are rules. " * 400
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def teacher(server: FakeOpenAI, adapter: Any = LiteLLMModel) -> Any:
    return adapter(NAME, api_base=server.root, api_key="k", retries=0)


def turns(steps: int, system: str = SYSTEM) -> list[dict[str, Any]]:
    """A conversation of so many steps, each a call of a tool with its result; answers empty but for the call."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}, {"role": "user", "content": "Tidy up."}]
    for i in range(steps):
        call = {"id": f"call{i:05}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": f"Room {i}. " + "A shelf. " * 60})
    return messages


async def play(
    cascade: Any, steps: range, *, episode: str = "ep", system: str = SYSTEM, tools: Any = None
) -> list[Any]:
    episodes = cascade.episode(id=episode, goal="tidy up")
    for i in steps:
        await episodes.complete(turns(i, system), tools=tools or [TOOL])
    return list(episodes.decisions)


@pytest.mark.parametrize("adapter", [LiteLLMModel, AnthropicModel])
@pytest.mark.parametrize("student", [False, True], ids=["teacher", "student"])
async def test_every_step_reads_what_the_one_before_sent(student: bool, adapter: Any) -> None:
    provider = CachingProvider()
    with FakeOpenAI(provider) as server:
        models = {"student" if student else "teacher": teacher(server, adapter)}
        off = {
            **models,
            "mode": "student" if student else "teacher",
            "retrieval": {"k": 0},
            "bank": {"url": "sqlite:///:memory:"},
        }
        with build(**off) as cascade:
            decisions = await play(cascade, range(8))
        bodies = [request.body for request in server.requests]
        first, *others = provider.usages
        assert (first["cache_read_input_tokens"], first["cache_creation_input_tokens"] > 1024) == (0, True)
        for before, usage, body in zip(provider.usages, others, bodies[1:]):
            total = before["cache_read_input_tokens"] + before["cache_creation_input_tokens"]
            assert usage["cache_read_input_tokens"] == total, "all that was sent before"
            assert usage["input_tokens"] <= 1
            assert len(anthropic_blocks(body)[1]) <= 4
        billed = decisions[-1].calls[0].usage
        assert (billed.cached_input, billed.cache_write) == (
            provider.usages[-1]["cache_read_input_tokens"],
            provider.usages[-1]["cache_creation_input_tokens"],
        )
        plain = CachingProvider()
        server.script = plain
        server.requests.clear()
        with build(**off, caching=False) as cascade:
            uncached = await play(cascade, range(8))
        assert sum(d.dollars for d in decisions) < Decimal("0.5") * sum(d.dollars for d in uncached)


@pytest.mark.parametrize("adapter", [LiteLLMModel, AnthropicModel])
async def test_caching_off_sends_what_the_caller_says_byte_for_byte(adapter: Any) -> None:
    with FakeOpenAI(CachingProvider()) as server:
        model = teacher(server, adapter)
        await model.complete(turns(3), tools=[TOOL])
        with build(teacher=model, mode="teacher", caching=False, bank={"url": "sqlite:///:memory:"}) as cascade:
            await cascade.episode(id="e", goal="g").complete(turns(3), tools=[TOOL])
        bare, ours = (json.dumps(request.body) for request in server.requests)
        assert bare == ours


async def test_the_callers_own_breakpoints_are_the_only_ones() -> None:
    """Five are refused, as many a gateway found out that added its own to a client's."""
    provider = CachingProvider()
    own = turns(6)
    for i in (0, 3, 7):
        own[i] = {
            **own[i],
            "content": [
                {"type": "text", "text": own[i]["content"], "cache_control": {"type": "ephemeral", "ttl": "1h"}}
            ],
        }
    marked = [{**TOOL, "cache_control": {"type": "ephemeral"}}]
    with (
        FakeOpenAI(provider) as server,
        build(teacher=teacher(server), mode="teacher", bank={"url": "sqlite:///:memory:"}) as cascade,
    ):
        await cascade.episode(id="e", goal="g").complete(own, tools=marked)
        sent = json.dumps(server.requests[0].body)
        assert (sent.count("cache_control"), sent.count('"ttl": "1h"')) == (4, 3)


async def test_a_deferral_after_many_student_steps_still_finds_what_the_teacher_wrote() -> None:
    """A provider looks back over twenty blocks alone: an agent comes back after more."""
    provider = CachingProvider()
    student = ScriptedModel(lambda messages, i: "look" if 2 <= len(messages) // 2 < 22 else f"look {i}")
    with (
        FakeOpenAI(provider) as server,
        build(
            teacher=LiteLLMModel(NAME, api_base=server.root, api_key="k"),
            student=student,
            retrieval={"k": 0},
            router={"name": "unanimity", "options": {"n": 2}},
            bank={"url": "sqlite:///:memory:"},
        ) as cascade,
    ):
        decisions = await play(cascade, range(24))
    asked = [d.step for d in decisions if d.answered_by == "teacher"]
    assert asked[0] == 0
    assert asked[1] > 20, "the student took the steps in between"
    before, after = provider.usages[:2]
    assert after["cache_read_input_tokens"] == before["cache_creation_input_tokens"]


async def test_prompts_that_are_never_read_again_are_written_no_more() -> None:
    """A clock at the head of the system prompt: written at every step, read at none."""
    provider = CachingProvider()
    with (
        FakeOpenAI(provider) as server,
        build(teacher=teacher(server), mode="teacher", bank={"url": "sqlite:///:memory:"}) as cascade,
    ):
        for i in range(60):
            await play(cascade, range(1), episode=f"ep{i}", system=f"It is 15:09:{i}. {SYSTEM}")
    written = [usage["cache_creation_input_tokens"] > 0 for usage in provider.usages]
    assert all(written[:20])
    assert sum(written[30:]) <= 6, "tried again in a share of the episodes"
    assert not any(usage["cache_read_input_tokens"] for usage in provider.usages)


async def test_a_second_wave_reads_all_that_the_first_has_sent() -> None:
    """An endpoint without n is asked for samples in waves: the whole prompt, what was added to it too, comes again."""
    provider = CachingProvider(lambda request: "look")
    with (
        FakeOpenAI(provider) as server,
        build(
            teacher=ScriptedModel(["go"]),
            student=teacher(server, AnthropicModel),
            retrieval={"k": 1, "embedder": "hashing"},
            router={"name": "unanimity", "options": {"n": 3}},
            bank={"url": "sqlite:///:memory:"},
        ) as cascade,
    ):
        step = Step(observation="a shelf " * 200, action="look")
        assert cascade.bank is not None
        await cascade.bank.add_many([Trajectory(goal="tidy up", steps=(step,), success=True)])
        await play(cascade, range(1))
    first, *others = provider.usages
    assert b"# Examples" in b"".join(anthropic_blocks(server.requests[0].body)[0])
    assert len(others) == 2
    for usage in others:
        assert usage["cache_read_input_tokens"] == first["cache_creation_input_tokens"] > 1024
        assert usage["input_tokens"] <= 1
