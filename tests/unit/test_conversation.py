import asyncio
from copy import deepcopy
from threading import Event, Lock
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade import conversation
from agentcascade.actions.base import AutoActions, RegexActions
from agentcascade.errors import InvalidRequest
from agentcascade.messages import encodable_messages
from agentcascade.models.tool_call_ids import messages_for_model
from agentcascade.step.request import Request


def test_a_react_conversation_is_read_into_steps() -> None:
    situation = conversation.read(
        [
            {"role": "system", "content": "rules"},
            {"role": "user", "content": "put a mug on the desk"},
            {"role": "assistant", "content": "Thought: I look.\nAction: look"},
            {"role": "user", "content": "a mug 1"},
        ],
        RegexActions(),
    )
    assert situation.goal == "put a mug on the desk"
    (step,) = situation.history
    assert (step.observation, step.reasoning, step.action) == ("put a mug on the desk", "I look.", "look")
    assert situation.observation == "a mug 1"
    assert situation.step == 1


def test_tool_results_are_the_observation() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}}
    situation = conversation.read(
        [
            {"role": "user", "content": "find it"},
            {"role": "assistant", "content": "looking", "tool_calls": [call, {**call, "id": "2"}]},
            {"role": "tool", "tool_call_id": "1", "content": "one"},
            {"role": "tool", "tool_call_id": "2", "content": "two"},
        ],
        AutoActions(),
        goal="given",
    )
    assert situation.goal == "given"
    assert situation.history[0].action == 'find({"q":1}); find({"q":1})'
    assert situation.observation == "one\ntwo"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages is empty"),
        ([{"role": "system", "content": "x"}], "only system messages"),
        ([{"content": "x"}], r"messages\[0\] needs a role"),
        (["x"], r"messages\[0\] needs a role"),
        ([{"role": "user", "content": "x"}, {"role": "narrator", "content": "x"}], r"messages\[1\]"),
    ],
)
def test_unusable_messages_are_named(messages: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        conversation.check(messages)


class Counting(RegexActions):
    """Counts the messages that it parses."""

    parsed = 0

    def parse(self, message, tools=None):
        self.parsed += 1
        return super().parse(message, tools)


ROLE = st.sampled_from(["user", "assistant", "tool", "system"])
MESSAGE = st.builds(lambda role, text: {"role": role, "content": f"Action: {text}"}, ROLE, st.sampled_from("abc"))
CALLS = st.lists(st.tuples(st.integers(0, 6), st.lists(MESSAGE, max_size=4), st.booleans()), max_size=6)


@given(CALLS)
def test_a_history_reads_what_reading_the_whole_conversation_gives(calls: Any) -> None:
    async def run():
        history, messages = conversation.History(RegexActions()), [{"role": "user", "content": "go"}]
        for keep, new, in_place in calls:
            messages = [*messages[: max(1, len(messages) - keep)], *new]
            if in_place:  # the caller's own objects, changed since the last call
                messages[0]["content"] = "Action: changed"
            given_fields = {"goal": "", "episode": "e"}
            whole = conversation.read(messages, RegexActions(), **given_fields)
            assert await history.read(messages, **given_fields) == whole

    asyncio.run(run())


async def test_a_history_parses_each_message_once() -> None:
    formats = Counting()
    history, messages = conversation.History(formats), [{"role": "user", "content": "go"}]
    for number in range(50):
        messages += [{"role": "assistant", "content": f"Action: {number}"}, {"role": "user", "content": "ok"}]
        assert len((await history.read(messages)).history) == number + 1
    assert formats.parsed == 50
    messages[3] = {"role": "assistant", "content": "Action: another"}  # what follows it is read anew
    assert (await history.read(messages)).history[1].action == "another"
    assert formats.parsed == 50 + 49


async def test_a_history_checks_what_is_new() -> None:
    history = conversation.History(RegexActions())
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "Action: look"},
    ]
    await history.read(messages)
    with pytest.raises(InvalidRequest, match=r"messages\[2\] needs a role"):
        await history.read([*messages, {"role": "wizard"}])
    messages[0]["content"] = 7
    with pytest.raises(InvalidRequest, match=r"messages\[0\]\.content is a int"):
        await history.read(messages)


class Unequal:
    """Refuses to be compared, as arrays do."""

    def __eq__(self, other):
        raise ValueError("the truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]


async def test_messages_that_cannot_be_copied_or_compared_are_read_at_every_call() -> None:
    circle: dict[str, Any] = {}
    circle["itself"] = circle
    for value in (Unequal(), (i for i in range(3)), Lock(), circle):
        formats = Counting()
        history, messages = conversation.History(formats), [{"role": "user", "content": "go", "extra": value}]
        for number in range(2):
            messages = [*messages, {"role": "assistant", "content": f"Action: {number}", "extra": value}]
            situation = await history.read(messages)
            assert [step.action for step in situation.history] == ["0", "1"][: number + 1]


class Waiting(RegexActions):
    """Is in no hurry with a message that says so, wherever it is parsed."""

    at_once = 50

    def __init__(self):
        super().__init__()
        self.begun, self.go_on = Event(), Event()

    def parse(self, message, tools=None):
        if "slowly" in message["content"]:
            self.begun.set()
            assert self.go_on.wait(60)
        return super().parse(message, tools)


async def test_conversations_that_are_read_at_once_do_not_mix() -> None:
    formats = Waiting()
    history = conversation.History(formats)
    first = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "Action: a"}]
    other = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "Action: b"}]
    await history.read(first)
    slowly = [*first, {"role": "assistant", "content": f"Action: slowly{' ' * 60}"}]
    reading = asyncio.create_task(history.read(slowly))
    await asyncio.to_thread(formats.begun.wait, 60)
    await history.read(other)
    formats.go_on.set()
    await reading
    both = [*other, *slowly[2:]]
    assert (await history.read(both)).history == conversation.read(both, formats).history


TOOL_CALL = {"id": "t1x2y3z4a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
BREAKPOINT = {"type": "text", "text": "and on", "cache_control": {"type": "ephemeral"}}
ANY_MESSAGE = st.one_of(
    MESSAGE,
    st.just({"role": "user", "content": [BREAKPOINT]}),
    st.just({"role": "assistant", "content": None, "tool_calls": [TOOL_CALL], "thinking_blocks": [{"thinking": "so"}]}),
    st.just({"role": "tool", "tool_call_id": TOOL_CALL["id"], "content": "a mug \ud83d", "cache_control": {}}),
)
CHANGES = st.tuples(st.integers(0, 5), st.lists(ANY_MESSAGE, max_size=4), st.integers(1, 5), ANY_MESSAGE, st.booleans())


@given(st.lists(CHANGES, max_size=6))
def test_what_is_known_of_a_history_is_what_a_pass_over_all_of_it_finds(calls: Any) -> None:
    def check(messages, known):
        plain, with_known = Request(messages), Request(messages, known=known)
        assert with_known.parts(words) == plain.parts(words)
        assert with_known.has_breakpoints == plain.has_breakpoints
        assert messages_for_model(messages, "student", known=known) == messages_for_model(messages, "student")
        assert encodable_messages(messages, known) == encodable_messages(messages)

    async def run():
        history, messages = conversation.History(RegexActions()), [{"role": "user", "content": "go"}]
        for dropped, new, place, other, in_place in calls:
            messages = deepcopy([*messages[: max(1, len(messages) - dropped)], *new])
            if place < len(messages):
                if in_place:
                    messages[place]["content"] = "Action: changed"
                else:
                    messages[place] = deepcopy(other)
            await history.read(messages)
            check(messages, history.known)
            check([*messages[:place], {"role": "user", "content": "added to"}, *messages[place + 1 :]], history.known)

    asyncio.run(run())


async def test_a_step_looks_at_what_is_new_in_its_history() -> None:
    counted = []

    def count(text):
        counted.append(text)
        return words(text)

    history, messages = conversation.History(RegexActions()), [{"role": "user", "content": "go"}]
    for number in range(50):
        messages = [*deepcopy(messages), {"role": "assistant", "content": f"Action: {number}"}]
        await history.read(messages)
        Request(messages, known=history.known).tokens(count)
    assert counted == [message["content"] for message in messages]


def words(text):
    return len(text.split())
