"""Options that Anthropic's API has not: said to be left out where an answer can do without them, else an error."""

from __future__ import annotations

from typing import Any

import pytest

from agentcascade import build
from agentcascade.errors import InvalidRequest
from agentcascade.models.anthropic import AnthropicModel
from agentcascade.step.answer_options import dropped
from tests.fake_anthropic import FakeAnthropic, Reply

ASK: list[Any] = [{"role": "user", "content": "Where is the mug?"}]


def claude(root: str) -> AnthropicModel:
    return AnthropicModel("anthropic/claude-any", api_base=root, api_key="k-0123456789", retries=0)


async def test_what_an_answer_must_hold_is_an_error_and_a_hint_is_listed() -> None:
    with FakeAnthropic() as fake:
        model = claude(fake.root)
        known = {"max_tokens": 5, "temperature": 0, "tools": [], "stop": ["x"], "thinking": {"type": "disabled"}}
        assert dropped(model, known) == []
        assert dropped(model, {"seed": 1, "presence_penalty": 0.5, "logit_bias": None}) == ["presence_penalty", "seed"]
        async with build(None, teacher=model, mode="teacher", retrieval={"k": 0}) as cascade:
            await cascade.episode().complete(ASK, seed=1)
            with pytest.raises(InvalidRequest, match="logprobs: anthropic/claude-any has no such parameter"):
                await cascade.episode().complete(ASK, logprobs=True)
    assert len(fake.requests) == 1


async def test_what_the_endpoint_was_seen_to_refuse_is_listed() -> None:
    """Newer models take no temperature: that is learnt from the first refusal."""
    words = "temperature: `temperature` is deprecated for this model."
    refusal = Reply(status=400, error=("invalid_request_error", words))
    with FakeAnthropic([refusal, Reply()]) as fake:
        model = claude(fake.root)
        assert dropped(model, {"temperature": 0.5}) == []
        await model.complete(ASK, temperature=0.5, max_tokens=9)
        assert model.refused == {"temperature"}
        assert dropped(model, {"temperature": 0.5}) == ["temperature"]
