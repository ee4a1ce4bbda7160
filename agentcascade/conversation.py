"""The step's situation, read off the conversation alone, so that a stateless caller needs no session."""

from __future__ import annotations

from collections.abc import Sequence

from agentcascade._util import bounds
from agentcascade.actions.base import ActionFormat, slow
from agentcascade.errors import InvalidRequest
from agentcascade.messages import text_of
from agentcascade.types import Message, Situation, Step

ROLES = {"system", "developer", "user", "assistant", "tool", "function"}


def check(messages: Sequence[Message]) -> None:
    """Raises `InvalidRequest` unless there is at least one well-formed message from someone other than the system."""
    if not messages:
        raise InvalidRequest("messages is empty: send at least one user message")
    for i, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in ROLES:
            got = f"the role {_shown(role)}" if isinstance(message, dict) else _shown(message)
            raise InvalidRequest(f"messages[{i}] needs a role, one of {', '.join(sorted(ROLES))}: got {got}")
        content = message.get("content")
        if content is not None and not isinstance(content, (str, list)):
            raise InvalidRequest(
                f"messages[{i}].content is a {type(content).__name__}: send a text, or a list of parts"
            )
        if isinstance(content, list) and not all(isinstance(part, dict) for part in content):
            raise InvalidRequest(
                f"messages[{i}].content holds what is no part: write texts as {{'type': 'text', 'text': '…'}}"
            )
    if all(m["role"] in ("system", "developer") for m in messages):
        raise InvalidRequest("messages holds only system messages: send at least one user message")


async def read_off_loop(messages: Sequence[Message], formats: ActionFormat, **given: str) -> Situation:
    """`read`, in a thread where the steps so far are long to parse."""
    heavy = any(m["role"] == "assistant" and slow(formats, m) for m in messages)
    return await bounds.off_loop(heavy, lambda: read(messages, formats, **given))


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
    except Exception:  # also of a format of the caller's own: the message was paid for
        return "", text_of(message).strip()
    return action.reasoning, action.text


async def split_off_loop(message: Message, formats: ActionFormat) -> tuple[str, str]:
    """`split`, in a thread where the message is long to parse."""
    return await bounds.off_loop(slow(formats, message), split, message, formats)


def _shown(value: object) -> str:
    """The beginning of a value, whatever its size."""
    return repr(value)[:80] if isinstance(value, (str, int, float, type(None))) else f"a {type(value).__name__}"
