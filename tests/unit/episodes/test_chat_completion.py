"""Chat completions are the objects that OpenAI's own `construct` would make of the same fields."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.episodes.responses import CascadeCompletion, as_json, chat_completion
from agentcascade.types import Completion, Decision, Usage

CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "shelf"}'}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "assistant", "content": "go north"},
    {"content": None},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "assistant", "content": "", "refusal": "no", "reasoning_content": "hm"},
]
FIELDS: list[dict[str, Any]] = [
    {},
    {"service_tier": "flex", "system_fingerprint": "fp_1", "id": "theirs", "provider": "somebody"},
    {"citations": ["https://example.org"], "moderation": {"results": []}, "seconds": 1.5},
]
CHOICE_FIELDS: list[dict[str, Any]] = [
    {},
    {"logprobs": {"content": [{"token": "go", "logprob": -0.1, "bytes": None, "top_logprobs": []}], "refusal": None}},
]


@given(
    st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=3),
    st.sampled_from(FIELDS),
    st.sampled_from(CHOICE_FIELDS),
    st.integers(0, 9),
)
def test_a_completion_is_what_openais_construct_makes_of_its_json(
    messages: list[dict[str, Any]], fields: dict[str, Any], choice: dict[str, Any], tokens: int
) -> None:
    completion = Completion(
        messages=tuple(messages),
        usage=Usage(input=tokens, output=2, reasoning=1),
        model="gpt-4.1-mini",
        fields=fields,
        choice_fields=(choice,),
    )
    decision = Decision(episode="ep", step=0, mode="teacher", answered_by="teacher", reason="mode teacher")
    made = chat_completion(completion, messages, decision)
    expected = CascadeCompletion.construct(None, **as_json(completion, messages, decision, decision))
    assert made.agentcascade is decision
    assert made.model_dump(exclude={"created"}, exclude_none=True) == expected.model_dump(
        exclude={"created"}, exclude_none=True
    )
    assert made.model_extra == expected.model_extra
    assert [type(c.message.tool_calls[0]) for c in made.choices if c.message.tool_calls] == [
        type(c.message.tool_calls[0]) for c in expected.choices if c.message.tool_calls
    ]
    assert made.usage == made.model_copy(deep=True).usage
    assert made.to_json()


@pytest.mark.parametrize("name", ["refusal", "annotations", "audio", "function_call", "tool_calls"])
def test_fields_that_a_plain_answer_lacks_are_none(name: str) -> None:
    completion = Completion(messages=({"role": "assistant", "content": "hi"},), usage=Usage(), model="m")
    decision = Decision(episode="ep", step=0, mode="teacher", answered_by="teacher", reason="mode teacher")
    made = chat_completion(completion, completion.messages, decision)
    assert getattr(made.choices[0].message, name) is None
    assert (made.service_tier, made.system_fingerprint) == (None, None)
