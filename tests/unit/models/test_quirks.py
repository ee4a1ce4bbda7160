"""The rows of `quirks.MODELS`, by the names of models that they are for: a new row is one case here."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from agentcascade.models.quirks import MODELS, ModelQuirks, model_quirks

DEFAULTS = ModelQuirks()
MARKED = {"prompt_cache": "marked"}
AUTOMATIC = {"prompt_cache": "automatic", "cache_block": 128, "cache_seconds": 600.0}
CLAUDE = {"signs_thinking": True, "wire_format": "messages"}
AT_AN_ADDRESS, TRANSLATED = "openai at an address", "translated"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mistral/mistral-large", {"user_after_tools": False}),
        ("cohere/command", {}),
        ("groq/llama-3.3-70b", {"supports_n": False}),
        ("groqish/llama", {}),
        ("anthropic/claude-sonnet-4-5", {**CLAUDE, **MARKED}),
        ("anthropic/claude-3-7-sonnet-20250219", {**CLAUDE, **MARKED}),
        ("anthropic/claude-sonnet-4-20250514", {**CLAUDE, **MARKED}),
        ("anthropic/claude-opus-4-8", {**CLAUDE, **MARKED, "thinks_adaptively": True}),
        ("anthropic/claude-fable-5", {**CLAUDE, **MARKED, "thinks_adaptively": True}),
        ("claude-opus-4-6", {"signs_thinking": True, "cache_minimum": 4096, "thinks_adaptively": True, **MARKED}),
        ("openrouter/anthropic/claude-haiku-4.5", {"signs_thinking": True, "cache_minimum": 4096, **MARKED}),
        ("openrouter.ai/anthropic/claude-3.5-haiku", {"signs_thinking": True, "cache_minimum": 2048, **MARKED}),
        ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", {"signs_thinking": True, **MARKED}),
        ("127.0.0.1/claude-sonnet-4-5", {"signs_thinking": True}),  # a gateway that may refuse marks
        ("gemini/gemini-3.5-flash", {"inlines_references": True, "cache_minimum": 4096}),
        ("deepseek/deepseek-chat", {"cache_minimum": 64, "cache_block": 64, "cache_seconds": 3600.0}),
        ("bedrock/anthropic.claude-3", {"signs_thinking": True, "inlines_references": True, **MARKED}),
        ("vertex_ai/gemini-2.5-pro", {"inlines_references": True, "cache_minimum": 2048}),
        ("openai/gpt-4.1-mini", {**AUTOMATIC, "token_factor": Decimal(1), "wire_format": "openai"}),
        ("openai/gpt-3.5-turbo", {**AUTOMATIC, "token_factor": Decimal(1), "wire_format": "openai"}),
        ("openai/qwen", {**AUTOMATIC, "token_factor": Decimal(1), "wire_format": AT_AN_ADDRESS}),
        ("openai/Qwen/Qwen3-8B", {**AUTOMATIC, "token_factor": Decimal(1)}),
        ("openai/gpt-4o-audio-preview", {**AUTOMATIC, "token_factor": Decimal(1)}),
        ("openai/gpt-5-mini", {**AUTOMATIC, "token_factor": Decimal(1), "limit_parameter": "max_completion_tokens"}),
        ("azure/o3", {**AUTOMATIC, "token_factor": Decimal(1), "limit_parameter": "max_completion_tokens"}),
        ("openai/ft:gpt-4o-mini:us", {**AUTOMATIC, "token_factor": Decimal(1), "wire_format": "openai",
                                      "image_tokens": 48_169}),
        ("openrouter/openai/gpt-4o-mini", {"image_tokens": 48_169}),
        ("hosted_vllm/Qwen/Qwen3-8B", {"cache_minimum": 16, "cache_block": 16, "cache_seconds": 600.0,
                                       "wire_format": AT_AN_ADDRESS, "base_url_variable": "HOSTED_VLLM_API_BASE",
                                       "api_key_variable": "HOSTED_VLLM_API_KEY"}),
    ],
)  # fmt: skip
def test_what_is_different_about_a_model(name: str, changes: dict[str, Any]) -> None:
    quirks = model_quirks(name)
    assert quirks.image_tokens[""] == changes.pop("image_tokens", DEFAULTS.image_tokens[""])
    for field, default in vars(DEFAULTS).items():
        if field != "image_tokens":
            assert getattr(quirks, field) == changes.get(field, default), field


def test_rows_change_what_there_is() -> None:
    for _, changes in MODELS:
        assert changes.keys() <= vars(DEFAULTS).keys()
