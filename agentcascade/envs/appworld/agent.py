"""A ReAct agent that writes code for AppWorld. What answers it is the caller's business."""

from __future__ import annotations

from agentcascade.actions.python import PythonActions
from agentcascade.envs import react
from agentcascade.envs.react import Complete, EpisodeResult
from agentcascade.errors import InvalidAction
from agentcascade.messages import text_of
from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.protocols import Environment
from agentcascade.types import Message

SYSTEM = TEMPLATES["appworld"].text


async def play(environment: Environment, task: str, complete: Complete, *, max_steps: int = 50) -> EpisodeResult:
    """Do one task. `complete` gets the whole conversation and returns the assistant's text."""
    return await react.play(environment, task, complete, system="appworld", parse=parse_code, max_steps=max_steps)


def parse_code(answer: str) -> str:
    """The last block; what is no program as it is, since the world says what is wrong with it."""
    try:
        return PythonActions().parse({"role": "assistant", "content": answer}).text
    except InvalidAction:
        return answer.rpartition("Action:")[2].strip().removeprefix("```python").removesuffix("```").strip("\n")


def goal(messages: list[Message]) -> str:
    """The task's instruction."""
    return text_of(messages[1]).partition("Your task is to: ")[2].strip()
