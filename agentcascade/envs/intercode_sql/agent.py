"""A ReAct agent for InterCode-SQL. What answers it is the caller's business."""

from __future__ import annotations

from agentcascade.actions.sql import SqlActions
from agentcascade.envs import react
from agentcascade.envs.react import Complete, EpisodeResult
from agentcascade.errors import InvalidAction
from agentcascade.messages import text_of
from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.protocols import Environment
from agentcascade.types import Message

SYSTEM = TEMPLATES["intercode_sql"].text


async def play(environment: Environment, task: str, complete: Complete, *, max_turns: int = 10) -> EpisodeResult:
    """Answer one question. `complete` gets the whole conversation and returns the assistant's text."""
    most = max_turns + 1  # the last may be the submission
    return await react.play(environment, task, complete, system="intercode_sql", parse=parse_action, max_steps=most)


def parse_action(answer: str) -> str:
    """The last statement or `submit`; what is neither as it is, since the database says what is wrong with it."""
    try:
        return SqlActions().parse({"role": "assistant", "content": answer}).text
    except InvalidAction:
        return answer.rpartition("Action:")[2].strip()


def goal(messages: list[Message]) -> str:
    """The question."""
    return text_of(messages[1]).partition("Your task is to: ")[2].partition("\n")[0]
