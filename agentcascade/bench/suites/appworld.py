"""AppWorld as a benchmark suite: which tasks, which world, which agent loop."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentcascade.bench.suites.protocol import Defaults, Outcome, Source, Task
from agentcascade.envs import react
from agentcascade.envs.appworld import agent, installation
from agentcascade.envs.appworld.environment import MAX_STEPS, AppWorldEnvironment
from agentcascade.protocols import Environment
from agentcascade.types import Message

GENERATED = (
    "tasks were generated in small worlds, through AppWorld's own models, and judged by its own evaluator; they are "
    "not its dataset"
)
STAND_IN = (
    "offline/expert plays the solution that was written with each task; offline/copier is a program that copies code "
    "from the demonstrations in its prompt. Neither is a language model: these figures show that the machinery works, "
    "and are not those of any paper or product. Dollars are the named prices times counted tokens."
)
ENGINE = f"worlds, apps and verdicts are those of appworld {installation.VERSION}, in a process of its own"


class AppWorldSuite:
    """Everyday tasks in the apps of simulated people, done by writing code (AppWorld).

    Needs `agentcascade env install appworld`. Uses the official worlds where $APPWORLD_ROOT names them, else generated
    ones. The default models are stand-ins that need no key; real ones are one flag away.
    """

    name = "appworld"
    actions: Mapping[str, Any] = {"format": "python"}
    stop = react.STOP
    dropped = ("Execution failed.",)
    packages = ()
    group = "scenario"
    defaults = Defaults(
        teacher="offline/expert",
        student="offline/copier",
        splits=("test_normal", "test_challenge", "dev"),
        episodes=120,
        demonstrations=90,
        k=3,
    )

    def check(self) -> None:
        installation.interpreter()
        installation.appworld_root()

    def environment(self, *, expert: bool) -> Environment:
        return AppWorldEnvironment(max_steps=MAX_STEPS, expert=expert)

    def goal(self, messages: list[Message]) -> str:
        return agent.goal(messages)

    async def play(self, environment: Environment, path: str, complete: Callable[..., Any]) -> Outcome:
        return await agent.play(environment, path, complete, max_steps=MAX_STEPS)

    def tasks(
        self, split: str, count: int, seed: int, *, workers: int, on_progress: Callable[[int, int], None]
    ) -> tuple[list[Task], Source]:
        """Whole scenarios, in an order that hangs on the seed."""
        scenarios: dict[str, list[str]] = {}
        for task in installation.task_ids(installation.appworld_root(), split):
            scenarios.setdefault(task.partition("_")[0], []).append(task)
        order = sorted(scenarios)
        random.Random(f"{split} {seed}").shuffle(order)
        found = [Task(t, t, group=name) for name in order for t in scenarios[name]][:count]
        on_progress(len(found), len(found))
        return found, "official" if installation.official_root() is not None else "generated"

    def notes(self, source: Source, models: Sequence[str]) -> list[str]:
        lines = [ENGINE] + ([GENERATED] if source == "generated" else [])
        return [*lines, STAND_IN] if any(m.startswith("offline/") for m in models) else lines
