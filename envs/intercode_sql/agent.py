"""A ReAct agent for InterCode-SQL. What answers it is the caller's business."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agentcascade.actions import text_of
from agentcascade.errors import InvalidAction
from agentcascade.protocols import Environment
from agentcascade.sql_keys import SqlActions
from agentcascade.types import Message

SYSTEM = """\
You answer a question by querying a MySQL database.

Each turn you see what your last action returned. Answer with one thought and one action, in exactly this form:
Thought: <what you think>
Action: execute[<one SQL statement>]

You do not know the schema: SHOW TABLES and DESCRIBE tell it. The database can only be read. Rows and their order count,
names of columns do not. When your last statement returned the answer to the question, and nothing else, end with:
Action: submit"""


@dataclass(frozen=True)
class EpisodeResult:
    """How one task went."""

    success: bool
    steps: int
    trace: list[tuple[str, str]] = field(repr=False, default_factory=list)
    """(action, observation) pairs."""


async def play(
    environment: Environment, task: str, complete: Callable[[list[Message]], Awaitable[str]], *, max_turns: int = 10
) -> EpisodeResult:
    """Answer one question. `complete` gets the whole conversation and returns the assistant's text."""
    formats = SqlActions()
    messages: list[Message] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": environment.reset(task)},
    ]
    trace: list[tuple[str, str]] = []
    done = False
    while not done and len(trace) < max_turns + 1:  # the last may be the submission
        answer = await complete(messages)
        try:
            action = formats.parse({"role": "assistant", "content": answer}).text
        except InvalidAction:
            action = answer.rpartition("Action:")[2].strip()
        observation, done = environment.step(action)
        trace.append((action, observation))
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": observation}]
    return EpisodeResult(environment.success, len(trace), trace)


def goal(messages: list[Message]) -> str:
    """The question."""
    return text_of(messages[1]).partition("Your task is to: ")[2].partition("\n")[0]
