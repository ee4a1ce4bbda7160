"""The plan and the first thought: what is asked, where the answers go, and that the conversation stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.actions.base import RegexActions
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import InvalidRequest
from agentcascade.messages import text_of
from agentcascade.models.scripted import ScriptedModel
from agentcascade.models.tokens import token_counter
from agentcascade.prompts import planning
from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.prompts.prompts import Prompts
from agentcascade.routers.step.consistency import Unanimity
from agentcascade.step.context import StepContext
from agentcascade.types import Message

SYSTEM: Message = {"role": "system", "content": "rules"}
TASK: Message = {"role": "user", "content": "put a mug on the desk"}
LOOK: Message = {"role": "assistant", "content": "Action: look"}
SEEN: Message = {"role": "user", "content": "a mug 1"}
CALL: Message = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
}
RESULT: Message = {"role": "tool", "tool_call_id": "1", "content": "a mug 1"}
PARTS: Message = {"role": "user", "content": [{"type": "text", "text": "put"}, {"type": "image_url", "image_url": {}}]}

turns = st.lists(st.sampled_from([[LOOK, SEEN], [CALL, RESULT], [LOOK, PARTS]]), max_size=3)
openings = st.sampled_from([[TASK], [SYSTEM, TASK], [SYSTEM, PARTS], [SYSTEM, TASK, SEEN]])


def conversation(opening: list[Message], turns: Sequence[list[Message]]) -> list[Message]:
    return [*opening, *(message for turn in turns for message in turn)]


@given(openings, turns)
@settings(deadline=None)
def test_a_question_goes_to_the_user_at_the_end_and_changes_nothing_else(
    opening: list[Message], turns: list[list[Message]]
) -> None:
    messages = conversation(opening, turns)
    before = copy.deepcopy(messages)
    asked = planning.asking(messages, "plan", Prompts(texts={"plan": "why?"}))
    assert messages == before
    assert asked[-1]["role"] == "user"
    assert text_of(asked[-1]).endswith("why?")
    if messages[-1]["role"] == "user":
        assert asked[:-1] == messages[:-1]
        assert text_of(asked[-1]).startswith(text_of(messages[-1]))
    else:
        assert asked[:-1] == messages


@given(openings, turns)
@settings(deadline=None)
def test_the_plan_stands_in_the_first_user_message_so_the_prefix_is_the_same_at_every_step(
    opening: list[Message], turns: list[list[Message]]
) -> None:
    messages = conversation(opening, turns)
    before = copy.deepcopy(messages)
    planned, at_first = planning.with_plan(messages, "1. look"), planning.with_plan(opening, "1. look")
    assert messages == before
    assert planned[: len(opening)] == at_first
    assert planned[len(opening) :] == messages[len(opening) :]
    changed = [(old, new) for old, new in zip(messages, planned) if old != new]
    ((old, new),) = changed
    assert old == next(m for m in messages if m["role"] == "user")
    assert text_of(new).startswith(text_of(old))
    assert text_of(new).endswith("Your plan:\n1. look")


def test_a_plan_without_a_user_message_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match="user message"):
        planning.with_plan([SYSTEM, LOOK, RESULT], "1. look")


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("Mugs are near sinks.\n\nMore.", "Thought: Mugs are near sinks."),
        ("\n\n  Mugs are\nnear sinks.  ", "Thought: Mugs are\nnear sinks."),
        ("Thought: Mugs are near sinks.\n\nAction: look", "Thought: Mugs are near sinks."),
        ("Mugs are near sinks.\n  \nMore.", "Thought: Mugs are near sinks."),
        ("Mugs are near sinks.\r\n\r\nMore.", "Thought: Mugs are near sinks."),
        ("Thought:\n\nMugs are near sinks.", "Thought: Mugs are near sinks."),
        ("Thought:", ""),
        ("", ""),
        (" \n\n ", ""),
    ],
)
def test_the_first_thought_ends_at_the_first_blank_line(text: str, thought: str) -> None:
    assert planning.first_thought(text) == thought


@given(st.text())
@settings(deadline=None)
def test_a_first_thought_is_empty_or_says_something_without_a_blank_line(text: str) -> None:
    thought = planning.first_thought(text)
    assert thought == "" or (thought.startswith("Thought: ") and thought.removeprefix("Thought: ").strip())
    assert "\n\n" not in thought


def test_an_answer_opens_with_the_thought_once() -> None:
    thought = "Thought: Mugs are near sinks."
    opened = planning.opened(LOOK, thought)
    assert opened == {"role": "assistant", "content": f"{thought}\nAction: look"}
    assert planning.opened(opened, thought) == opened
    assert planning.opened(CALL, thought) == CALL
    in_parts: Message = {"role": "assistant", "content": [{"type": "text", "text": "Action: look"}]}
    assert planning.opened(in_parts, thought)["content"] == f"{thought}\nAction: look"
    assert "content" not in planning.opened({"role": "assistant", "tool_calls": CALL["tool_calls"]}, thought)


def test_the_opening_words_are_asked_for_after_the_task() -> None:
    (message,) = planning.opening_with([TASK], "Thought: so.")
    assert message["content"].startswith(TASK["content"])
    assert message["content"].endswith("\nThought: so.")


async def test_a_teacher_that_keeps_or_forgets_the_thought_gives_the_same_trajectory() -> None:
    """Plan and thought are asked of the bare conversation; only the first answer opens with the thought."""
    said = []
    for forgets in (True, False):

        def script(messages: Sequence[Message], sample: int, forgets: bool = forgets) -> str:
            asked = text_of(messages[-1])
            if asked.endswith(TEMPLATES["plan"].text):
                return " 1. look\n2. take \n"
            if asked.endswith(TEMPLATES["first_thought"].text):
                return "Mugs are near sinks.\n\nAnd so on."
            opening = asked.partition("go on:\n")[2]
            return "Action: look" if forgets or not opening else f"{opening}\nAction: look"

        config = CascadeConfig.load(mode="collect", collect={"plan": True, "first_thought": True})
        teacher = ScriptedModel(script, name="teacher")
        cascade = Cascade(
            StepContext(
                config=config, router=Unanimity(), count=token_counter(), teacher=teacher, actions=RegexActions()
            )
        )
        episode = cascade.episode()
        first = (await episode.complete([SYSTEM, TASK])).choices[0].message
        await episode.complete([SYSTEM, TASK, {"role": "assistant", "content": first.content}, SEEN])
        assert first.content == "Thought: Mugs are near sinks.\nAction: look"
        assert [("Your plan:\n1. look\n2. take" in text_of(r[1]), len(r)) for r in teacher.requests] == [
            (False, 2),
            (False, 2),
            (True, 2),
            (True, 4),
        ]
        said.append(episode.trajectory(True).model_dump(include={"goal", "plan", "steps"}))
    assert said[0] == said[1]
    assert said[0]["plan"] == "1. look\n2. take"
    assert [step["reasoning"] for step in said[0]["steps"]] == ["Mugs are near sinks.", ""]


async def test_a_given_plan_is_shown_but_not_asked_for() -> None:
    teacher = ScriptedModel(["Action: look"])
    config = CascadeConfig.load(mode="collect", collect={"plan": True})
    cascade = Cascade(StepContext(config=config, router=Unanimity(), count=token_counter(), teacher=teacher))
    answer = await cascade.episode(plan="1. my own").complete([TASK])
    assert [text_of(r[0]) for r in teacher.requests] == ["put a mug on the desk\n\nYour plan:\n1. my own"]
    assert [c.purpose for c in answer.agentcascade.calls] == ["act"]
