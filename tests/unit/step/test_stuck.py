"""Signals that a run is stuck: what each sees, and the cascade that gives such a run to the teacher for some steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade import conversation
from agentcascade.actions.base import AutoActions
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import RouterConfig
from agentcascade.config.stuck import StuckConfig
from agentcascade.errors import ConfigError
from agentcascade.models.scripted import ScriptedModel
from agentcascade.step import stuck
from agentcascade.step.stuck import SIGNALS, Watch, events, find_stuck
from agentcascade.types import Decision, Message, Situation, Step
from tests.cascades import Recorder, act, known, make, recorded

ROOM = "You are in the middle of a room.\n\nYour task is to: look at mug under the desklamp."
DESKS = {"go to desk 1": "On the desk 1, you see a pen 1.", "go to desk 2": "On the desk 2, you see a desklamp 1."}
WORLD = {**DESKS, **{f"open drawer {i}": f"You open the drawer {i}. In it, you see a key {i}." for i in range(9)}}


def run(*pairs: tuple[str, str]) -> Situation:
    """A run of (action, what it was answered)."""
    observed = [ROOM, *(answer for _, answer in pairs)]
    history = tuple(Step(observation=o, action=a) for o, (a, _) in zip(observed, pairs))
    return Situation(goal=ROOM, history=history, observation=observed[-1])


def only(signal: str, number: float) -> StuckConfig:
    return StuckConfig(**{name: number if name == signal else None for name in SIGNALS})


@pytest.mark.parametrize(
    ("signal", "number", "pairs"),
    [
        ("repeated", 1, [("look", "1"), ("go", "2"), ("Look ", "1"), ("go", "2")]),
        ("errors", 2, [("take mug 1", "Nothing happens."), ("SELECT x", "Error executing query: Unknown column 'x'")]),
        ("errors", 1, [("run()", "Traceback (most recent call last):\n" + "  File a\n" * 200 + "no")]),
        ("errors", 1, [("run()", "line\n" * 500 + "bash: vmi: command not found")]),
        ("nothing_new", 2, [("look", "A desk."), ("again", "a desk."), ("more", "\n" + ROOM)]),
        ("false_done", 1, [("submit", "[]")]),
        ("false_done", 1, [("Thought: The task is completed.", "")]),
        ("silence", 2, [("ls", " "), ("ls -a", "[]")]),
    ],
)
def test_a_signal_says_what_it_sees(signal: str, number: int, pairs: list[tuple[str, str]]) -> None:
    found = find_stuck(only(signal, number), run(*pairs))
    assert found == (signal, number, len(pairs))
    assert str(found) == f"stuck since step {len(pairs)}: {signal} {number}"
    assert find_stuck(only(signal, number), run(*pairs[:-1])) is None
    assert find_stuck(only(signal, number + 1), run(*pairs)) is None


def test_over_plan_needs_a_plan() -> None:
    situation = run(*[(f"open {i}", f"it holds {i}") for i in range(4)])
    assert find_stuck(only("over_plan", 1.5), situation) is None
    assert find_stuck(only("over_plan", 2), situation.model_copy(update={"plan": "1. open\n\n2. take"}))


def test_asking_again_is_a_circle_only_while_the_answers_are_old() -> None:
    """Polls of a build, which stuck detectors of other agents stopped, and a circle of three, which they missed."""
    polls = [("read_output(1)", f"step {i} of 9") for i in range(6)]
    assert find_stuck(StuckConfig(), run(*polls)) is None
    config = only("repeated", 1)
    assert find_stuck(config, run(*polls, polls[-1])) is None
    assert find_stuck(config, run(*polls, polls[-1], polls[-1])) == ("repeated", 1, 8)
    three = [("read a", "text"), ("edit a", "no match"), ("test", "1 failed")]
    assert find_stuck(config, run(*three, *three)) == ("repeated", 1, 6)


def test_the_goal_is_no_error_and_a_search_is_not_stuck() -> None:
    assert find_stuck(StuckConfig(), Situation(goal="g", observation="Error: mend this")) is None
    assert find_stuck(StuckConfig(), run(*WORLD.items())) is None


def test_a_result_that_is_marked_as_an_error_is_one() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    messages: list[Message] = [
        {"role": "user", "content": "read it"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "no such thing", "anthropic": {"is_error": True}},
    ]
    assert find_stuck(only("errors", 1), conversation.read(messages, AutoActions())) == ("errors", 1, 1)
    messages[2]["anthropic"] = {"is_error": False}
    assert find_stuck(only("errors", 1), conversation.read(messages, AutoActions())) is None


def looping(messages, index):
    """As a small model did on ALFWorld, three samples alike: from desk to desk, whatever it sees."""
    last = next(m["content"] for m in reversed(messages) if m["role"] == "user")
    return act("go to desk 2" if "desk 1" in last else "go to desk 1")


def opening(messages, index):
    opened = sum(f"open drawer {i}" in str(m["content"]) for m in messages for i in range(9))
    return act(f"open drawer {opened % 9}")


async def play(steps: int, mode: str = "cascade", **router: Any) -> tuple[list[Decision], ScriptedModel, Recorder]:
    student, teacher = ScriptedModel(looping, name="s"), ScriptedModel(opening, name="t")
    cascade = make(student, teacher, mode=mode)
    cascade = cascade.twin(config=cascade.config.model_copy(update={"router": RouterConfig(**router)}))
    messages: list[Message] = [{"role": "user", "content": ROOM}]
    decisions: list[Decision] = []
    for _ in range(steps):
        completion, decision = await cascade.step(messages)
        decisions.append(decision)
        messages = [
            *messages,
            {"role": "assistant", "content": completion.messages[0]["content"]},
            {"role": "user", "content": WORLD[known(decision.action)]},
        ]
    await cascade.engine.wait()
    return decisions, student, recorded(cascade)


async def test_the_teacher_takes_a_run_that_goes_in_circles_and_hands_it_back() -> None:
    unwatched, _, _ = await play(12)
    assert {d.answered_by for d in unwatched} == {"student"}, "three samples of three agree at every step"
    decisions, student, _ = await play(12, stuck={"hold": 2})
    taken = "".join(d.answered_by[0] for d in decisions)
    assert taken == "ssssttssstts"
    assert [d.reason for d in decisions[4:6]] == ["stuck since step 4: repeated 1"] * 2
    assert decisions[9].reason == "stuck since step 9: nothing_new 3", "what was seen stays seen"
    assert [len(d.calls) for d in decisions[4:6]] == [1, 1], "the student is not even sampled"
    assert len(student.requests) == 8


async def test_the_teacher_goes_on_until_something_is_new_or_it_had_its_most() -> None:
    def play_on(later: list[tuple[str, str]], **settings: Any) -> list[bool]:
        loop = [("a", "1"), ("a", "1"), ("a", "1"), *later]
        config = StuckConfig(repeated=2, errors=None, nothing_new=None, **settings)
        return [find_stuck(config, run(*loop[: 3 + i])) is not None for i in range(len(later) + 1)]

    new = [(f"t{i}", f"news {i}") for i in range(3)]
    old = [(f"t{i}", "1") for i in range(6)]
    assert play_on(new, hold=1, most=9) == [True, False, False, False]
    assert play_on(new, hold=2, most=9) == [True, True, False, False]
    assert play_on(old, hold=2, most=4) == [True, True, True, True, False, False, False]


async def test_a_shadow_says_what_the_cascade_would_have_done() -> None:
    one = {"errors": 1, "error_phrases": ("key 1",), "repeated": None, "nothing_new": None, "hold": 1}
    decisions, _, recorder = await play(4, mode="shadow", stuck=one)
    assert {d.reason for d in decisions} == {"mode shadow"}
    accepted = {shadow.step: shadow.accepted for shadow in recorder.shadows}
    assert accepted == {0: True, 1: True, 2: False, 3: True}


TEXTS = st.one_of(st.sampled_from(["", "[]", "error: x", "a\nb", "a", "submit", "b" * 401]), st.text(max_size=20))
STEPS = st.lists(st.builds(Step, observation=TEXTS, reasoning=TEXTS, action=TEXTS), max_size=8)
NUMBERS = st.one_of(st.none(), st.integers(1, 3))
CONFIGS = st.builds(
    StuckConfig,
    **{name: NUMBERS for name in SIGNALS if name != "over_plan"},
    hold=st.integers(1, 3),
    most=st.integers(1, 5),
)


@settings(max_examples=20, deadline=None)
@given(STEPS, TEXTS, CONFIGS)
def test_a_stateless_step_finds_what_a_watch_of_the_whole_run_finds(
    steps: list[Step], last: str, config: StuckConfig
) -> None:
    whole = [*steps, Step(observation=last, action="")]
    watch = Watch(config)
    followed = [watch.observe(event) for event in events(whole, config)]
    alone = [
        find_stuck(config, Situation(goal="", history=tuple(whole[:i]), observation=step.observation))
        for i, step in enumerate(whole)
    ]
    assert alone == followed
    held = [found is not None for found in followed]
    assert all(
        not any(held[i : i + config.most + 1]) or not all(held[i : i + config.most + 1])
        for i in range(len(held) - config.most)
    )


def test_a_long_run_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stuck, "PART", 4)
    pairs = [("look", "A desk.")] * 9
    found = [find_stuck(only("nothing_new", 2), run(*pairs[:i])) for i in range(9)]
    assert [f is not None for f in found] == [False, False, False, True, False, False, True, True, False]


def test_texts_of_the_same_bytes_in_memory_differ() -> None:
    assert hash("ab") == hash("\u6261"), "why a hash alone does not do"
    one, other = (Step(observation="o", action=action) for action in ("ab", "\u6261"))
    assert stuck.event(one, "ab", StuckConfig()) != stuck.event(other, "ab", StuckConfig())
    assert stuck.event(one, "ab", StuckConfig()) != stuck.event(one, "\u6261", StuckConfig())


def test_texts_differ_though_they_are_long_and_phrases_in_the_middle_say_nothing() -> None:
    page = "x" * 15_000
    pairs = [(f"open {i}", f"{page}{'error: y' if i else ''}{page}{i}") for i in range(4)]
    assert find_stuck(StuckConfig(), run(*pairs)) is None


@pytest.mark.parametrize(
    ("router", "message"),
    [
        ({"stuck": {"repeated": 0}}, r"router.stuck.repeated"),
        ({"stuck": {"error_phrases": ["", "error"]}}, "an empty phrase is in every text"),
        ({"stuck": {"loops": 2}}, r"router.stuck.loops"),
    ],
)
def test_a_wrong_setting_is_named(router: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CascadeConfig.load(router=router)


def test_it_is_of_the_whole_run() -> None:
    with pytest.raises(ConfigError, match="whichever student is asked"):
        CascadeConfig.load(students=[{"name": "openai/gpt-4.1-mini", "router": {"name": "unanimity", "stuck": {}}}])
    with pytest.raises(ConfigError, match=r"memory.router.*stuck is the step router's"):
        CascadeConfig.load(memory={"router": {"name": "fixed", "stuck": {}}})
