import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.errors import InvalidRequest
from agentcascade.prompts import demonstrations
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.prompts.transcripts import render_step
from agentcascade.types import Demonstration, Message, Step

MESSAGES = [
    {"role": "system", "content": "You play."},
    {"role": "user", "content": "Task: put a mug on the desk."},
    {"role": "assistant", "content": "Action: look"},
    {"role": "user", "content": "You see a mug 1."},
]


def words(text):
    return len(text.split())


def demonstration(name, size=3, score=0.5):
    step = Step(observation="you see " + "it " * size, reasoning="think", action="act")
    return Demonstration(
        trajectory=name, goal=f"goal {name}", plan="1. go", steps=(step, step), start=2, match=3, length=9, score=score
    )


def test_layout_keeps_system_and_task_first_and_the_conversation_last():
    built = demonstrations.build(MESSAGES, [demonstration("b"), demonstration("a")], budget=1000, count=words)
    assert built.messages[0] == MESSAGES[0]
    assert built.messages[2:] == MESSAGES[2:]
    first = built.messages[1]["content"]
    assert first.startswith(MESSAGES[1]["content"])
    assert first.index("Goal: goal a") < first.index("Goal: goal b")
    assert "(steps 3 to 4 of 9)" in first
    assert MESSAGES[1]["content"] == "Task: put a mug on the desk."


TOOL_STEP: list[Message] = [
    *MESSAGES[:2],
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "a mug"},
]


def test_last_they_stand_before_the_new_observation_and_leave_the_history_as_it_is():
    built = demonstrations.build(MESSAGES, [demonstration("a")], budget=1000, count=words, place="last")
    assert built.messages[:3] == MESSAGES[:3]
    last = built.messages[3]["content"]
    assert last.endswith("\n\n" + MESSAGES[3]["content"])
    assert last.startswith("# Examples")
    assert demonstrations.without_demonstrations(built.messages[3]) == MESSAGES[3]
    behind = demonstrations.build(TOOL_STEP, [demonstration("a")], budget=1000, count=words, place="last").messages
    assert behind[:4] == TOOL_STEP, "nothing may stand between a call and its result"
    assert [m["role"] for m in behind[4:]] == ["user"]
    parts: list[Message] = [*MESSAGES[:3], {"role": "user", "content": [{"type": "text", "text": "a mug"}]}]
    built = demonstrations.build(parts, [demonstration("a")], budget=1000, count=words, place="last")
    assert [p["text"][:6] for p in built.messages[3]["content"]] == ["# Exam", "a mug"]


@pytest.mark.parametrize("messages", [MESSAGES[:2], MESSAGES[:3], [*MESSAGES[:3], {"role": "system", "content": "x"}]])
def test_where_nothing_new_was_observed_first_and_last_are_the_same(messages):
    one, other = (
        demonstrations.build(messages, [demonstration("a")], budget=1000, count=words, place=place).messages
        for place in ("first", "last")
    )
    assert one == other


def test_the_same_set_in_another_order_gives_the_same_prompt():
    some = [demonstration(n) for n in "cab"]
    one = demonstrations.build(MESSAGES, some, budget=1000, count=words).messages
    assert one == demonstrations.build(MESSAGES, some[::-1], budget=1000, count=words).messages


@pytest.mark.parametrize("place", ["first", "last"])
def test_the_task_is_said_once_more_behind_them(place):
    task = "put a mug on the desk"
    built = demonstrations.build(MESSAGES, [demonstration("a")], budget=1000, count=words, place=place, task=task)
    (content,) = (m["content"] for m in built.messages if demonstrations.HEADER.split("\n")[0] in m["content"])
    assert content.rindex(task) > content.rindex("(steps 3 to 4 of 9)")
    plain = demonstrations.build(MESSAGES, [demonstration("a")], budget=1000, count=words, place=place)
    assert built.tokens > plain.tokens
    too_long = "x " * demonstrations.MAX_TASK
    assert (
        demonstrations.build(
            MESSAGES, [demonstration("a")], budget=1000, count=words, place=place, task=too_long
        ).messages
        == plain.messages
    )


def test_a_template_of_ones_own_may_leave_the_task_out():
    texts = {"demonstrations": "$examples\n$mark\nGo on."}
    prompts = Prompts(DEFAULT.quoting, texts)
    built = demonstrations.build(
        MESSAGES, [demonstration("a")], budget=1000, count=words, prompts=prompts, task="put a mug"
    )
    assert built.messages[1]["content"].endswith("Go on.")


@given(st.lists(st.integers(0, 60), max_size=8), st.integers(0, 300), st.sampled_from(["", "put a mug on the desk"]))
def test_never_over_the_budget_and_whole_or_not_at_all(sizes, budget, task):
    given_ = [demonstration(f"t{i}", size) for i, size in enumerate(sizes)]
    built = demonstrations.build(MESSAGES, given_, budget=budget, count=words, task=task)
    added = words(built.messages[1]["content"]) - words(MESSAGES[1]["content"])
    assert added <= built.tokens <= budget or not built.shown
    assert added == 0 or built.shown
    assert built.dropped == len(given_) - len(built.shown)
    for shown in built.shown:
        assert all(render_step(step) in built.messages[1]["content"] for step in shown.steps)


def test_the_worst_go_first_and_a_giant_does_not_crowd_out_the_rest():
    giant, small = demonstration("giant", 5000, 0.9), demonstration("small", 1, 0.1)
    built = demonstrations.build(MESSAGES, [giant, small], budget=100, count=words)
    assert [d.trajectory for d in built.shown] == ["small"]
    best, following = demonstration("best"), demonstration("next")
    both = demonstrations.build(MESSAGES, [best, following], budget=1000, count=words).tokens
    room_for_one = demonstrations.build(MESSAGES, [best, following], budget=both - 1, count=words)
    assert [d.trajectory for d in room_for_one.shown] == ["best"]


def test_multi_part_messages_get_one_more_part():
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "Task"}, image]}]
    content = demonstrations.build(messages, [demonstration("a")], budget=1000, count=words).messages[0]["content"]
    assert content[:2] == messages[0]["content"]
    assert content[2]["text"].startswith("# Examples")


def test_no_user_message_is_an_error():
    with pytest.raises(InvalidRequest, match="user message"):
        demonstrations.build(MESSAGES[:1], [demonstration("a")], budget=1000, count=words)
