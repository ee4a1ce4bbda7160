"""The loop of a ReAct agent in any text world: thought and action, observation, and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agentcascade.prompts.additions import Composed, Rendered
from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.prompts.quoting import neutral
from agentcascade.protocols import Environment
from agentcascade.types import Message

STOP = ("\nObservation:",)
"""Stop sequences of a ReAct agent: the next observation is the world's to tell, not the model's"""
Complete = Callable[[list[Message]], Awaitable[str]]
"""Gets the whole conversation and returns the assistant's text"""


@dataclass(frozen=True)
class EpisodeResult:
    """How one episode went."""

    success: bool
    steps: int
    trace: list[tuple[str, str]] = field(repr=False, default_factory=list)
    """(action, observation) pairs."""


async def play(
    environment: Environment,
    task: str,
    complete: Complete,
    *,
    system: str,
    parse: Callable[[str], str],
    max_steps: int,
) -> EpisodeResult:
    """Play one task to its end, or for `max_steps` actions.

    `system` names the template of the system's message; `parse` finds the action in the assistant's text.
    """
    messages: list[Message] = [
        Composed({"role": "system", "content": ""}, TEMPLATES[system].render(), Rendered(system, {})),
        {"role": "user", "content": neutral(environment.reset(task))},
    ]
    trace: list[tuple[str, str]] = []
    done = False
    while not done and len(trace) < max_steps:
        answer = await complete(messages)
        action = parse(answer)
        observation, done = environment.step(action)
        trace.append((action, observation))
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": neutral(observation)}]
    return EpisodeResult(environment.success, len(trace), trace)
