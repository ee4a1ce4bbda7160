"""Tool exchanges across models: ids stay consistent, thinking goes only to who thought it, prefixes stay the same."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.models.deltas import split_into_deltas
from agentcascade.models.tool_call_ids import (
    ALPHABET,
    ToolCallIds,
    assign_ids,
    caller_of,
    ends_in_unthinking_calls,
    make_id,
    messages_for_model,
    open_exchange_owner,
    rename_stream_ids,
)
from agentcascade.types import Message, Role


def call(id: str, name: str = "look") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}}


def asked(*ids: str, **more: Any) -> Message:
    return {"role": "assistant", "content": None, "tool_calls": [call(i) for i in ids], **more}


def result(id: str, text: str = "ok") -> Message:
    return {"role": "tool", "tool_call_id": id, "content": text}


USER: Message = {"role": "user", "content": "go"}


def ids_of(messages: Sequence[Message]) -> tuple[list[str], list[str]]:
    """Ids of the calls and of the results, in order."""
    made = [c["id"] for m in messages for c in m.get("tool_calls") or ()]
    return made, [m["tool_call_id"] for m in messages if m["role"] == "tool"]


def test_an_answer_gets_ids_that_every_provider_takes_and_that_say_who_made_them() -> None:
    answer = asked("toolu_01", "toolu_02")
    for role in ("teacher", "student"):
        named = assign_ids(answer, role, "salt")
        made, _ = ids_of([named])
        assert len(set(made)) == 2
        assert all(re.fullmatch(rf"{role[0]}[0-9A-Za-z]{{8}}", i) for i in made)
        assert named == assign_ids(answer, role, "salt")
        assert named != assign_ids(answer, role, "other")
    assert ids_of([answer])[0] == ["toolu_01", "toolu_02"]


def test_an_answer_without_calls_is_left_alone() -> None:
    answer: Message = {"role": "assistant", "content": "hello"}
    assert assign_ids(answer, "teacher", "salt") is answer


def test_the_model_that_made_a_call_sees_its_own_id_again_and_the_other_sees_ours() -> None:
    ids = ToolCallIds()
    answer = asked("call__thought__AbC+/=")
    named = assign_ids(answer, "teacher", "salt")
    ids.remember(answer, named)
    (given,), _ = ids_of([named])
    conversation = [USER, named, result(given)]
    assert ids_of(messages_for_model(conversation, "teacher", ids)) == (["call__thought__AbC+/="],) * 2
    assert ids_of(messages_for_model(conversation, "student", ids)) == ([given], [given])
    assert ids_of(messages_for_model(conversation, "teacher", ToolCallIds())) == ([given], [given])


def test_parallel_calls_answered_out_of_order_keep_their_results() -> None:
    conversation = [USER, asked("a b", "c d", "e"), result("e"), result("a b"), result("c d")]
    made, answered = ids_of(messages_for_model(conversation, "teacher"))
    assert answered == [made[2], made[0], made[1]]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,40}", i) for i in made)


def test_an_id_that_comes_twice_becomes_two() -> None:
    conversation = [USER, asked("x"), result("x", "first"), asked("x"), result("x", "second")]
    made, answered = ids_of(messages_for_model(conversation, "student"))
    assert len(set(made)) == 2
    assert made == answered


def test_thinking_goes_back_only_to_who_thought_it_and_only_inside_its_tool_exchange() -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
    thinking = {"thinking_blocks": blocks, "reasoning_content": "hm"}
    mine = assign_ids(asked("a", **thinking), "teacher", "1")
    foreign = asked("b", **thinking)
    plain: Message = {"role": "assistant", "content": "done", **thinking}
    conversation = [USER, mine, result(mine["tool_calls"][0]["id"]), plain, USER, foreign, result("b")]
    to_teacher, to_student = (messages_for_model(conversation, role) for role in ("teacher", "student"))
    assert [("thinking_blocks" in m) for m in to_teacher] == [False, True, False, False, False, False, False]
    assert not any("thinking_blocks" in m or "reasoning_content" in m for m in to_student)


def test_a_signature_beside_a_call_goes_to_its_maker_alone() -> None:
    made = assign_ids(asked("c1"), "teacher", "salt")
    signed = {**made["tool_calls"][0], "extra_content": {"google": {"thought_signature": "c2ln"}}}
    history = [USER, {**made, "tool_calls": [signed]}, result(signed["id"])]
    assert messages_for_model(history, "teacher")[1]["tool_calls"] == [signed]
    assert messages_for_model(history, "student")[1]["tool_calls"] == made["tool_calls"]
    before = [USER, {**made, "tool_calls": [{**signed, "id": "function-call-1"}]}, result("function-call-1")]
    assert messages_for_model(before, "teacher") == before, "of a conversation that began without us"


def test_thinking_parts_of_the_content_are_treated_alike_and_other_parts_pass() -> None:
    parts = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "hello"}]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    image: Message = {"role": "user", "content": [picture]}
    sent = messages_for_model([image, {"role": "assistant", "content": parts}], "student")
    assert sent[0] is image
    assert sent[1]["content"] == parts[1:]


def test_our_own_field_is_not_sent_to_models() -> None:
    echoed: Message = {"role": "assistant", "content": "hello", "agentcascade": {"answered_by": "student"}}
    assert messages_for_model([USER, echoed], "teacher")[1] == {"role": "assistant", "content": "hello"}


def test_the_common_conversation_is_passed_on_as_it_is() -> None:
    conversation = [{"role": "system", "content": "s"}, USER, {"role": "assistant", "content": "a"}, USER] * 20
    assert all(a is b for a, b in zip(conversation, messages_for_model(conversation, "student")))


TEACHERS, STUDENTS = make_id("teacher", "salt", 0), make_id("student", "salt", 0)


@pytest.mark.parametrize(
    ("conversation", "expected"),
    [
        ([USER, asked(TEACHERS), result(TEACHERS)], "teacher"),
        ([USER, asked(STUDENTS, make_id("student", "another", 1)), result(STUDENTS)], "student"),
        ([USER, asked("call_1"), result("call_1")], None),
        ([USER, asked(TEACHERS), result(TEACHERS), USER], None),
        ([USER, asked(TEACHERS, STUDENTS), result(TEACHERS)], None),
        ([USER], None),
        ([], None),
        ([result(TEACHERS)], None),
    ],
)
def test_the_holder_of_a_tool_exchange(conversation: list[Message], expected: Role | None) -> None:
    assert open_exchange_owner(conversation) == expected


def test_thinking_is_broken_only_where_results_of_unthinking_calls_are_answered() -> None:
    thought = {"thinking_blocks": [{"type": "thinking"}]}
    assert ends_in_unthinking_calls([USER, asked("a"), result("a")])
    assert not ends_in_unthinking_calls([USER, asked("a", **thought), result("a")])
    assert not ends_in_unthinking_calls([USER, asked("a"), result("a"), USER])
    assert not ends_in_unthinking_calls([USER])


def test_streamed_calls_get_the_ids_of_the_whole_answer() -> None:
    answer = asked("a", "b", "c")
    rename = rename_stream_ids("student", "salt")
    renamed = [rename(d) for d in split_into_deltas(answer)]
    streamed = [c["id"] for d in renamed for c in d.get("tool_calls", ()) if c.get("id")]
    assert streamed == ids_of([assign_ids(answer, "student", "salt")])[0]


def test_streamed_calls_that_share_an_index_get_ids_of_their_own() -> None:
    parts = [
        {"index": 0, "id": "a", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "function": {"arguments": "{}"}},
        {"index": 0, "id": "b", "function": {"name": "take", "arguments": "{}"}},
        {"index": 1, "id": "c", "function": {"name": "drop", "arguments": ""}},
        {"index": 0, "id": "b", "function": {"arguments": ""}},
    ]
    rename = rename_stream_ids("teacher", "salt")
    renamed = [rename({"tool_calls": [part]})["tool_calls"][0].get("id") for part in parts]
    first, second, third = ids_of([assign_ids(asked("a", "b", "c"), "teacher", "salt")])[0]
    assert renamed == [first, None, second, third, second]


def test_memory_is_bounded() -> None:
    ids = ToolCallIds(size=3)
    for number in range(10):
        answer = asked(f"call_{number}")
        ids.remember(answer, assign_ids(answer, "teacher", str(number)))
    last = assign_ids(asked("call_9"), "teacher", "9")["tool_calls"][0]["id"]
    first = assign_ids(asked("call_0"), "teacher", "0")["tool_calls"][0]["id"]
    assert ids.provider_id(last) == "call_9"
    assert ids.provider_id(first) == first


WHO = st.sampled_from(["teacher", "student", "client"])
TURN = st.tuples(WHO, st.integers(1, 3), st.text(max_size=6), st.booleans())


@given(st.lists(TURN, max_size=8), st.randoms(use_true_random=False))
def test_after_any_switches_results_still_belong_to_their_calls(turns: Any, random: Any) -> None:
    """Each call's name says which result it must get; providers refuse any other pairing."""
    ids, conversation = ToolCallIds(), [USER]
    for number, (who, count, provider_id, answered) in enumerate(turns):
        own = [call(f"{provider_id}{i if i else ''}", f"tool_{number}_{i}") for i in range(count)]
        message: Message = {"role": "assistant", "content": None, "tool_calls": own}
        if who != "client":
            named = assign_ids(message, who, str(number))
            ids.remember(message, named)
            message = named
        conversation.append(message)
        results = [result(c["id"], c["function"]["name"]) for c in message["tool_calls"]]
        random.shuffle(results)
        conversation += results if answered else results[:1]
        before = copy.deepcopy(conversation)
        for role in ("teacher", "student"):
            sent = messages_for_model(conversation, role, ids)
            assert conversation == before
            seen: dict[str, str] = {}
            for m in sent:
                for c in m.get("tool_calls") or ():
                    assert c["id"] not in seen
                    seen[c["id"]] = c["function"]["name"]
                if m["role"] == "tool":
                    assert seen[m["tool_call_id"]] == m["content"]
            prefix = messages_for_model(conversation[:-1], role, ids)
            assert json.dumps(prefix) == json.dumps(sent[: len(prefix)])


CALLS = st.lists(st.dictionaries(st.sampled_from(["id", "function"]), st.none() | st.text()))
FIELDS = st.sampled_from(["role", "content", "tool_calls", "tool_call_id"])


@given(st.lists(st.dictionaries(FIELDS, st.none() | st.text() | CALLS)))
def test_no_conversation_makes_it_raise(messages: Any) -> None:
    whole = [{"role": "assistant", **m} for m in messages]
    for role in ("teacher", "student"):
        messages_for_model(whole, role, ToolCallIds())
    open_exchange_owner(whole)
    ends_in_unthinking_calls(whole)


def test_ids_of_mistrals_own_form_are_not_taken_for_ours() -> None:
    """Nine letters and digits as assign_ids: without a checksum, two of 62 would be."""
    letters = random.Random(0)
    foreign = ["".join(letters.choices(ALPHABET, k=9)) for _ in range(20_000)]
    assert sum(i[0] in "ts" for i in foreign) > 500
    assert sum(caller_of(i) is not None for i in foreign) <= 3
    assert caller_of("t12345678") is None


@given(st.text(max_size=20), st.integers(0, 1000))
def test_an_id_says_who_made_the_call(salt: str, index: int) -> None:
    for role in ("teacher", "student"):
        assert caller_of(make_id(role, salt, index)) == role
