"""Demonstrations read back from the text of the default templates, as a stand-in behind HTTP gets it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.prompts.additions import by_default
from agentcascade.prompts.demonstrations import build, demonstrations_in, without_demonstrations
from agentcascade.prompts.prompts import DEFAULT, UNQUOTED, Prompts
from agentcascade.prompts.read_back import with_structure
from agentcascade.types import Demonstration, Message, Step

TASK: list[Message] = [{"role": "system", "content": "You act."}, {"role": "user", "content": "put a mug on the desk"}]
LINE = st.text("ab c#.", min_size=1, max_size=12).map(str.strip).filter(bool)
STEPS = st.lists(st.builds(Step, observation=LINE, reasoning=LINE | st.just(""), action=LINE), min_size=1, max_size=3)


@pytest.mark.parametrize("prompts", [DEFAULT, UNQUOTED], ids=["fenced", "plain"])
@given(shown=st.lists(st.tuples(LINE, STEPS, st.integers(0, 3)), min_size=1, max_size=4), task=LINE | st.just(""))
def test_what_came_as_json_reads_as_what_was_sent(
    prompts: Prompts, shown: list[tuple[str, list[Step], int]], task: str
) -> None:
    demonstrations = [
        Demonstration(trajectory=f"t{i}", goal=goal, steps=tuple(steps), start=start, match=0, length=9, score=0.5)
        for i, (goal, steps, start) in enumerate(shown)
    ]
    prompt = build(TASK, demonstrations, budget=10**6, count=len, prompts=prompts, task=task)
    arrived = json.loads(json.dumps(prompt.messages))
    assert demonstrations_in(arrived[1]) is None
    back = with_structure(arrived)
    assert [dict(m) for m in back] == arrived
    structure = demonstrations_in(back[1])
    assert structure is not None
    if prompts is UNQUOTED:
        assert [(d.goal, d.steps, d.start) for d in structure.demonstrations] == [
            (d.goal, d.steps, d.start) for d in demonstrations
        ]
    assert by_default(back[1]) == by_default(prompt.messages[1])


@pytest.mark.parametrize(
    "observed", [{"role": "user", "content": "You see # a mug."}, {"role": "tool", "content": "a mug"}]
)
def test_what_stood_before_the_observation_is_read_back_too(observed: Message) -> None:
    step = Step(observation="a mug", action="take it")
    shown = Demonstration(trajectory="t", goal="g", steps=(step,), start=0, match=0, length=3, score=0.5)
    sent = [*TASK, {"role": "assistant", "content": "look"}, observed]
    prompt = build(sent, [shown], budget=10**6, count=len, prompts=UNQUOTED, place="last")
    back = with_structure(json.loads(json.dumps(prompt.messages)))
    assert [dict(m) for m in back] == prompt.messages
    structure = demonstrations_in(back[-1])
    assert structure is not None
    assert structure.demonstrations[0].steps == (step,)
    assert [by_default(without_demonstrations(m)) for m in back][: len(sent)] == sent
    assert [m.get("content") for m in map(without_demonstrations, back)][len(sent) :] in ([], [""])


@pytest.mark.parametrize("content", ["go", "", None, [{"type": "text", "text": "# Examples"}], "# Examples\nno more"])
def test_other_messages_stay_as_they_are(content: object) -> None:
    messages: list[Message] = [{"role": "user", "content": content}]
    assert with_structure(messages) == messages
    assert with_structure([{"role": "assistant", "content": "x"}]) == [{"role": "assistant", "content": "x"}]
