"""Refused answer of a student with the reason, put behind its prompt so that it answers once more without that fault.

Both are quoted (`quoting`): the answer is a model's text, and a validator's reason may hold parts of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from agentcascade.messages import text_of
from agentcascade.prompts.additions import Rendered, with_addition_behind
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.prompts.quoting import mark_of
from agentcascade.types import Message

ANSWER_CHARACTERS, REASON_CHARACTERS = 4_000, 1_000
"""Of what was said, and of what is wrong with it; the rest is cut off."""


def with_refused(
    messages: Sequence[Message],
    answer: Message,
    reason: str,
    *,
    prompts: Prompts = DEFAULT,
    user_after_tools: bool = True,
) -> Sequence[Message] | None:
    """Put a refused answer and the reason behind `messages`, which are not changed; None where there is no place.

    Args:
        messages: The prompt that was answered.
        answer: The student's message.
        reason: Why it cannot be taken.
        prompts: Templates, and the quoting of both.
        user_after_tools: Whether the student takes a user's message behind tools' results.
    """
    values = {
        "answer": prompts.quoting.text(_said(answer)[:ANSWER_CHARACTERS]),
        "reason": prompts.quoting.text(reason[:REASON_CHARACTERS]),
    }
    if prompts.quoting.on:
        first = next((text_of(message) for message in messages if message.get("role") == "user"), "")
        values["mark"] = mark_of(f"refused\0{first}", tuple(values.values()))
    text = prompts.render("refused", **values)
    return with_addition_behind(messages, text, Rendered("refused", values), user_after_tools=user_after_tools)


def _said(answer: Message) -> str:
    """The text of a message, and the functions that it calls, as JSON."""
    calls = answer.get("tool_calls")
    functions = [c.get("function") for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []
    said = [text_of(answer), *(json.dumps(f, ensure_ascii=False, default=str) for f in functions if f)]
    return "\n".join(text for text in said if text.strip())
