"""The models of the agents whose databases and configurations lie here: programs, named as `players:Teacher`.

They go through public names alone and read nothing of a prompt but its words, so that any version can run them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from agentcascade import Price, ScriptedModel

DEAR, CHEAP = (
    Price(input=Decimal(3), output=Decimal(15)),
    Price(input=Decimal("0.4"), output=Decimal("1.6")),
)
THOUGHT = (
    "The {0} key was put away some time ago by somebody who is tidy, so it is most likely in the drawer of its own "
    "colour, and a drawer has to be open before anything can be taken out of it."
)


def words(messages: Sequence[Any], role: str | None = None) -> str:
    return "\n".join(str(m.get("content")) for m in messages if role in (None, m["role"]))


def colour(messages: Sequence[Any]) -> str:
    """Of the key that the task is about: tasks come before demonstrations."""
    return re.findall(r"Your task is to: fetch the (\w+) key", words(messages, "user"))[0]


def right(messages: Sequence[Any]) -> str:
    """The next action, by the last observation."""
    last, own = str(messages[-1]["content"]), colour(messages)
    if "You hold" in last:
        return "finish"
    return f"take {own} key" if "is open" in last else f"open {own} drawer"


class Teacher(ScriptedModel):
    """Knows the way, and plans it where it is asked for a plan."""

    def __init__(self, price: Price | None = DEAR, name: str = "players/teacher") -> None:
        super().__init__(self._say, name=name, price=price)

    def _say(self, messages: Sequence[Any], sample: int) -> str:
        if "write the plan" in words(messages[-1:]):
            return "1. Open the drawer.\n2. Take the key."
        return f"Thought: {THOUGHT.format(colour(messages))}\nAction: {right(messages)}"


class Unpriced(Teacher):
    """The same, by a provider that does not say what it takes."""

    def __init__(self) -> None:
        super().__init__(price=None, name="players/unpriced")


class Student(ScriptedModel):
    """Does what a demonstration of the same colour did; without one each of its samples says something else.

    It takes green for a colour of doors.
    """

    def __init__(self) -> None:
        super().__init__(self._say, name="players/student", price=CHEAP)

    def _say(self, messages: Sequence[Any], sample: int) -> str:
        own = colour(messages)
        if f"open {own} drawer" in words(messages):
            act = right(messages).replace("green drawer", "green door")
            return f"Thought: As before.\nAction: {act}"
        return f"Thought: Who knows?\nAction: look {sample}"


class Judge(ScriptedModel):
    """Finds that everybody did well."""

    def __init__(self) -> None:
        super().__init__(["yes"], name="players/judge", price=CHEAP)


class Room:
    """A drawer and a key."""

    def __init__(self, colour: str) -> None:
        self.colour, self._state = colour, 0

    @property
    def messages(self) -> list[dict[str, Any]]:
        text = f"You are in a room with drawers of many colours.\nYour task is to: fetch the {self.colour} key"
        return [{"role": "user", "content": text}]

    def act(self, answer: str) -> tuple[str, bool]:
        action = answer.rpartition("Action: ")[2]
        if self._state == 0 and action == f"open {self.colour} drawer":
            self._state = 1
            return (
                f"The {self.colour} drawer is open. There is a {self.colour} key in it.",
                False,
            )
        if self._state == 1 and action == f"take {self.colour} key":
            self._state = 2
            return f"You hold the {self.colour} key.", False
        return "Nothing happens.", self._state == 2 and action == "finish"
