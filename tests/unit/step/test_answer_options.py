"""Options that only the teacher can honour go to it, or the caller is told; what a provider has not is named."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from openai.resources.chat.completions import Completions

from agentcascade import ScriptedModel, build
from agentcascade.errors import InvalidRequest
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.openai import OpenAIModel
from agentcascade.models.responses import ResponsesModel
from agentcascade.server.wire import OPTIONS, PROXY_FIELDS
from agentcascade.step.answer_options import ESSENTIAL, TEACHERS_ALONE, check_essential, dropped

ASK = [{"role": "user", "content": "hi"}]
ASKING: dict[str, Any] = {
    "logprobs": True, "top_logprobs": 2, "functions": [{"name": "look"}], "function_call": "auto",
    "logit_bias": {"5": 1}, "audio": {"voice": "x"}, "modalities": ["audio"], "web_search_options": {},
    "moderation": {"mode": "block"},
}  # fmt: skip


def cascade(**more: Any) -> Any:
    models = {"teacher": ScriptedModel(["teacher"]), "student": ScriptedModel(["student"] * 9)} | more
    return build(**models, retrieval={"k": 0}, bank={"url": "sqlite:///:memory:"}, actions={"format": "text"})


@pytest.mark.parametrize("name", TEACHERS_ALONE)
async def test_what_no_student_honours_is_the_teachers(name: str) -> None:
    async with cascade() as built:
        answer = await built.episode().complete(ASK, **{name: ASKING[name]})
        assert answer.agentcascade.reason == f"{name}: the teacher's alone"
        assert (await built.episode().complete(ASK, **{name: None})).agentcascade.answered_by == "student"
    async with cascade(teacher=None, mode="student") as alone:
        with pytest.raises(InvalidRequest, match=name):
            await alone.episode().complete(ASK, **{name: ASKING[name]})


@pytest.mark.parametrize(("name", "value"), [("logprobs", False), ("modalities", ["text"]), ("functions", [])])
async def test_what_asks_for_nothing_leaves_the_student_its_turn(name: str, value: Any) -> None:
    async with cascade() as built:
        assert (await built.episode().complete(ASK, **{name: value})).agentcascade.answered_by == "student"


def test_what_a_provider_has_not_is_named() -> None:
    claude, gpt = LiteLLMModel("anthropic/claude-sonnet-4-5"), LiteLLMModel("openai/gpt-5")
    assert dropped(claude, {"logprobs": True, "temperature": 0.5, "verbosity": "low"}) == ["logprobs", "verbosity"]
    for model, option in ((claude, "logprobs"), (claude, "functions"), (gpt, "stop"), (gpt, "web_search_options")):
        with pytest.raises(InvalidRequest, match=option):
            check_essential(model, {option: ASKING.get(option, ["x"])})
    check_essential(claude, {"verbosity": "low", "seed": 5, "logprobs": False})
    assert dropped(OpenAIModel("openai/gpt-4.1", api_key="k"), {"top_k": 5, "seed": 5}) == ["top_k"]
    assert dropped(OpenAIModel("openai/x", api_base="http://localhost:1", api_key="k"), {"top_k": 5}) == []
    assert dropped(ResponsesModel("openai/responses/m", api_key="k"), {"seed": 5, "stop": ["x"]}) == ["seed"]


def test_every_parameter_of_the_chat_api_has_its_place() -> None:
    parameters = set(inspect.signature(Completions.create).parameters) - {"self", "timeout"}
    transport = {"extra_headers", "extra_query", "extra_body"}
    to_any_body = {"moderation", "prompt_cache_options"}
    """Passed on in the body as they are, like every parameter that a provider has and we do not know."""
    assert parameters - transport <= {*OPTIONS, *PROXY_FIELDS, *to_any_body}
    assert set(OPTIONS) | {"moderation", "tools"} >= ESSENTIAL
