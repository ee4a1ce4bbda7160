"""Tokens of a request: those that counting its messages gives, counted once however many ask."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from agentcascade.config.effort import Effort
from agentcascade.models.tokens import count_messages
from agentcascade.step.request import Request
from agentcascade.types import Account

CALL = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at": "shelf 1"}'}}
MESSAGES = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, st.text(max_size=20)),
    st.builds(lambda text: {"role": "user", "content": [{"type": "text", "text": text}]}, st.text(max_size=20)),
    st.just({"role": "assistant", "content": None, "tool_calls": [CALL]}),
    st.just({"role": "tool", "tool_call_id": "t1", "content": "a mug"}),
)


def words(text: str) -> int:
    return len(text.split())


@given(st.lists(MESSAGES, max_size=8))
def test_tokens_are_those_of_the_messages(messages: list[dict[str, object]]) -> None:
    assert Request(messages).tokens(words) == count_messages(messages, words)


def test_a_request_with_demonstrations_does_not_count_the_history_again() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return words(text)

    request = Request([{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}])
    before = request.tokens(count)
    shown = request.with_demonstrations([{"role": "user", "content": "a demonstration, one two"}], 9)
    assert (shown.tokens(count), shown.demonstration_tokens) == (before, 9)
    assert counted == ["one two", "three"]
    remembered = shown.with_memory([{"role": "user", "content": "one two, and a longer text that was remembered"}], 4)
    assert remembered.tokens(count) == count_messages(remembered.remembered, words) != before


def test_what_a_step_adds_to_a_request_leaves_all_else() -> None:
    asked = Request([{"role": "user", "content": "go"}], [CALL], 7, {"stop": "."}, why="because", k=3)
    assert asked.tokens(words) == asked.tokens(len) != 0  # what was read stays
    for_step = asked.for_step({"n": 1}, (Account(scope="key", name="a", limit=Decimal(1)),), Effort("low"))
    assert for_step == replace(asked, options=for_step.options, accounts=for_step.accounts, ceiling=for_step.ceiling)
    assert for_step.ceiling == Effort("low")
    assert for_step.tokens(len) != asked.tokens(len)
    longer = [{"role": "user", "content": "go on and on"}]
    remembered = asked.with_memory(longer, 5)
    assert remembered == replace(asked, remembered=longer, prompt=longer, memory_tokens=5)
    assert remembered.tokens(words) == count_messages(longer, words)
    shown = remembered.with_demonstrations([*longer, *longer], 9)
    assert shown == replace(remembered, prompt=[*longer, *longer], demonstration_tokens=9)
    assert shown.sent_before() == replace(shown, is_warm=True)
    assert shown.sent_before().tokens(len) == remembered.tokens(words)
