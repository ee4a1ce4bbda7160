"""The two things a teacher may be asked before the first step, while demonstrations are collected.

The plan is Traj-Bootstrap's (one per episode, part of a trajectory's keys). The first-thought prefix is agent
distillation's: the teacher's chain of thought without tools, up to its first blank line, opens its first turn.
The papers publish neither prompt; these are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentcascade.errors import InvalidRequest
from agentcascade.messages import text_of, with_text
from agentcascade.prompts.quoting import FENCED, Quoting
from agentcascade.types import Message

PLAN = (
    "Before you act: write the plan you will follow, as a short numbered list of steps. "
    "Reply with the plan alone; do not act yet."
)
FIRST_THOUGHT = (
    "Before you act: think step by step about how to solve this task. Do not act and do not call tools yet. "
    "Start with the thought that matters most, then leave a blank line."
)


def asking(messages: Sequence[Message], question: str) -> list[Message]:
    """The conversation with `question` at the end of its last message, if that is the user's, else after it."""
    last = messages[-1]
    if last["role"] == "user":
        return [*messages[:-1], with_text(last, question)]
    return [*messages, {"role": "user", "content": question}]


def with_plan(messages: Sequence[Message], plan: str, quoting: Quoting = FENCED) -> list[Message]:
    """The plan, quoted, at the end of the first user message, so that the prompt's prefix stays the same at every step.

    Raises `InvalidRequest` when there is none.
    """
    first = next((i for i, m in enumerate(messages) if m["role"] == "user"), None)
    if first is None:
        raise InvalidRequest("a plan needs a user message to follow: the conversation has none")
    return [*messages[:first], with_text(messages[first], f"Your plan:\n{quoting.text(plan)}"), *messages[first + 1 :]]


def first_thought(text: str, quoting: Quoting = FENCED) -> str:
    """The text before the first blank line, as ``Thought: …``; empty when there is none."""
    text = quoting.words(text)
    head = re.split(r"\n[^\S\n]*\n", text.strip().removeprefix("Thought:").strip().replace("\r\n", "\n"))[0].strip()
    return f"Thought: {head}" if head else ""


def opening_with(messages: Sequence[Message], thought: str) -> list[Message]:
    """Asks for an answer that opens with `thought`: not every provider can continue an assistant message."""
    return asking(messages, f"Open your answer with exactly these words, then go on:\n{thought}")


def opened(message: Message, thought: str) -> Message:
    """`message` with `thought` at its start, where the model left it out."""
    text = text_of(message)
    if thought in text or message.get("tool_calls"):
        return message
    return {**message, "content": f"{thought}\n{text}"}
