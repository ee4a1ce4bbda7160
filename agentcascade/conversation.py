"""The step's situation, read off the conversation alone, so that a stateless caller needs no session."""

from __future__ import annotations

from collections.abc import Sequence

from agentcascade.actions import ActionFormat, text_of
from agentcascade.errors import InvalidAction, InvalidRequest
from agentcascade.types import Message, Situation, Step

ROLES = {"system", "developer", "user", "assistant", "tool", "function"}


def check(messages: Sequence[Message]) -> None:
    """Raises `InvalidRequest` unless there is at least one well-formed message from someone other than the system."""
    if not messages:
        raise InvalidRequest("messages is empty: send at least one user message")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise InvalidRequest(f"messages[{i}] needs a role, one of {', '.join(sorted(ROLES))}: got {message!r:.80}")
    if all(m["role"] in ("system", "developer") for m in messages):
        raise InvalidRequest("messages holds only system messages: send at least one user message")


def read(
    messages: Sequence[Message],
    formats: ActionFormat,
    *,
    goal: str = "",
    plan: str = "",
    namespace: str = "default",
    episode: str = "",
) -> Situation:
    """Goal (given, or the first user message), the steps so far, and the observation to act on.

    Every assistant message closes a step; what others said since the one before it is its observation.
    """
    first = next((text_of(m) for m in messages if m["role"] == "user"), "")
    steps: list[Step] = []
    seen: list[str] = []
    for message in messages:
        if message["role"] == "assistant":
            reasoning, action = split(message, formats)
            steps.append(Step(observation="\n".join(seen), reasoning=reasoning, action=action))
            seen = []
        elif message["role"] not in ("system", "developer"):
            seen.append(text_of(message))
    return Situation(
        goal=goal or first,
        plan=plan,
        history=tuple(steps),
        observation="\n".join(seen),
        namespace=namespace,
        episode=episode,
    )


def split(message: Message, formats: ActionFormat) -> tuple[str, str]:
    """(reasoning, action) of an assistant message; all of it is the action where no action can be parsed."""
    try:
        action = formats.parse(message)
    except InvalidAction:
        return "", text_of(message).strip()
    return action.reasoning, action.text
