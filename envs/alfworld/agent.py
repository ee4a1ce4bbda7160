"""A ReAct agent for ALFWorld: one system prompt, one loop. What answers it is the caller's business."""

from __future__ import annotations

import re

from agentcascade.envs import react
from agentcascade.envs.react import Complete, EpisodeResult
from agentcascade.protocols import Environment

SYSTEM = """\
You act in a simulated household, by text. Solve the task you are given.

Each turn you are told what you observe. Answer with one thought and one action, in exactly this form:
Thought: <what you think>
Action: <one command>

The commands are:
- go to {recep}
- open {recep}
- close {recep}
- take {obj} from {recep}
- move {obj} to {recep}
- clean {obj} with {recep}
- heat {obj} with {recep}
- cool {obj} with {recep}
- use {obj}
- slice {obj} with {obj}
- examine {obj}
- inventory
- look

Name things with their number, as you see them, e.g. "go to countertop 1". You can carry one thing at a time. You must
be at a place to see or use what is there, and open what is closed to see inside. A command that is impossible is
answered with "Nothing happens."."""


async def play(environment: Environment, task: str, complete: Complete, *, max_steps: int = 50) -> EpisodeResult:
    """Play one game to its end. `complete` gets the whole conversation and returns the assistant's text."""
    return await react.play(environment, task, complete, system=SYSTEM, parse=parse_action, max_steps=max_steps)


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
