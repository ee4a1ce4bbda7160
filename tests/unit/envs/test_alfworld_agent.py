from __future__ import annotations

import pytest

from agentcascade.envs.alfworld import agent
from agentcascade.types import Message


class Corridor:
    """A world that is solved by going north twice."""

    def __init__(self) -> None:
        self.north = 0
        self.heard: list[str] = []

    def reset(self, task: str) -> str:
        self.north = 0
        return f"You are in {task}. Your task is to: go north twice."

    def step(self, action: str) -> tuple[str, bool]:
        self.heard.append(action)
        if action != "go north":
            return "Nothing happens.", False
        self.north += 1
        return f"You are {self.north} further.", self.success

    @property
    def success(self) -> bool:
        return self.north == 2

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("Thought: It is there.\nAction: go to desk 1", "go to desk 1"),
        ("thought: hm\naction:   Go To  Desk 1.", "go to desk 1"),
        ("Action: look\nThought: no, better\nAction: inventory", "inventory"),
        ("Thought: quoted\nAction: `take mug 1 from desk 1`", "take mug 1 from desk 1"),
        ('**Thought:** bold\n\n**Action:** "look"', "look"),
        ("go to desk 1\nbecause I can", "go to desk 1"),
        ("Action:", "action:"),
        ("", ""),
    ],
)
def test_the_command_is_read_leniently(text: str, action: str) -> None:
    assert agent.parse_action(text) == action


async def test_plays_until_the_task_is_solved() -> None:
    asked: list[list[Message]] = []

    async def complete(messages: list[Message]) -> str:
        asked.append(list(messages))
        return "Thought: on.\nAction: " + ("dance" if len(asked) == 1 else "go north")

    result = await agent.play(Corridor(), "a corridor", complete)
    assert (result.success, result.steps) == (True, 3)
    assert result.trace[0] == ("dance", "Nothing happens.")
    assert [m["role"] for m in asked[-1]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert asked[-1][1]["content"].startswith("You are in a corridor.")
    assert asked[-1][-1] == {"role": "user", "content": "You are 1 further."}


async def test_gives_up_after_the_last_step() -> None:
    async def complete(messages: list[Message]) -> str:
        return "I do not know."

    world = Corridor()
    result = await agent.play(world, "a corridor", complete, max_steps=4)
    assert (result.success, result.steps) == (False, 4)
    assert world.heard == ["i do not know"] * 4
