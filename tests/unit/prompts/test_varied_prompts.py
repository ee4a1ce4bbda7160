"""Varied prompts: the same demonstrations in another order, or some of them, and nothing else differs."""

from __future__ import annotations

from typing import Any

import pytest

from agentcascade.messages import text_of
from agentcascade.prompts import demonstrations
from agentcascade.prompts.additions import Composed, Rendered
from agentcascade.prompts.demonstrations import demonstrations_in, without_demonstrations
from agentcascade.prompts.variation import variants, varied
from agentcascade.types import Demonstration, Step

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "You play."},
    {"role": "user", "content": "Task: put a mug on the desk."},
    {"role": "assistant", "content": "Action: look"},
    {"role": "user", "content": "You see a mug 1."},
]


def words(text: str) -> int:
    return len(text.split())


def built(number: int, **options: Any) -> Any:
    step = Step(observation="o", reasoning="r", action="a")
    shown = [
        Demonstration(trajectory=f"tr_{i}", goal=f"goal {i}", steps=(step,), start=0, match=0, length=1, score=0.5)
        for i in range(number)
    ]
    return demonstrations.build(MESSAGES, shown, budget=10_000, count=words, task="put a mug", **options).messages


def goals(messages: Any) -> list[int]:
    shown = next(found for m in messages if (found := demonstrations_in(m)))
    text = "\n".join(text_of(m) for m in messages)
    order = sorted(range(9), key=lambda i: text.find(f"Goal: goal {i}\n") % (len(text) + 1))
    assert [int(d.goal[-1]) for d in shown.demonstrations] == order[: len(shown.demonstrations)]
    return order[: len(shown.demonstrations)]


@pytest.mark.parametrize("place", ["first", "last"])
def test_each_sample_sees_another_order_and_all_else_is_the_same(place: Any) -> None:
    prompt = built(4, place=place)
    orders = [goals(varied(prompt, "order", i)) for i in range(5)]
    assert orders == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2], [0, 1, 2, 3]]
    assert varied(prompt, "order", 0) is prompt
    other = varied(prompt, "order", 1)
    assert [without_demonstrations(m) for m in other] == [without_demonstrations(m) for m in prompt] == MESSAGES
    assert sorted("\n".join(map(text_of, other)).split()) == sorted("\n".join(map(text_of, prompt)).split())


def test_subsets_leave_out_another_third_each() -> None:
    prompt = built(6)
    seen = [goals(varied(prompt, "subsets", i)) for i in range(4)]
    assert seen == [[0, 1, 3, 4], [0, 2, 3, 5], [1, 2, 4, 5], [0, 1, 3, 4]]
    assert all(goals(varied(built(2), "subsets", i)) for i in range(3))


@pytest.mark.parametrize(
    ("number", "how", "count"), [(0, "order", 1), (1, "subsets", 1), (2, "order", 2), (5, "none", 1)]
)
def test_where_nothing_can_be_varied_the_prompt_stays(number: int, how: Any, count: int) -> None:
    prompt = built(number)
    assert variants(prompt, how) == count
    assert count > 1 or list(varied(prompt, how, 1)) == prompt


def test_what_was_added_behind_the_demonstrations_stays_there() -> None:
    prompt = built(3)
    prompt[1] = Composed(prompt[1], "MEMORY", Rendered("memory", {"memory": "m"}))
    other = varied(prompt, "order", 2)
    assert goals(other) == [2, 0, 1]
    assert text_of(other[1]).endswith("\n\nMEMORY")
