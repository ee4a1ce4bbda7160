"""ALFWorld as a benchmark suite: which games, which world, which agent loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentcascade.bench.runner import Task
from agentcascade.bench.worker import Outcome
from agentcascade.envs.alfworld import agent
from agentcascade.envs.alfworld.dataset import Game, load_games
from agentcascade.envs.alfworld.environment import AlfworldEnvironment
from agentcascade.protocols import Environment
from agentcascade.types import Message

MAX_STEPS = 50
NOTHING_HAPPENED = "Nothing happens"
SPLITS = ("train", "valid_seen", "valid_unseen")


class AlfworldSuite:
    """Plays text games of the real ALFWorld engine with a ReAct agent."""

    name = "alfworld"

    def environment(self, *, expert: bool) -> Environment:
        return AlfworldEnvironment(max_steps=MAX_STEPS, expert=expert)

    def goal(self, messages: list[Message]) -> str:
        return agent.goal(str(messages[1]["content"]))

    async def play(self, environment: Environment, path: str, complete: Callable[..., Any]) -> Outcome:
        return await agent.play(environment, path, complete, max_steps=MAX_STEPS)


def tasks(
    split: str, count: int, seed: int, *, workers: int, on_progress: Callable[[int, int], None]
) -> tuple[list[Task], bool]:
    """The tasks of a split, and whether their games were generated (True) or are ALFWorld's own."""
    games: list[Game] = load_games(split, count, seed, workers=workers, on_progress=on_progress)
    return [Task(g.id, str(Path(g.path)), g.task_type) for g in games], any(g.generated for g in games)
