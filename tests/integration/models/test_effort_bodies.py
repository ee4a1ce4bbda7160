"""Efforts over HTTP: the bodies that each family's provider is sent, refusals that are learnt, prefixes that stay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentcascade.assembly.components import make_model
from agentcascade.billing.worst_case import PlannedCall
from agentcascade.config.sections import ModelConfig
from agentcascade.models.effort import USUAL
from agentcascade.models.tokens import token_counter
from tests.fake_anthropic import KEY, FakeAnthropic
from tests.provider import Out, Provider, last, part, whole

ASK: list[dict[str, Any]] = [{"role": "user", "content": "Go."}]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


def answer(body: dict[str, Any], out: Out) -> None:
    if body.get("stream"):
        out.events([part({"content": "hello"}), part({}, "stop"), last()])
    elif "contents" in body:
        out.json(
            {
                "candidates": [{"content": {"parts": [{"text": "hello"}], "role": "model"}, "finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1, "totalTokenCount": 4},
            }
        )
    else:
        out.json(whole({"content": "hello"}))


def made(name: str, url: str, **more: Any) -> Any:
    settings: dict[str, Any] = {"api_base": url, "api_key": KEY, "retries": 0, "timeout_seconds": 20, **more}
    return make_model(ModelConfig(name=name, **settings), token_counter())


async def sent(name: str, effort: Any, streamed: bool = False, call: dict[str, Any] | None = None, **more: Any) -> Any:
    """The body that the provider of a model gets."""
    with Provider(answer) as provider:
        model = made(name, provider.root if "gemini" in name else provider.url, effort=effort, **more)
        if streamed:
            await model.stream(ASK, lambda delta: None, **(call or {}))
        else:
            await model.complete(ASK, **(call or {}))
    return provider.bodies[-1]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("name", "effort", "fields"),
    [
        ("openai/gpt-5.1", "none", {"reasoning_effort": "none"}),
        ("openai/gpt-5-mini", "minimal", {"reasoning_effort": "minimal"}),
        ("openai/o4-mini", "low", {"reasoning_effort": "low"}),
        ("openai/my-finetune", "medium", {"reasoning_effort": "medium"}),
        ("hosted_vllm/openai/gpt-oss-20b", "low", {"reasoning_effort": "low"}),
        ("hosted_vllm/Qwen/Qwen3-8B", "none", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("hosted_vllm/Qwen/Qwen3-8B", "low",
         {"chat_template_kwargs": {"enable_thinking": True}, "thinking_token_budget": 1024}),
        ("hosted_vllm/Qwen/Qwen3-8B", 300,
         {"chat_template_kwargs": {"enable_thinking": True}, "thinking_token_budget": 300}),
        ("hosted_vllm/Qwen/Qwen3-8B", "max", {"chat_template_kwargs": {"enable_thinking": True}}),
        ("hosted_vllm/deepseek-ai/DeepSeek-V3.1", "none", {"chat_template_kwargs": {"thinking": False}}),
        ("openai/responses/gpt-5.2", "xhigh", {"reasoning": {"effort": "xhigh"}}),
    ],
)  # fmt: skip
async def test_what_openais_and_ones_own_servers_are_sent(
    name: str, effort: Any, fields: dict[str, Any], streamed: bool
) -> None:
    body = await sent(name, effort, streamed)
    every = ("reasoning_effort", "reasoning", "thinking", "chat_template_kwargs", "thinking_token_budget")
    assert {field: body[field] for field in every if field in body} == fields


@pytest.mark.parametrize(
    ("name", "effort", "config"),
    [
        ("gemini/gemini-2.5-flash", "none", {"thinkingBudget": 0, "includeThoughts": False}),
        ("gemini/gemini-2.5-flash", "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini/gemini-2.5-pro", 2000, {"thinkingBudget": 2000, "includeThoughts": True}),
        ("gemini/gemini-3-pro-preview", "low", {"thinkingLevel": "low", "includeThoughts": True}),
    ],
)
async def test_what_gemini_is_sent(name: str, effort: Any, config: dict[str, Any]) -> None:
    body = await sent(name, effort)
    assert body["generationConfig"]["thinkingConfig"] == config


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("name", "effort", "thinking", "level"),
    [
        ("claude-sonnet-4-5", "none", None, None),
        ("claude-sonnet-4-5", "low", {"type": "enabled", "budget_tokens": 1024}, None),
        ("claude-sonnet-4-5", 5000, {"type": "enabled", "budget_tokens": 5000}, None),
        ("claude-opus-4-8", "none", None, None),
        ("claude-opus-4-8", "xhigh", {"type": "adaptive"}, "xhigh"),
        ("claude-opus-5", "none", {"type": "disabled"}, None),  # it thinks unasked
        ("claude-opus-5-5", "low", {"type": "adaptive"}, "low"),
    ],
)
async def test_what_anthropic_is_sent(
    name: str, effort: Any, thinking: dict[str, Any] | None, level: str | None, streamed: bool
) -> None:
    with FakeAnthropic() as fake:
        model = made(f"anthropic/{name}", fake.root, effort=effort, temperature=0.1, max_tokens=400)
        if streamed:
            await model.stream(ASK, lambda delta: None)
        else:
            await model.complete(ASK)
        forced = {"type": "function", "function": {"name": "look"}}
        await model.complete(ASK, tools=TOOLS, tool_choice=forced)
    body, with_tool = (request.body for request in fake.requests)
    assert (body.get("thinking"), (body.get("output_config") or {}).get("effort")) == (thinking, level)
    if thinking is not None and thinking["type"] != "disabled":
        assert "temperature" not in body
    else:
        assert body["temperature"] == 0.1
    if thinking is not None and "budget_tokens" in thinking:
        assert body["max_tokens"] > thinking["budget_tokens"]
        assert PlannedCall(model, ASK, {}, 1, token_counter()).output_tokens >= body["max_tokens"]
    assert (with_tool.get("thinking") or {}).get("type") in (None, "disabled")  # a tool may not be forced then
    assert not fake.refused


async def test_bodies_of_ones_own_are_joined() -> None:
    own = {"extra_body": {"chat_template_kwargs": {"language": "en"}, "min_p": 0.1}}
    body = await sent("hosted_vllm/Qwen/Qwen3-8B", "none", call={"extra_body": {"top_k": 5}}, options=own)
    assert body["chat_template_kwargs"] == {"language": "en", "enable_thinking": False}
    assert (body["min_p"], body["top_k"]) == (0.1, 5)


REFUSED = [
    ("hosted_vllm/Qwen/Qwen3-8B", "low", "thinking_token_budget",
     "thinking_token_budget is set but reasoning_config is not configured"),
    ("hosted_vllm/mine", "low", "reasoning_effort", "Unknown parameter: 'reasoning_effort'."),
    ("openai/responses/m", "low", "reasoning",
     "Unsupported parameter: 'reasoning.effort' is not supported with this model."),
    ("openai/some-model", "high", "temperature",
     "Unsupported value: 'temperature' does not support 0.1 with this model. Only the default (1) value is supported."),
]  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("name", "effort", "field", "said"), REFUSED)
async def test_what_only_the_endpoint_knows_is_learnt_from_its_first_refusal(
    name: str, effort: str, field: str, said: str, streamed: bool
) -> None:
    def refusing(body: dict[str, Any], out: Out) -> None:
        if field in body:
            out.json({"error": {"message": said, "type": "invalid_request_error", "code": 400}}, 400)
        else:
            answer(body, out)

    with Provider(refusing) as provider:
        model = made(name, provider.url, effort=effort, temperature=0.1)
        for _ in range(2):
            if streamed:
                await model.stream(ASK, lambda delta: None)
            else:
                await model.complete(ASK)
    assert [field in body for body in provider.bodies] == [True, False, False]
    assert bool(model.refused) == (field != "temperature")


async def test_claude_that_takes_no_budget_after_all_thinks_as_it_likes() -> None:
    def script(request: Any) -> Any:
        from tests.fake_anthropic import Reply

        if "thinking" in request.body:
            said = '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive"'
            return Reply(status=400, error=("invalid_request_error", said))
        return Reply()

    with FakeAnthropic(script) as fake:
        model = made("anthropic/claude-sonnet-4-5", fake.root, effort="high")
        await model.complete(ASK)
        await model.complete(ASK)
    assert ["thinking" in request.body for request in fake.requests] == [True, False, False]
    assert model.refused == {"thinking"}


async def test_a_share_is_of_what_is_usual_and_nothing_is_said_while_nobody_knows() -> None:
    with Provider(answer) as provider:
        model = made("hosted_vllm/Qwen/Qwen3-8B", provider.url, effort="0.5x")
        await model.complete(ASK)
        await model.complete(ASK, **{USUAL: 900.0})
    assert model.name == "hosted_vllm/Qwen/Qwen3-8B@0.5x"
    first, second = provider.bodies
    assert "chat_template_kwargs" not in first
    assert second["thinking_token_budget"] == 450
    assert "usual" not in json.dumps(second)


@pytest.mark.parametrize("name", ["hosted_vllm/Qwen/Qwen3-8B", "openai/gpt-5.1", "anthropic/claude-opus-4-8"])
async def test_efforts_of_one_model_share_every_byte_of_the_prompt(name: str) -> None:
    prompts = set()
    for effort in ("none", "low", "high"):
        if name.startswith("anthropic/"):
            with FakeAnthropic() as fake:
                await made(name, fake.root, effort=effort).complete(ASK, tools=TOOLS)
            body = fake.requests[-1].body
        else:
            with Provider(answer) as provider:
                await made(name, provider.url, effort=effort).complete(ASK, tools=TOOLS)
            body = provider.bodies[-1]
        prompts.add(json.dumps([body.get("system"), body["messages"], body["tools"]]))
    assert len(prompts) == 1
