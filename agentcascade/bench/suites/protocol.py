"""Benchmark suites of agents: what one brings, namely tasks, a world, and the agent loop that plays it.

`agentcascade bench NAME` plays the suite that is registered as NAME in the entry-point group ``agentcascade.suites``:
a class that implements `PlayableSuite`. Its docstring is the command's help. It may have options of its own, as the
fields of a dataclass, whose metadata are passed on to `click.Option`::

    @dataclass
    class MazeSuite:
        \"\"\"Mazes in text.\"\"\"

        size: int = field(default=5, metadata={"help": "Rooms on a side."})    # --size
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from agentcascade.protocols import Environment
from agentcascade.types import Message

__all__ = ["Defaults", "Outcome", "PlayableSuite", "Source", "Suite", "Task"]

Source = Literal["official", "generated", "recorded"]
"""Where tasks come from: the data set itself, made here, or published with recorded runs."""


@dataclass(frozen=True)
class Task:
    """One task of a suite: a stable id, where the world finds it, its kind, and the tasks it belongs together with."""

    id: str
    path: str
    category: str = ""
    group: str = ""


class Outcome(Protocol):
    """What came of one played task."""

    @property
    def success(self) -> bool:
        """Whether the task's goal was reached."""
        ...


class Suite(Protocol):
    """What worker processes need of a benchmark; each makes one."""

    @property
    def name(self) -> str:
        """What `agentcascade bench` calls it."""
        ...

    @property
    def actions(self) -> Mapping[str, Any]:
        """The section `actions` of the configuration."""
        ...

    @property
    def stop(self) -> Sequence[str]:
        """Stop sequences: a small model would go on and make up the next observation."""
        ...

    def environment(self, *, expert: bool) -> Environment:
        """`expert`: the world must be able to tell an offline teacher its plan."""
        ...

    def goal(self, messages: list[Message]) -> str:
        """The task's text, out of the first messages."""
        ...

    async def play(self, environment: Environment, path: str, complete: Callable[..., Any]) -> Outcome:
        """One episode; `complete` takes the conversation and gives the assistant's text.

        ``complete.message(messages, tools=…)`` gives the whole message, with its tool calls.
        """
        ...


@dataclass(frozen=True)
class Defaults:
    """Defaults of the options that `agentcascade bench` has for every suite.

    Args:
        teacher, student: names of models.
        splits: where tasks may come from; the first is the default.
        episodes: tasks per policy and seed.
        demonstrations: teacher episodes to learn from.
        k: demonstrations per step.
        window: ``BEFORE/AFTER``, the steps of each around the one that matches; default: the configuration's.
        training: the split that demonstrations come from.
        samples: of the student at a step.
        policies: what is played where none is named; default: all of `bench.policies.POLICIES`.
        members: further students of a committee, where no student is named.

    A suite whose options change what it plays may set another `defaults` when it is made: its figures then stand for
    the options of the command line that were not given.
    """

    teacher: str
    student: str
    splits: tuple[str, ...]
    episodes: int
    demonstrations: int
    k: int
    training: str = "train"
    samples: int = 3
    window: str | None = None
    policies: tuple[str, ...] = ()
    members: tuple[str, ...] = ()


class PlayableSuite(Suite, Protocol):
    """What the command line needs on top."""

    @property
    def defaults(self) -> Defaults:
        """Of the options that every suite has."""
        ...

    @property
    def dropped(self) -> Sequence[str]:
        """Observations of actions that did nothing; such steps are not banked."""
        ...

    @property
    def packages(self) -> Sequence[str]:
        """Whose versions a report names."""
        ...

    @property
    def group(self) -> str:
        """What a task's `group` is called; empty where there is none."""
        ...

    def check(self) -> None:
        """Raises `MissingExtra`, or another error that says what to install, before anything is played."""
        ...

    def tasks(
        self, split: str, count: int, seed: int, *, workers: int, on_progress: Callable[[int, int], None]
    ) -> tuple[list[Task], Source]:
        """`count` tasks of a split, in an order that hangs on the seed; as many as there are, where there are fewer."""
        ...

    # Optional: `price(model) -> {"input": …, "output": …} | None`, dollars per million tokens that the suite knows of a
    # model; `label(step, task) -> LoggedStep`, a step of the log with what is right at it (`gold`); `adapt(model) ->
    # ChatModel`, a model as the suite's world needs it.

    def notes(self, source: Source, models: Sequence[str]) -> list[str]:
        """What must be said beside the table: where tasks come from, what the models are that are none."""
        ...
