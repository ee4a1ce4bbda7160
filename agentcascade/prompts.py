"""Demonstrations to messages: whole windows, within a token budget, in an order that keeps the prompt's prefix stable.

Layout: everything up to and including the first user message (role, tools, task) stays as it is and comes first; the
demonstrations follow at the end of that message; the live conversation comes last. A provider's prefix cache can
therefore always hit the part before the demonstrations, and the whole prompt while the same windows are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentcascade.errors import InvalidRequest
from agentcascade.protocols import TokenCounter
from agentcascade.types import Demonstration, Message, Step

HEADER = "# Examples\nWhat an expert did in similar situations. Follow them closely, with the names of your own task."
FOOTER = "# Your task\nContinue your own task from here."


class Prompt(NamedTuple):
    """Messages to send, and what became of the demonstrations."""

    messages: list[Message]
    shown: tuple[Demonstration, ...]
    dropped: int
    tokens: int
    """Tokens that the demonstrations add."""


def render_step(step: Step) -> str:
    lines = [f"Observation: {step.observation}"]
    if step.reasoning:
        lines.append(f"Thought: {step.reasoning}")
    return "\n".join([*lines, f"Action: {step.action}"])


def render_demonstration(demonstration: Demonstration) -> str:
    """What stands under an ``## Example`` heading; says which steps of how many it shows."""
    last = demonstration.start + len(demonstration.steps)
    lines = [f"Goal: {demonstration.goal}"]
    if demonstration.plan:
        lines.append(f"Plan: {demonstration.plan}")
    lines.append(f"(steps {demonstration.start + 1} to {last} of {demonstration.length})")
    return "\n".join(lines + [render_step(step) for step in demonstration.steps])


def render(blocks: Sequence[tuple[Demonstration, str]]) -> str:
    """All demonstrations with their texts, ordered by trajectory so that equal sets give equal text."""
    ordered = sorted(blocks, key=lambda block: (block[0].trajectory, block[0].start))
    return "\n\n".join([HEADER, *(f"## Example {i}\n{text}" for i, (_, text) in enumerate(ordered, 1)), FOOTER])


def fit(
    demonstrations: Sequence[Demonstration], budget: int, count: TokenCounter
) -> tuple[list[tuple[Demonstration, str]], int]:
    """The best demonstrations (given best first) that fit into `budget` tokens with their texts, and what they take.

    A demonstration is shown whole or not at all; one that is longer than what is left is passed over, so a huge
    best match does not crowd out smaller ones.
    """
    total = frame = count(HEADER) + count(FOOTER) + 4
    heading = count(f"## Example {len(demonstrations)}\n") + 2
    shown = []
    for demonstration in demonstrations:
        text = render_demonstration(demonstration)
        cost = count(text) + heading
        if total + cost <= budget:
            shown.append((demonstration, text))
            total += cost
    return shown, total if shown else total - frame


def build(
    messages: Sequence[Message], demonstrations: Sequence[Demonstration], *, budget: int, count: TokenCounter
) -> Prompt:
    """`messages` with as many of `demonstrations` (best first) as `budget` tokens hold; the input is not changed.

    Raises `InvalidRequest` when there is no user message to attach them to.
    """
    shown, tokens = fit(demonstrations, budget, count)
    dropped = len(demonstrations) - len(shown)
    if not shown:
        return Prompt(list(messages), (), dropped, 0)
    first = next((i for i, m in enumerate(messages) if m.get("role") == "user"), None)
    if first is None:
        raise InvalidRequest("demonstrations need a user message to follow: the conversation has none")
    told = with_text(messages[first], render(shown))
    return Prompt([*messages[:first], told, *messages[first + 1 :]], tuple(d for d, _ in shown), dropped, tokens)


def with_text(message: Message, text: str) -> Message:
    """A copy of `message` with `text` at its end; multi-part content gets one more text part."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, {"type": "text", "text": text}]}
    return {**message, "content": f"{content or ''}\n\n{text}".lstrip("\n")}
