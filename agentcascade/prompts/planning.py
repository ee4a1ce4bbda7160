"""Plan and first thought: what a teacher may be asked before the first step, while demonstrations are collected.

The plan is Traj-Bootstrap's (one per episode, part of a trajectory's keys). The first-thought prefix is agent
distillation's: the teacher's chain of thought without tools, up to its first blank line, opens its first turn.
The templates are ``plan``, ``first_thought``, ``planned`` and ``opening``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentcascade.errors import InvalidRequest
from agentcascade.messages import text_of
from agentcascade.prompts.additions import Composed, Rendered
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.prompts.quoting import FENCED, Quoting
from agentcascade.types import Message


def asking(messages: Sequence[Message], template: str, prompts: Prompts = DEFAULT, **values: str) -> list[Message]:
    """The conversation with a template's text at the end of its last message, if that is the user's, else after it."""
    last, addition = messages[-1], Rendered(template, values)
    asked = prompts.render(template, **values)
    if last["role"] == "user":
        return [*messages[:-1], Composed(last, asked, addition)]
    return [*messages, Composed({"role": "user", "content": ""}, asked, addition)]


def place_of_plan(messages: Sequence[Message]) -> int:
    """Index of the first user message. Raises `InvalidRequest` when there is none."""
    first = next((i for i, m in enumerate(messages) if m["role"] == "user"), None)
    if first is None:
        raise InvalidRequest("a plan needs a user message to follow: the conversation has none")
    return first


def with_plan(messages: Sequence[Message], plan: str, prompts: Prompts = DEFAULT) -> list[Message]:
    """The plan, quoted, at the end of the first user message, so that the prompt's prefix stays the same at every step.

    Raises `InvalidRequest` when there is none.
    """
    first = place_of_plan(messages)
    values = {"plan": prompts.quoting.text(plan)}
    told = Composed(messages[first], prompts.render("planned", **values), Rendered("planned", values))
    return [*messages[:first], told, *messages[first + 1 :]]


def first_thought(text: str, quoting: Quoting = FENCED) -> str:
    """The text before the first blank line, as ``Thought: …``; empty when there is none."""
    text = quoting.words(text)
    head = re.split(r"\n[^\S\n]*\n", text.strip().removeprefix("Thought:").strip().replace("\r\n", "\n"))[0].strip()
    return f"Thought: {head}" if head else ""


def opening_with(messages: Sequence[Message], thought: str, prompts: Prompts = DEFAULT) -> list[Message]:
    """Asks for an answer that opens with `thought`: not every provider can continue an assistant message."""
    return asking(messages, "opening", prompts, thought=thought)


def opened(message: Message, thought: str) -> Message:
    """`message` with `thought` at its start, where the model left it out."""
    text = text_of(message)
    if thought in text or message.get("tool_calls"):
        return message
    return {**message, "content": f"{thought}\n{text}"}
