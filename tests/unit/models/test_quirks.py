"""The rows of `quirks.MODELS`, by the names of models that they are for: a new row is one case here."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from agentcascade.models.quirks import MODELS, ModelQuirks, model_quirks

DEFAULTS = ModelQuirks()
AT_AN_ADDRESS, TRANSLATED = "openai at an address", "translated"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mistral/mistral-large", {}),
        ("groq/llama-3.3-70b", {"supports_n": False}),
        ("groqish/llama", {}),
        ("anthropic/claude-sonnet-4-5", {"signs_thinking": True}),
        ("bedrock/anthropic.claude-3", {"signs_thinking": True, "inlines_references": True}),
        ("vertex_ai/gemini-2.5-pro", {"inlines_references": True}),
        ("openai/gpt-4.1-mini", {"token_factor": Decimal(1), "wire_format": "openai"}),
        ("openai/gpt-3.5-turbo", {"token_factor": Decimal(1), "wire_format": "openai"}),
        ("openai/qwen", {"token_factor": Decimal(1), "wire_format": AT_AN_ADDRESS}),
        ("openai/Qwen/Qwen3-8B", {"token_factor": Decimal(1)}),
        ("openai/gpt-4o-audio-preview", {"token_factor": Decimal(1)}),
        ("openai/gpt-5-mini", {"token_factor": Decimal(1), "limit_parameter": "max_completion_tokens"}),
        ("azure/o3", {"token_factor": Decimal(1), "limit_parameter": "max_completion_tokens"}),
        ("openai/ft:gpt-4o-mini:us", {"token_factor": Decimal(1), "wire_format": "openai", "image_tokens": 48_169}),
        ("openrouter/openai/gpt-4o-mini", {"image_tokens": 48_169}),
        ("hosted_vllm/Qwen/Qwen3-8B", {"wire_format": AT_AN_ADDRESS, "base_url_variable": "HOSTED_VLLM_API_BASE",
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
