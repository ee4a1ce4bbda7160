"""Runs that GPT-4 and GPT-3.5 made once of InterCode-SQL's tasks, played again turn by turn.

GPT-4 was told its reward after every turn and tried until it was 1 (InterCode's "Try Again", no thoughts); GPT-3.5
thought aloud and submitted by itself (ReAct). Each has one run of a task, so n samples are n times the same, and where
another model took steps in between it goes on with its own run: what it would have said there nobody recorded. Tokens
are counted on our prompts and its words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple, Protocol

from agentcascade.envs.intercode_sql import agent, schema
from agentcascade.envs.intercode_sql.tasks import data_file, load_tasks, read_json
from agentcascade.errors import ConfigError, EnvironmentFailed, did_you_mean
from agentcascade.messages import text_of
from agentcascade.models.tokens import count_messages
from agentcascade.protocols import TokenCounter
from agentcascade.types import Completion, Message, Tool, Usage

PREFIX = "recorded/"
MODELS = ("recorded/gpt-4", "recorded/gpt-3.5-turbo")
SHOWN = 350
"""Characters of an observation that a turn is taken to have read"""


class TaskWorld(Protocol):
    task: int


class RecordedRun(NamedTuple):
    """Run of one model on one task."""

    answers: list[str]
    """The model's messages, the last of them a submission"""
    actions: list[str]
    observations: list[str]
    rewards: list[float]
    reward: float


@cache
def recorded_runs(name: str) -> dict[int, RecordedRun]:
    """Runs by task. Raises `EnvironmentFailed` where a run is of another question than its task asks."""
    path = data_file(name)
    runs, tasks = {}, load_tasks()
    for key, run in read_json(path).items():
        place = int(key) if str(key).isdigit() else -1
        if not 0 <= place < len(tasks) or run.get("query") != tasks[place].query:
            raise EnvironmentFailed(f"{path}: run '{key}' is not of the question of task {key}: another version?")
        turns = run["turn_history"]
        actions = [str(action) for action in turns["actions"]]
        answers = [f"Action: {_wrapped(action)}" for action in actions]
        if "thoughts" in turns:
            answers = [
                f"Thought: {' '.join(thought.split())}\n{text}" for thought, text in zip(turns["thoughts"], answers)
            ]
        if actions[-1].strip() != "submit":
            answers.append("Action: submit")
        rewards = [float(reward) for reward in turns["rewards"]]
        runs[place] = RecordedRun(answers, actions, turns["observations"], rewards, float(run["summary"]["max_reward"]))
    return runs


def _wrapped(action: str) -> str:
    action = action.strip()
    return action if action == "submit" or action.startswith("execute[") else f"execute[{action}]"


class RunModel:
    """Chat model that replays recorded runs in the world that it is bound to."""

    supports_n = True

    def __init__(self, name: str, count: TokenCounter, dollars: Callable[[Usage], Decimal | None]) -> None:
        if name not in MODELS:
            raise ConfigError(f"there are no recorded runs of '{name}': {did_you_mean(name, MODELS)}")
        self.name = name
        self._count = count
        self._dollars = dollars
        self._world: TaskWorld | None = None

    def bind(self, world: TaskWorld) -> None:
        """Play in this world from now on."""
        self._world = world

    def dollars(self, usage: Usage) -> Decimal | None:
        return self._dollars(usage)

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
        tools: Sequence[Tool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """The first message of its run that the conversation does not hold yet, `n` times.

        Raises `ConfigError` outside a bound world, and `EnvironmentFailed` for a task without a run.
        """
        task = getattr(self._world, "task", None)
        if task is None:
            raise ConfigError(f"{self.name} plays recorded runs: it works only in `agentcascade bench intercode-sql`")
        run = recorded_runs(self.name.removeprefix(PREFIX)).get(task)
        if run is None:
            raise EnvironmentFailed(f"there is no recorded run of task {task} by {self.name}")
        started = time.perf_counter()
        text = run.answers[min(played_turns(run.answers, messages), len(run.answers) - 1)]
        usage = Usage(input=count_messages(messages, self._count), output=n * self._count(text))
        return Completion(
            model=self.name,
            messages=({"role": "assistant", "content": text},) * n,
            finish_reasons=("stop",) * n,
            usage=usage,
            dollars=self.dollars(usage),
            seconds=time.perf_counter() - started,
        )


def played_turns(answers: Sequence[str], messages: Sequence[Message]) -> int:
    """Number of a run's messages that the conversation holds, in order."""
    count = 0
    for message in messages:
        if message["role"] == "assistant" and count < len(answers) and text_of(message) == answers[count]:
            count += 1
    return count


def tokens(task: int, run: RecordedRun, count: TokenCounter) -> tuple[int, int]:
    """Tokens that all turns of a run read and wrote, counted on our prompts: each reads what was said before it."""
    messages: list[Message] = [
        {"role": "system", "content": agent.SYSTEM},
        {"role": "user", "content": schema.question(load_tasks()[task])},
    ]
    prompt = written = 0
    for answer, observation in zip(run.answers, [*run.observations, ""]):
        prompt += count_messages(messages, count)
        written += count(answer)
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": observation[:SHOWN]}]
        if len(messages) == 2 + 2 * len(run.actions):
            break
    return prompt, written
