import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.errors import InvalidRequest
from agentcascade.prompts import demonstrations
from agentcascade.types import Demonstration, Step

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


def test_the_same_set_in_another_order_gives_the_same_prompt():
    some = [demonstration(n) for n in "cab"]
    one = demonstrations.build(MESSAGES, some, budget=1000, count=words).messages
    assert one == demonstrations.build(MESSAGES, some[::-1], budget=1000, count=words).messages


@given(st.lists(st.integers(0, 60), max_size=8), st.integers(0, 300))
def test_never_over_the_budget_and_whole_or_not_at_all(sizes, budget):
    given_ = [demonstration(f"t{i}", size) for i, size in enumerate(sizes)]
    built = demonstrations.build(MESSAGES, given_, budget=budget, count=words)
    added = words(built.messages[1]["content"]) - words(MESSAGES[1]["content"])
    assert added <= built.tokens <= budget or not built.shown
    assert added == 0 or built.shown
    assert built.dropped == len(given_) - len(built.shown)
    for shown in built.shown:
        assert all(demonstrations.render_step(step) in built.messages[1]["content"] for step in shown.steps)


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
