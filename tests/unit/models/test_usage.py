"""Usage reports of every provider, as they really look."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentcascade.models.tokens import token_counter
from agentcascade.models.usage import MAX_TOKENS, usage_from, usage_or_estimate
from agentcascade.types import Usage

CASES: dict[str, tuple[dict[str, Any], Usage]] = {
    "openai chat: prompt includes cached, completion includes reasoning": (
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 192, "accepted_prediction_tokens": 0},
        },
        Usage(input=86, cached_input=1920, output=108, reasoning=192),
    ),
    "openai responses: input includes cached": (
        {
            "input_tokens": 328,
            "input_tokens_details": {"cached_tokens": 128},
            "output_tokens": 52,
            "output_tokens_details": {"reasoning_tokens": 50},
            "total_tokens": 380,
        },
        Usage(input=200, cached_input=128, output=2, reasoning=50),
    ),
    "anthropic: input excludes cache reads and writes": (
        {
            "input_tokens": 21,
            "cache_creation_input_tokens": 556,
            "cache_read_input_tokens": 188_086,
            "cache_creation": {"ephemeral_5m_input_tokens": 456, "ephemeral_1h_input_tokens": 100},
            "output_tokens": 393,
        },
        Usage(input=21, cached_input=188_086, cache_write=456, cache_write_1h=100, output=393),
    ),
    "anthropic without caching": ({"input_tokens": 9, "output_tokens": 3}, Usage(input=9, output=3)),
    "litellm for anthropic: prompt includes both, details repeat them": (
        {
            "prompt_tokens": 1620,
            "completion_tokens": 40,
            "cache_creation_input_tokens": 1000,
            "cache_read_input_tokens": 500,
            "prompt_tokens_details": {
                "cached_tokens": 500,
                "cache_creation_tokens": 1000,
                "cache_creation_token_details": {"ephemeral_5m_input_tokens": 700, "ephemeral_1h_input_tokens": 300},
                "text_tokens": 120,
            },
            "completion_tokens_details": {"reasoning_tokens": 0, "text_tokens": 40},
        },
        Usage(input=120, cached_input=500, cache_write=700, cache_write_1h=300, output=40),
    ),
    "deepseek": (
        {
            "prompt_tokens": 100,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
            "completion_tokens": 7,
        },
        Usage(input=36, cached_input=64, output=7),
    ),
    "vllm: details are null": (
        {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17, "prompt_tokens_details": None},
        Usage(input=12, output=5),
    ),
    "more cached than prompt": (
        {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 99}},
        Usage(cached_input=10, output=1),
    ),
    "more reasoning than completion": (
        {"prompt_tokens": 1, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 9}},
        Usage(input=1, reasoning=5),
    ),
    "negative and not a number": (
        {"prompt_tokens": -4, "completion_tokens": float("nan"), "prompt_tokens_details": {"cached_tokens": None}},
        Usage(),
    ),
}


@pytest.mark.parametrize(("raw", "expected"), CASES.values(), ids=CASES.keys())
def test_reports(raw: dict[str, Any], expected: Usage) -> None:
    assert usage_from(raw) == expected


def test_pydantic_objects() -> None:
    class Details(BaseModel):
        cached_tokens: int = 4

    class Report(BaseModel):
        prompt_tokens: int = 10
        completion_tokens: int = 2
        prompt_tokens_details: Details = Details()

    assert usage_from(Report()) == Usage(input=6, cached_input=4, output=2)


@pytest.mark.parametrize("raw", [None, {}, {"total_tokens": 5}, {"prompt_tokens": None}, "10 tokens"])
def test_a_missing_report_is_not_zero_tokens(raw: object) -> None:
    assert usage_from(raw) is None


numbers = st.one_of(st.none(), st.integers(-10, 10_000), st.floats(), st.text(max_size=3))


@given(prompt=numbers, cached=numbers, written=numbers, hour=numbers, completion=numbers, reasoning=numbers)
def test_whatever_is_reported_classes_are_disjoint_and_never_negative(
    prompt: Any, cached: Any, written: Any, hour: Any, completion: Any, reasoning: Any
) -> None:
    usage = usage_from(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": written,
            "cache_creation": {"ephemeral_1h_input_tokens": hour},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    )
    if usage is not None and isinstance(prompt, int) and isinstance(completion, int):
        assert usage.prompt == max(0, prompt)
        assert usage.completion == max(0, completion)


REPORTS = st.none() | st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens", "cost"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.lists(st.integers(), max_size=2),
)


@given(REPORTS, st.text("ab c", max_size=400), st.text("xy z", max_size=400))
def test_no_report_makes_an_answer_free(report: Any, asked: str, said: str) -> None:
    usage, estimated = usage_or_estimate(
        report, [{"role": "user", "content": asked}], [{"role": "assistant", "content": said}]
    )
    received = token_counter()(said)
    assert usage.prompt > 0 or not asked
    assert usage.prompt < MAX_TOKENS
    assert usage.completion < MAX_TOKENS
    assert usage.completion * 4 >= received
    assert estimated or (usage_from(report) == usage)


@pytest.mark.parametrize(
    "thought",
    [
        {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "QmFz" * 500}]},
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "ZTY0" * 500}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "QUJD" * 500, "id": "rs_1" * 20}]},
    ],
)
def test_a_signature_is_no_text_that_a_report_has_to_account_for(thought: dict[str, Any]) -> None:
    answer = {"role": "assistant", "content": "It is on the bed.", **thought}
    report = {"prompt_tokens": 12, "completion_tokens": 20, "total_tokens": 32}
    asked = [{"role": "user", "content": "Where is it?"}]
    assert usage_or_estimate(report, asked, [answer]) == (Usage(input=12, output=20), False)
    assert usage_or_estimate(None, [], [answer])[0].completion > 100, "without a report it may all have been paid for"


def test_a_report_that_can_be_is_believed() -> None:
    report = {"prompt_tokens": 5, "completion_tokens": 0}
    assert usage_or_estimate(report, [{"role": "user", "content": "go"}], []) == (Usage(input=5), False)
    thought = {"role": "assistant", "content": None, "reasoning": "hm " * 50, "reasoning_content": "hm " * 50}
    usage, estimated = usage_or_estimate({"prompt_tokens": 5}, [], [thought])
    assert (usage.prompt, estimated) == (5, True)
    assert 50 <= usage.completion <= 110, "the same thoughts under two names are counted once"
