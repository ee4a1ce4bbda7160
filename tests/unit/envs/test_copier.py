from __future__ import annotations

import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.actions.python import canonical_python
from agentcascade.envs.offline.copier import Copier, aligned, candidates, renamed, restyled
from agentcascade.errors import InvalidRequest
from agentcascade.prompts import demonstrations as prompts
from agentcascade.protocols import ChatModel
from agentcascade.types import Demonstration, Message, Step

LIKE = (
    Step(observation="", reasoning="I look for Road Trip.", action="p = find('Road Trip')\nprint(p)"),
    Step(observation="{'songs': [1, 2]}", reasoning="I like them.", action="for s in p['songs']:\n    like(s)"),
    Step(observation="liked", reasoning="Done.", action="apis.supervisor.complete_task()"),
)


def shown(*steps: Step, goal: str = "Like all songs of my playlist 'Road Trip'.", start: int = 0) -> Demonstration:
    length = start + len(steps)
    return Demonstration(
        trajectory="t", goal=goal, plan="", start=start, length=length, match=start, steps=steps, score=1.0
    )


def conversation(goal: str, *turns: tuple[str, str], demonstrations: tuple[Demonstration, ...]) -> list[Message]:
    messages: list[Message] = [
        {"role": "system", "content": "You write code."},
        {"role": "user", "content": f"My name is Ann.\nYour task is to: {goal}"},
    ]
    for code, seen in turns:
        messages.append({"role": "assistant", "content": f"Thought: so\nAction:\n```python\n{code}\n```"})
        messages.append({"role": "user", "content": seen})
    return prompts.build(messages, demonstrations, budget=10_000, count=lambda text: len(text.split())).messages


def copier() -> Copier:
    return Copier(lambda text: len(text.split()), lambda usage: Decimal(usage.prompt + usage.output))


GOAL = "Like all songs of my playlist 'Deep Focus'."


def test_it_is_a_chat_model() -> None:
    assert isinstance(copier(), ChatModel)


def test_it_follows_the_demonstration_step_by_step_with_its_own_names() -> None:
    turns: list[tuple[str, str]] = []
    wanted = [s.action.replace("Road Trip", "Deep Focus") for s in LIKE]
    for code in wanted:
        best = candidates(conversation(GOAL, *turns, demonstrations=(shown(*LIKE),)))[0]
        assert best.code == code
        turns.append((code, "something"))
    assert "Deep Focus" in candidates(conversation(GOAL, demonstrations=(shown(*LIKE),)))[0].thought


def test_a_window_from_the_middle_is_used_where_its_first_step_was_just_done() -> None:
    window = shown(*LIKE[1:], start=1)
    written = LIKE[1].action
    best = candidates(conversation(GOAL, (written, "liked"), demonstrations=(window,)))[0]
    assert best.code == LIKE[2].action


def test_without_demonstrations_it_looks_around_once_and_gives_up() -> None:
    (first,) = candidates(conversation(GOAL, demonstrations=()))
    assert "show_app_descriptions" in first.code
    (second,) = candidates(conversation(GOAL, (first.code, "apps"), demonstrations=()))
    assert "complete_task" in second.code


def test_the_task_that_is_worded_alike_is_copied() -> None:
    other = shown(
        Step(observation="", reasoning="", action="delete('a')"), goal="Delete all files that end in .tmp from my disk"
    )
    found = candidates(conversation(GOAL, demonstrations=(other, shown(*LIKE))))
    assert found[0].code == LIKE[0].action.replace("Road Trip", "Deep Focus")


async def test_the_same_seed_gives_the_same_answers_in_one_request_or_several() -> None:
    messages = conversation(GOAL, demonstrations=(shown(*LIKE),))
    together = await copier().complete(messages, n=3, temperature=0.8, seed=5)
    apart = [await copier().complete(messages, temperature=0.8, seed=5 + i) for i in range(3)]
    assert [m["content"] for m in together.messages] == [a.messages[0]["content"] for a in apart]
    assert together.usage.prompt == apart[0].usage.prompt
    assert together.dollars == together.usage.prompt + together.usage.output


async def test_samples_say_the_same_in_various_ways() -> None:
    messages = conversation(GOAL, demonstrations=(shown(*LIKE),))
    drawn = await copier().complete(messages, n=20, temperature=0.01)
    texts = {str(m["content"]).partition("```python\n")[2].removesuffix("\n```") for m in drawn.messages}
    assert len(texts) > 1
    assert len({canonical_python(text) for text in texts}) == 1
    exact = await copier().complete(messages, n=5, temperature=0)
    assert len({m["content"] for m in exact.messages}) == 1


async def test_no_messages_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="messages is empty"):
        await copier().complete([])


def test_names_are_replaced_all_at_once_and_whole() -> None:
    assert renamed("a b ab", {"a": "b", "b": "a"}) == "b a ab"
    assert aligned("Text my friends: 'Hi'.", "Text my siblings: 'Come home'.") == {
        "friends": "siblings",
        "Hi": "Come home",
    }


PROGRAMS = (
    "print(f(a=1, b=2))",
    "xs = [x['id'] for x in ys if x['n'] > 1]\nprint(xs)",
    "best = max(songs, key=lambda s: s['plays'])\nprint(best['title'], sep='')",
    "emails = {p['email'] for p in people}\nfor r in rs:\n    if r['sender'] in emails:\n        deny(r['id'], t=t)",
)


@given(st.sampled_from(PROGRAMS), st.integers())
def test_another_way_of_writing_is_the_same_program(code: str, seed: int) -> None:
    assert canonical_python(restyled(code, random.Random(seed))) == canonical_python(code)


@given(st.text())
def test_any_text_can_be_restyled(code: str) -> None:
    assert isinstance(restyled(code, random.Random(0)), str)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), st.text()), min_size=1))
def test_any_conversation_has_candidates(turns: list[tuple[str, str]]) -> None:
    assert candidates([{"role": role, "content": text} for role, text in turns])
