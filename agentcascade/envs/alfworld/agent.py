"""A ReAct agent for ALFWorld: one system prompt, one loop. What answers it is the caller's business."""

from __future__ import annotations

import re

from agentcascade.envs import react
from agentcascade.envs.react import Complete, EpisodeResult
from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.protocols import Environment

SYSTEM = TEMPLATES["alfworld"].text


async def play(environment: Environment, task: str, complete: Complete, *, max_steps: int = 50) -> EpisodeResult:
    """Play one game to its end. `complete` gets the whole conversation and returns the assistant's text."""
    return await react.play(environment, task, complete, system="alfworld", parse=parse_action, max_steps=max_steps)


_GOAL = re.compile(r"task is to: *([^\n]+)")


def goal(observation: str) -> str:
    """The task that the first observation states; all of it where it states none."""
    found = _GOAL.search(observation)
    return found[1].strip() if found else observation


_ACTION = re.compile(r"^[ \t*]*Action\**:\**[ \t]*(\S[^\n]*)", re.IGNORECASE | re.MULTILINE)


def parse_action(text: str) -> str:
    """The command after the last ``Action:``, in the engine's lower case; else the first line, which will fail."""
    found = _ACTION.findall(text)
    line = found[-1] if found else next(iter(text.strip().splitlines()), "")
    return " ".join(line.strip("`'\"* ").rstrip(".").lower().split())
