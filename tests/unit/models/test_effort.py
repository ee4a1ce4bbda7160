"""Efforts: what a configuration may say, which families know which, and what an unknown one is told."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentcascade.assembly.components import make_model
from agentcascade.config.effort import LEVELS, Effort, effort_of, name_at, parse_effort, plain_name
from agentcascade.config.sections import ModelConfig
from agentcascade.errors import ConfigError
from agentcascade.models.effort import USUAL, at_effort
from agentcascade.models.pricing import PriceTable
from agentcascade.models.quirks import model_quirks
from agentcascade.models.thinking_quirks import thinker
from agentcascade.models.tokens import token_counter
from tests.cascades import Model

EFFORTS = st.one_of(
    st.sampled_from(LEVELS).map(Effort),
    st.integers(1, 1_000_000).map(lambda n: Effort(tokens=n)),
    st.integers(1, 10_000).map(lambda n: Effort(share=n / 100)),
)
LOW_TO_HIGH = ("low", "medium", "high")


def model(name: str, **more: Any) -> Any:
    config = ModelConfig(name=name, api_base="http://127.0.0.1:9/v1", api_key="sk-test-0123456789", **more)
    return make_model(config, token_counter())


@given(EFFORTS, st.sampled_from(["openai/m", "vertex_ai/claude-3-5-sonnet@20240620", "a@b", "m@high-table"]))
def test_a_name_at_an_effort_is_read_back(effort: Effort, name: str) -> None:
    named = name_at(name, effort)
    assert plain_name(named) == name
    assert parse_effort(str(effort)) == effort_of(named) == effort
    assert effort_of(name) is None


@given(st.one_of(st.text(max_size=12), st.integers(), st.floats(), st.booleans(), st.none()))
def test_whatever_is_said_is_an_effort_or_a_value_error(setting: object) -> None:
    with suppress(ValueError):
        effort = parse_effort(setting)
        assert parse_effort(str(effort)) == effort


@pytest.mark.parametrize("wrong", ["hgih", 0, -5, True, "0x", "1e5x", "200x", "²", 10**9, ["low"]])
def test_what_is_no_effort_names_the_field_and_what_is(wrong: object) -> None:
    with pytest.raises(ValidationError, match=r"effort\n.*an effort is one of none, minimal, low"):
        ModelConfig(name="openai/gpt-5.1", effort=wrong)


@pytest.mark.parametrize("name", ["openai/gpt-5.1", "openai/gpt-4.1", "anthropic/claude-opus-4-7", "openai/unheard-of"])
def test_a_share_that_cannot_be_had_is_named_as_it_was_said(name: str) -> None:
    with pytest.raises(ConfigError) as told:
        model(name, effort="0.5x")
    assert str(told.value).startswith("effort 0.5x: ")
    assert "16384" not in str(told.value)
    own = Model("own", ["x"])
    with pytest.raises(ConfigError, match=r"effort 0\.5x"):
        at_effort(own, Effort(share=0.5))


def test_yaml_reads_off_as_a_boolean() -> None:
    assert ModelConfig(name="m", effort=False).effort == "none"


@pytest.mark.parametrize(
    ("name", "levels", "budgets"),
    [
        ("openai/gpt-5-mini", ("minimal", *LOW_TO_HIGH), False),
        ("openai/gpt-5.1", ("none", *LOW_TO_HIGH), False),
        ("azure/gpt-5.2", ("none", *LOW_TO_HIGH, "xhigh"), False),
        ("openai/responses/gpt-5.4-mini", ("none", *LOW_TO_HIGH, "xhigh"), False),
        ("openai/gpt-5.1-codex-max", (*LOW_TO_HIGH, "xhigh"), False),
        ("openai/gpt-5-codex", LOW_TO_HIGH, False),
        ("openai/gpt-5-pro", ("high",), False),
        ("openai/o4-mini", LOW_TO_HIGH, False),
        ("openrouter/openai/gpt-oss-120b", LOW_TO_HIGH, False),
        ("anthropic/claude-sonnet-4-5", ("none", *LOW_TO_HIGH, "xhigh", "max"), True),
        ("anthropic/claude-opus-4-6", ("none", *LOW_TO_HIGH, "max"), True),
        ("bedrock/us.anthropic.claude-opus-4-7", ("none", *LOW_TO_HIGH, "xhigh", "max"), False),
        ("anthropic/claude-opus-5", ("none", *LOW_TO_HIGH, "xhigh", "max"), False),
        ("anthropic/claude-opus-5-5", (*LOW_TO_HIGH, "xhigh", "max"), False),
        ("gemini/gemini-2.5-flash", ("none", "minimal", *LOW_TO_HIGH), True),
        ("vertex_ai/gemini-2.5-pro", ("minimal", *LOW_TO_HIGH), True),
        ("gemini/gemini-3-pro-preview", ("low", "high"), False),
        ("hosted_vllm/Qwen/Qwen3-8B", LEVELS, True),
        ("hosted_vllm/deepseek-ai/DeepSeek-V3.1", LEVELS, True),
        *[(name, (), False) for name in ("openai/gpt-4o", "openai/gpt-5-chat-latest", "gemini/gemini-2.0-flash",
                                         "anthropic/claude-3-5-haiku-20241022", "hosted_vllm/Qwen/Qwen2.5-7B-Instruct",
                                         "hosted_vllm/Qwen/Qwen3-30B-A3B-Instruct-2507")],
    ],
)  # fmt: skip
def test_which_efforts_a_family_knows(name: str, levels: tuple[str, ...], budgets: bool) -> None:
    known = thinker(name)
    assert (known.levels, known.budgets) == (levels, budgets)
    assert known.dialect is not None


@pytest.mark.parametrize(
    ("name", "effort", "said"),
    [
        ("openai/gpt-5.1", "minimal", r"'openai/gpt-5.1' does not know it \(it knows none, low, medium, high\)"),
        ("openai/gpt-5.1", 2000, "takes no number of tokens; it knows none"),
        ("openai/gpt-4o", "low", "'openai/gpt-4o' does not think, so it has no effort: leave it out"),
        ("anthropic/claude-sonnet-4-5", 500, "thinks with 1024 tokens or more"),
        ("anthropic/claude-opus-4-8", "0.5x", "takes no number of tokens"),
        ("gemini/gemini-2.5-pro", "none", "it knows minimal, low"),  # litellm would hide the thoughts, which are billed
        ("groq/llama-3.3-70b-versatile", "high", "nothing that asks 'groq/llama-3.3-70b-versatile' passes"),
    ],
)
def test_an_effort_that_a_model_does_not_know_is_an_error_when_it_is_made(name: str, effort: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        model(name, effort=effort)


def test_a_model_that_says_nothing_of_efforts_has_none() -> None:
    with pytest.raises(ConfigError, match="no attribute `efforts`"):
        at_effort(Model("scripted", "look"), Effort("high"))


def test_price_and_quirks_are_those_of_the_plain_name() -> None:
    at_high, plain = model("anthropic/claude-sonnet-4-5", effort="high"), model("anthropic/claude-sonnet-4-5")
    assert at_high.name == "anthropic/claude-sonnet-4-5@high"
    assert model_quirks(at_high.name) == model_quirks(plain.name)
    assert PriceTable().lookup(at_high.name) == PriceTable().lookup(plain.name) is not None
    assert at_high.at(at_high.effort) is at_high
    assert at_high.at(Effort("low")).model is at_high.model


class Own:
    """A model of somebody's own that says which efforts it knows."""

    name, supports_n, efforts = "own", True, ("none", "high")

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def complete(self, messages: Any, **options: Any) -> Any:
        self.asked.append(options)


async def test_ones_own_model_says_what_it_knows_and_a_calls_own_word_wins() -> None:
    own: Any = Own()
    at_high: Any = at_effort(own, Effort("high"))
    assert not hasattr(at_high, "stream")
    await at_high.complete([], n=2)
    await at_high.complete([], reasoning_effort="low", **{USUAL: 50.0})
    assert own.asked == [{"n": 2, "reasoning_effort": "high"}, {"reasoning_effort": "low"}]
    with pytest.raises(ConfigError, match=r"it knows none, high"):
        at_effort(own, Effort("medium"))
