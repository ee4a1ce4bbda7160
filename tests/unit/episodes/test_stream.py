"""The streaming contract: nothing before the verdict, live from the teacher, usage last, cancelling goes upstream."""

from __future__ import annotations

import asyncio
import gc
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.actions.base import AutoActions
from agentcascade.models.deltas import DeltaAssembler, split_into_deltas
from agentcascade.types import Completion, Usage
from tests.cascades import DEMONSTRATION, MESSAGES, FakeBank, Model, act, make, recorded
from tests.tool_calls import TOOLS, call
from tests.waiting import eventually


class Streaming(Model):
    """Hands out its answer word by word, waiting for `gate` before the second."""

    def __init__(self, name, answer, gate=None, break_after=None, **more):
        super().__init__(name, answer, **more)
        self.gate, self.break_after, self.cancelled = gate, break_after, False

    async def stream(self, messages, on_delta, **options):
        self.requests.append({"messages": list(messages), "stream": True, **options})
        message = self.answers[0] if isinstance(self.answers[0], dict) else {"content": self.answers[0]}
        try:
            for count, delta in enumerate(split_into_deltas(message)):
                if count == self.break_after:
                    raise ConnectionError("cut")
                if count and self.gate:
                    await self.gate.wait()
                on_delta(delta)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        usage = Usage(input=100, output=10)
        return Completion(
            model=self.name, messages=({"role": "assistant", **message},), finish_reasons=("stop",), usage=usage,
            dollars=Decimal(110),
        )  # fmt: skip


LONG = act("look " + "around " * 30)


def text_of(chunks):
    return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])


async def read(stream):
    return [chunk async for chunk in stream]


async def test_an_accepted_answer_comes_in_ordinary_chunks_with_usage_last() -> None:
    cascade = make(Model("s", LONG), Streaming("t", act("go")), FakeBank(DEMONSTRATION))
    chunks = await read(cascade.episode().stream(MESSAGES))
    assert text_of(chunks) == LONG
    assert len(chunks) > 5
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({c["id"] for c in chunks}) == 1
    *before, last = chunks
    assert not any("usage" in c for c in before)
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["usage"]["prompt_tokens"] == 100
    assert last["agentcascade"].answered_by == "student"
    assert {c["model"] for c in chunks} == {"s"}


async def test_with_include_usage_the_last_chunk_has_no_choices() -> None:
    cascade = make(Model("s", LONG), Model("t", act("go")), FakeBank(DEMONSTRATION))
    chunks = await read(cascade.episode().stream(MESSAGES, stream_options={"include_usage": True}))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 30
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


async def test_a_deferral_is_live_and_nothing_of_a_sample_is_shown() -> None:
    gate = asyncio.Event()
    student = Model("s", [act("secret one"), act("secret two"), act("secret three")])
    cascade = make(student, Streaming("t", LONG, gate), FakeBank(DEMONSTRATION))
    stream = cascade.episode().stream(MESSAGES)
    first = await asyncio.wait_for(stream.__anext__(), 60)
    assert LONG.startswith(first["choices"][0]["delta"]["content"])
    gate.set()
    chunks = [first, *await read(stream)]
    assert text_of(chunks) == LONG
    assert "secret" not in json.dumps([c["choices"] for c in chunks])
    assert chunks[-1]["agentcascade"].answered_by == "teacher"
    assert {c["model"] for c in chunks} == {"t"}


async def test_a_teacher_that_cannot_stream_is_cut_into_chunks() -> None:
    cascade = make(None, Model("t", LONG), mode="teacher")
    assert text_of(await read(cascade.episode().stream(MESSAGES))) == LONG


async def test_closing_the_stream_cancels_what_is_under_way_and_records_it() -> None:
    teacher = Streaming("t", LONG, asyncio.Event())
    cascade = make(None, teacher, mode="teacher")
    async with cascade.episode().stream(MESSAGES) as stream:
        await stream.__anext__()
    assert teacher.cancelled
    (decision,) = recorded(cascade).decisions
    assert "CancelledError" in decision.failures[0]


async def test_a_stream_that_breaks_off_raises_after_what_was_shown() -> None:
    cascade = make(None, Streaming("t", LONG, break_after=3), mode="teacher")
    stream = cascade.episode().stream(MESSAGES)
    shown = [await stream.__anext__() for _ in range(3)]
    with pytest.raises(ConnectionError):
        await stream.__anext__()
    assert len(shown) == 3
    assert not any(c["choices"][0]["finish_reason"] for c in shown)


async def test_a_stream_that_fails_behind_the_back_of_who_has_left_is_closed_without_a_word() -> None:
    """Else asyncio logs a task's exception that was never retrieved, with the provider's words."""
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    cascade = make(None, Streaming("t", LONG, break_after=3), mode="teacher")
    async with cascade.episode().stream(MESSAGES) as stream:
        await stream.__anext__()
        await eventually(lambda: recorded(cascade).decisions)
        await asyncio.sleep(0.01)
    del stream
    gc.collect()
    assert not said


async def test_what_fails_before_the_first_chunk_is_raised_by_begin() -> None:
    cascade = make(None, Model("t", ValueError("no")), mode="teacher")
    stream = cascade.episode().stream(MESSAGES)
    with pytest.raises(ValueError, match="no"):
        await stream.begin()


async def test_begin_loses_no_chunk() -> None:
    cascade = make(None, Streaming("t", LONG), mode="teacher")
    stream = cascade.episode().stream(MESSAGES)
    await stream.begin()
    assert text_of(await read(stream)) == LONG


async def test_streamed_tool_calls_have_the_ids_that_the_whole_answer_has() -> None:
    teacher = Streaming("t", call("pay", id="toolu_1"))
    cascade = make(Model("s", act("x")), teacher, mode="teacher", actions=AutoActions())
    stream = cascade.episode().stream(MESSAGES, tools=TOOLS)
    assembly = DeltaAssembler()
    for chunk in await read(stream):
        for choice in chunk["choices"]:
            assembly.add(choice["delta"])
    assert stream.answer is not None
    assert assembly.message["tool_calls"] == stream.answer.messages[0]["tool_calls"]
    assert assembly.message["tool_calls"][0]["id"].startswith("t")


async def test_several_answers_are_streamed_one_choice_after_the_other() -> None:
    cascade = make(None, Model("t", ["one two", "three"]), mode="teacher")
    chunks = await read(cascade.episode().stream(MESSAGES, n=2))
    texts = {0: "", 1: ""}
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
    assert texts == {0: "one two", 1: "three"}
    assert [c["choices"][0]["finish_reason"] for c in chunks][-2:] == ["stop", "stop"]


MESSAGE = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": st.one_of(st.none(), st.text(min_size=1)),
    },
    optional={
        "refusal": st.text(min_size=1),
        "tool_calls": st.lists(
            st.builds(
                lambda id, name, arguments: {
                    "id": id, "type": "function", "function": {"name": name, "arguments": arguments},
                },
                st.text("abc123", min_size=1), st.text("xyz_", min_size=1), st.text(),
            ),
            min_size=1,
        ),
    },
)  # fmt: skip


@given(MESSAGE)
def test_a_message_cut_into_deltas_is_the_same_message_again(message: dict[str, Any]) -> None:
    assembly = DeltaAssembler()
    for delta in split_into_deltas(message):
        assembly.add(delta)
    assert assembly.message == {**message, "content": message["content"] or None}
