"""Pool of a benchmark suite's tasks, for active collection: goals that their world tells, and episodes played in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentcascade.bench.suites.protocol import Suite, Task
from agentcascade.bench.worker import Completing
from agentcascade.cascade import Cascade
from agentcascade.episodes.active_collect import PoolTask
from agentcascade.episodes.episode import Episode
from agentcascade.prompts.prompts import prompts_of
from agentcascade.protocols import Environment
from agentcascade.types import Message


class _GoalRead(Exception):
    """Ends an episode at its first step, when its goal is known."""

    def __init__(self, goal: str) -> None:
        super().__init__(goal)
        self.goal = goal


class _ReadingGoal:
    """Stands for a model where only the goal of a task is asked for."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite

    async def __call__(self, messages: list[Message]) -> str:
        raise _GoalRead(self._suite.goal(messages))

    async def message(self, messages: list[Message], **options: Any) -> Message:
        raise _GoalRead(self._suite.goal(messages))


async def suite_pool(suite: Suite, environment: Environment, tasks: Sequence[Task], cascade: Cascade) -> list[PoolTask]:
    """The tasks of a suite as a pool; each is begun once to read its goal, and no model is asked.

    Raises what the suite's world raises.
    """
    pool = []
    for task in tasks:
        try:
            await suite.play(environment, task.path, _ReadingGoal(suite))
            goal = ""
        except _GoalRead as read:
            goal = read.goal
        pool.append(PoolTask(task.id, goal, _playing(suite, environment, task, cascade)))
    return pool


def _playing(suite: Suite, environment: Environment, task: Task, cascade: Cascade) -> Any:
    async def play(episode: Episode) -> bool:
        episode.category = task.category
        complete = Completing(cascade, episode, suite, prompts_of(cascade.config.prompt))
        return (await suite.play(environment, task.path, complete)).success

    return play
