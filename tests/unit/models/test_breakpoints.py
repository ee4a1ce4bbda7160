"""Prompt-cache breakpoints: never more than four, never beside the caller's own, and nothing but marks is added."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.models.breakpoints import LOOKBACK, MARK, MOST, has_breakpoints, with_breakpoints
from agentcascade.models.quirks import ModelQuirks, model_quirks
from agentcascade.types import Message, Tool
from tests.prompt_caches import unmarked

TOOL: Tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
LONG, SHORT = "word " * 30, "go"
QUIRKS = ModelQuirks(cache_minimum=20)


def words(text: str) -> int:
    return len(text.split())


def call(id: str = "c1") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}}


texts = st.sampled_from(["", " ", SHORT, LONG])
parts = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.just({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}),
    st.just({"type": "thinking", "thinking": "hm", "signature": "s"}),
)
contents = st.one_of(st.none(), texts, st.lists(parts, max_size=3))
messages = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": contents}),
        st.builds(lambda content, n: {"role": "assistant", "content": content, "tool_calls": [call()] * n} if n
                  else {"role": "assistant", "content": content}, contents, st.integers(0, 2)),
        st.builds(lambda content: {"role": "tool", "tool_call_id": "c1", "content": content}, contents),
    ),
    max_size=60,
)  # fmt: skip
tools = st.one_of(st.none(), st.just([TOOL]), st.just([TOOL] * 30))
stables = st.one_of(st.none(), st.integers(0, 60))


def marks(value: Any) -> int:
    if isinstance(value, dict):
        return ("cache_control" in value) + sum(marks(v) for v in value.values())
    return sum(map(marks, value)) if isinstance(value, list) else 0


def as_parts(message: dict[str, Any]) -> dict[str, Any]:
    """A text and its one text part are the same to every provider that takes marks."""
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


@given(messages, tools, stables)
def test_at_most_four_marks_are_all_that_is_added(sent: Any, defined: Any, stable: int | None) -> None:
    before = copy.deepcopy((sent, defined))
    got = with_breakpoints(sent, defined, QUIRKS, words, stable=stable)
    assert (sent, defined) == before, "the caller's own objects are not touched"
    assert marks(list(got.messages)) + marks(got.tools) == got.breakpoints <= MOST
    assert [as_parts(unmarked(m)) for m in got.messages] == [as_parts(m) for m in sent]
    assert unmarked(got.tools) == defined
    for message in got.messages[stable if stable is not None else len(sent) :]:
        assert not marks(message), "what the next request will not begin with is not written to the cache"
    for message in got.messages:
        for part in message["content"] if isinstance(message.get("content"), list) else []:
            assert "cache_control" not in part or part["type"] != "thinking"
            assert "cache_control" not in part or part.get("text", "x").strip()


@given(messages, tools)
def test_a_request_that_has_marks_is_left_as_it_is(sent: Any, defined: Any) -> None:
    once = with_breakpoints(sent, defined, QUIRKS, words)
    again = with_breakpoints(once.messages, once.tools, QUIRKS, words)
    if once.breakpoints:
        assert again.messages is once.messages
        assert (again.tools, again.breakpoints) == (once.tools, 0)


@pytest.mark.parametrize(
    "own",
    [
        {"messages": [{"role": "user", "content": LONG, "cache_control": MARK}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG, "cache_control": {"ttl": "1h"}}]}]},
        {"messages": [{"role": "user", "content": LONG, "cache_control": {}}]},
        {"tools": [{**TOOL, "cache_control": MARK}]},
        {"tools": [{**TOOL, "function": {**TOOL["function"], "cache_control": MARK}}]},
        {"options": [{"cache_control": MARK}]},
        {"options": [{}, {"cache_control_injection_points": [{"location": "message", "role": "system"}]}]},
    ],
)
def test_the_callers_own_marks_are_seen_wherever_they_stand(own: Any) -> None:
    plain: dict[str, Any] = {"messages": [{"role": "user", "content": LONG}], "tools": [TOOL], "options": [{}]}
    assert not has_breakpoints(**plain)
    assert has_breakpoints(**plain | own)


def test_one_stands_behind_tools_and_system_and_one_at_the_end() -> None:
    turns = [("system", LONG), ("user", LONG), ("assistant", SHORT), ("user", SHORT)]
    sent = [{"role": role, "content": text} for role, text in turns]
    got = with_breakpoints(sent, [TOOL], QUIRKS, words)
    assert [marks(m) for m in got.messages] == [1, 0, 0, 1]
    assert got.tools == [TOOL]
    without_system = with_breakpoints(sent[1:], [TOOL] * 30, QUIRKS, words)
    assert without_system.tools is not None
    assert marks(without_system.tools) == 1 == marks(without_system.tools[-1])
    assert marks(list(with_breakpoints(sent, [TOOL], QUIRKS, words, stable=2).messages[2:])) == 0


def test_what_is_too_short_to_be_cached_is_not_marked() -> None:
    head = {"role": "system", "content": SHORT}
    assert with_breakpoints([head, {"role": "user", "content": SHORT}], None, QUIRKS, words).breakpoints == 0
    long = with_breakpoints([head, {"role": "user", "content": LONG}], None, QUIRKS, words)
    assert [marks(m) for m in long.messages] == [0, 1]
    opus, haiku = model_quirks("anthropic/claude-opus-4-5"), model_quirks("anthropic/claude-3-haiku-20240307")
    assert (opus.cache_minimum, haiku.cache_minimum) == (4096, 2048)
    # fewer of our tokens are enough: theirs are shorter
    text = "word " * 3500
    assert with_breakpoints([{"role": "user", "content": text}], None, opus, words).breakpoints == 1
    assert with_breakpoints([{"role": "user", "content": text[:10_000]}], None, opus, words).breakpoints == 0


def test_a_long_absence_is_looked_back_over() -> None:
    """Twenty blocks before a mark are looked at: an agent that comes back after twenty steps needs further marks."""
    history: list[Message] = [{"role": "system", "content": LONG}]
    for i in range(26):
        history.append({"role": "user", "content": LONG})
        history.append({"role": "assistant", "content": None, "tool_calls": [call(str(i))]})
        history.append({"role": "tool", "tool_call_id": str(i), "content": SHORT})
    got = with_breakpoints(history, None, QUIRKS, words)
    places = [i for i, m in enumerate(got.messages) if marks(m)]
    assert (places[0], places[-1], len(places)) == (0, len(history) - 1, MOST)
    looked_at = {i - back for i in places[1:] for back in range(LOOKBACK)}
    written = [i for i, m in enumerate(history) if m["role"] != "assistant"]  # where an earlier request may have ended
    assert looked_at >= {i for i in written if i >= len(history) - 3 * LOOKBACK}
