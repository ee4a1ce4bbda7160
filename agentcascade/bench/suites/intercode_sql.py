"""InterCode-SQL as a benchmark suite: which questions, which databases, which agent loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentcascade.bench.suites.protocol import Defaults, Outcome, Source, Task
from agentcascade.envs import react
from agentcascade.envs.intercode_sql import agent, tasks
from agentcascade.envs.intercode_sql.environment import IntercodeSqlEnvironment
from agentcascade.protocols import Environment
from agentcascade.types import Message

RECORDED = (
    "recorded/… models are runs that GPT-4 and GPT-3.5 made once, played again in our databases. They have one sample "
    "of each step, so that agreement says nothing: what a cascade defers here is what EXPLAIN rejects. Where models "
    "take turns, each goes on with its own run. GPT-4 was told its reward after every turn, GPT-3.5 was not: their "
    "accuracies do not compare. Dollars are list prices times tokens counted on our prompts."
)
STAND_IN = "offline/… models are programs, not language models: their figures are those of no paper or product."
ENGINE = "databases are InterCode's, in SQLite instead of MySQL"


class IntercodeSqlSuite:
    """Questions about twenty databases, answered in SQL (InterCode-SQL, after Spider).

    Needs InterCode's data: $INTERCODE_DATA names the folder. The default models are runs that real models made, played
    again; a model of your own is one flag away.
    """

    name = "intercode-sql"
    actions: Mapping[str, Any] = {"format": "sql", "fold": True}
    stop = react.STOP
    dropped = ("Error executing query",)
    packages = ("sqlglot", "scipy")
    group = ""
    defaults = Defaults(
        teacher="recorded/gpt-4",
        student="recorded/gpt-3.5-turbo",
        splits=("test", "unseen_databases"),
        episodes=400,
        demonstrations=400,
        k=3,
    )

    def check(self) -> None:
        from agentcascade.assembly.components import find_module
        from agentcascade.errors import MissingExtra

        for package in self.packages:
            if not find_module(package):
                raise MissingExtra(package, "intercode-sql", "agentcascade bench intercode-sql")
        tasks.check_data()

    def environment(self, *, expert: bool) -> Environment:
        return IntercodeSqlEnvironment()

    def goal(self, messages: list[Message]) -> str:
        return agent.goal(messages)

    async def play(self, environment: Environment, path: str, complete: Callable[..., Any]) -> Outcome:
        return await agent.play(environment, path, complete)

    def tasks(
        self, split: str, count: int, seed: int, *, workers: int, on_progress: Callable[[int, int], None]
    ) -> tuple[list[Task], Source]:
        known = tasks.load_tasks()
        found = tasks.choose_tasks(split, count, seed)
        on_progress(len(found), len(found))
        return [Task(f"{split}/{i}", str(i), known[i].hardness) for i in found], "official"

    def notes(self, source: Source, models: Sequence[str]) -> list[str]:
        kinds = (("recorded/", RECORDED), ("offline/", STAND_IN))
        return [ENGINE, *(line for prefix, line in kinds if any(m.startswith(prefix) for m in models))]
