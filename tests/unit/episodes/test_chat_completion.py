"""Chat completions are the objects that OpenAI's own `construct` would make of the same fields."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import BaseModel
from openai.types.chat import ChatCompletion, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from openai.types.completion_usage import CompletionUsage

from agentcascade.episodes.response_json import as_json
from agentcascade.episodes.responses import CascadeCompletion, _of_values, _plain_message, chat_completion
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


ANY: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | st.sampled_from([[], {}, [1]])
)
FUNCTIONS = st.fixed_dictionaries({"name": st.text(), "arguments": st.text()}) | st.dictionaries(
    st.sampled_from(["name", "arguments", "strict"]), ANY
)
CALLS = st.fixed_dictionaries({"id": st.text(), "type": st.just("function"), "function": FUNCTIONS}) | st.dictionaries(
    st.sampled_from(["id", "type", "function", "index", "custom"]), ANY | FUNCTIONS | st.just("custom")
)
FIELD = st.sampled_from(["content", "refusal", "annotations", "audio", "function_call", "tool_calls", "thought"])


@given(
    st.fixed_dictionaries({"role": st.just("assistant")}, optional={"tool_calls": st.lists(CALLS, max_size=3)}),
    st.dictionaries(FIELD, ANY, max_size=4),
)
def test_a_message_that_is_made_without_a_walk_is_what_one_makes(said: dict[str, Any], more: dict[str, Any]) -> None:
    message = {**more, **said}
    made, expected = _plain_message(message), ChatCompletionMessage.construct(None, **message)
    if made is None:
        return
    assert repr(made) == repr(expected), "with the classes of what is in it"
    assert (made, made.__dict__, made.model_extra) == (expected, expected.__dict__, expected.model_extra)
    assert made.model_fields_set == expected.model_fields_set
    if "tool_calls" in said:
        both = zip(made.tool_calls or (), expected.tool_calls or (), strict=True)
        assert all(ours.model_fields_set == theirs.model_fields_set for ours, theirs in both)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "x", "annotations": [], "refusal": None},
        {"role": "assistant", "content": None, "tool_calls": [CALL, CALL], "reasoning_content": "hm"},
    ],
)
def test_what_openai_answers_as_a_rule_is_made_without_a_walk(message: dict[str, Any]) -> None:
    said = copy.deepcopy(message)
    made = _plain_message(message)
    assert made is not None
    for field in (made.annotations, made.tool_calls):
        if field is not None:
            field.clear()
    assert message == said, "what a program does to its answer is not recorded"


USAGE = {"total_tokens": 3, "prompt_tokens": 2, "completion_tokens": 1}
VALUES: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (ChatCompletionMessage, {"content": "x", "role": "assistant"}),
    (ChatCompletionMessage, {"content": "x"}),
    (ChatCompletionMessage, {"role": "assistant", "tool_calls": None, "unheard_of": [1], "audio": None}),
    (Choice, {"index": 0, "logprobs": None, "finish_reason": "stop", "message": "any"}),
    (CompletionUsage, USAGE),
    (ChatCompletion, {"model": "m", "id": "1", "choices": [], "created": 1, "object": "chat.completion", "z": 1}),
    (CascadeCompletion, {"agentcascade": None, "usage": None}),
]


@pytest.mark.parametrize(("kind", "values"), VALUES)
def test_objects_are_what_pydantics_own_construct_makes(kind: type[BaseModel], values: dict[str, Any]) -> None:
    made, expected = _of_values(kind, **values), super(BaseModel, kind).model_construct(**values)
    assert made == expected
    assert [*made.__dict__] == [*expected.__dict__], "in the same order"
    for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
        assert getattr(made, name) == getattr(expected, name), name
    assert made.model_dump_json(warnings=False) == expected.model_dump_json(warnings=False)
    other = _of_values(kind, **values)
    other.__dict__["content"] = "y"
    assert _of_values(kind, **values) == expected, "what is done to one changes no other"
    assert pickle.loads(pickle.dumps(made)) == made == copy.deepcopy(made)
