"""ALFWorld as a benchmark suite: which games, which world, which agent loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentcascade.bench.suites.protocol import Defaults, Outcome, Source, Task
from agentcascade.envs import react
from agentcascade.envs.alfworld import agent
from agentcascade.envs.alfworld.dataset import Game, load_games
from agentcascade.envs.alfworld.environment import AlfworldEnvironment
from agentcascade.protocols import Environment
from agentcascade.types import Message

MAX_STEPS = 50
GENERATED = "games were generated from ALFWorld's own domain and floor plans; they are not its dataset"
STAND_IN = (
    "offline/expert is the engine's own planner, which plans with what it has seen; offline/imitator is a program that "
    "copies by analogy from its prompt. Neither is a language model: these figures show that the machinery works, and "
    "are not those of any paper or product. Dollars are counted tokens at the named prices, by default list prices of "
    "real models: Claude Sonnet 4.5's for the expert, GPT-4.1-nano's for the imitator."
)
PRICES = {
    "offline/expert": {"input": "3", "output": "15"},
    "offline/imitator": {"input": "0.10", "output": "0.40"},
}
"""Dollars per million tokens: of Claude Sonnet 4.5, and of GPT-4.1-nano, the smallest model of its student's family.

The paper's student is GPT-4.1-mini (0.40/1.60), far better than the imitator; at its price this cascade saves little.
"""


class AlfworldSuite:
    """Household tasks in text, played in the real ALFWorld engine.

    Uses the official games where $ALFWORLD_DATA holds them, else games generated from what the alfworld package
    ships. The default models are stand-ins that need no key; real ones are one flag away.
    """

    name = "alfworld"
    actions: Mapping[str, Any] = {"format": "react", "fold": True}
    stop = react.STOP
    dropped = ("Nothing happens",)
    packages = ("alfworld", "textworld")
    group = ""
    defaults = Defaults(
        teacher="offline/expert",
        student="offline/imitator",
        splits=("valid_unseen", "valid_seen"),
        episodes=134,
        demonstrations=100,
        k=6,
    )

    def check(self) -> None:
        from agentcascade.assembly.components import find_module
        from agentcascade.errors import MissingExtra

        if not find_module("alfworld"):
            raise MissingExtra("alfworld", "alfworld", "agentcascade bench alfworld")

    def environment(self, *, expert: bool) -> Environment:
        return AlfworldEnvironment(max_steps=MAX_STEPS, expert=expert)

    def goal(self, messages: list[Message]) -> str:
        return agent.goal(str(messages[1]["content"]))

    async def play(self, environment: Environment, path: str, complete: Callable[..., Any]) -> Outcome:
        return await agent.play(environment, path, complete, max_steps=MAX_STEPS)

    def tasks(
        self, split: str, count: int, seed: int, *, workers: int, on_progress: Callable[[int, int], None]
    ) -> tuple[list[Task], Source]:
        games: list[Game] = load_games(split, count, seed, workers=workers, on_progress=on_progress)
        made: Source = "generated" if any(g.generated for g in games) else "official"
        return [Task(g.id, str(Path(g.path)), g.task_type) for g in games], made

    def price(self, model: str) -> Mapping[str, str] | None:
        """Dollars per million tokens of a stand-in."""
        return PRICES.get(model)

    def notes(self, source: Source, models: Sequence[str]) -> list[str]:
        lines = [GENERATED] if source == "generated" else []
        return [*lines, STAND_IN] if any(m.startswith("offline/") for m in models) else lines
