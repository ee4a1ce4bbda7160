"""Trajectories and what is cut from them: steps, the situation of one, demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from agentcascade.types.base import Frozen, new_id, now


class Step(Frozen):
    """Step of an agent, one model call: what it observed, what it reasoned, what it did.

    >>> from agentcascade import Step
    >>> Step(observation="You see a mug.", reasoning="The mug is wanted.", action="take mug").action
    'take mug'
    """

    observation: str = Field(description="what was said since the step before")
    reasoning: str = Field(default="", description="of the answer, what is no action")
    action: str = Field(description="as a demonstration shows it")


class Trajectory(Frozen):
    """Trajectory of an episode: its ordered steps, and what became of it. The bank holds them.

    >>> from agentcascade import Step, Trajectory
    >>> steps = (Step(observation="You see a mug.", action="take mug"), Step(observation="You have it.", action="done"))
    >>> trajectory = Trajectory(goal="take the mug", steps=steps, success=True)
    >>> len(trajectory.steps), trajectory.namespace
    (2, 'default')
    """

    id: str = Field(default_factory=lambda: new_id("tr"))
    namespace: str = "default"
    goal: str
    plan: str = ""
    category: str = Field(default="", description="kind of task")
    steps: tuple[Step, ...]
    success: bool = Field(description="whether it reached its goal")
    model: str = Field(default="", description="that took the last step")
    metadata: Mapping[str, Any] = Field(default_factory=dict, description="kept with it, and not read")
    created_at: datetime = Field(default_factory=now)


class Situation(Frozen):
    """Situation of an agent when a step begins: the query of retrieval and the router's input.

    >>> from agentcascade import Situation, Step
    >>> before = (Step(observation="You see a mug.", action="take mug"),)
    >>> Situation(goal="take the mug", history=before, observation="You have it.").step
    1
    """

    goal: str
    plan: str = ""
    history: tuple[Step, ...] = Field(default=(), description="the steps so far, oldest first")
    observation: str = Field(default="", description="to act on: what was said since the last step")
    category: str = Field(default="", description="kind of task")
    namespace: str = Field(default="default", description="whose demonstrations and budgets")
    episode: str = Field(default="", description="its id")

    @property
    def step(self) -> int:
        """Index of the step about to be taken, from 0."""
        return len(self.history)


class Tried(Frozen):
    """Failed action that was tried in the situation of a demonstration's step, and what came of it."""

    step: int = Field(ge=0, description="index of the step in its trajectory")
    action: str
    result: str = Field(description="the observation that followed")


class Demonstration(Frozen):
    """Demonstration: a window of a banked trajectory, retrieved for one step.

    >>> from agentcascade import Demonstration, Step
    >>> window = (Step(observation="You see a mug.", action="take mug"),)
    >>> Demonstration(trajectory="tr_1", goal="take a mug", steps=window, start=3, match=3, length=9, score=0.8).score
    0.8
    """

    trajectory: str = Field(description="id of the trajectory it was cut from")
    goal: str
    plan: str = ""
    steps: tuple[Step, ...]
    start: int = Field(ge=0, description="index in the trajectory of the window's first step")
    match: int = Field(ge=0, description="index in the trajectory of the step that matched")
    length: int = Field(ge=1, description="steps in the whole trajectory")
    score: float = Field(description="weighted mean of the keys' cosine similarities")
    tried: tuple[Tried, ...] = Field(default=(), description="what is known to fail in the situations of its steps")
