"""Situation of a step, read off the conversation alone, so that a stateless caller needs no session."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import compress, count
from operator import ne

from agentcascade._util import bounds
from agentcascade._util.item_results import ItemResults
from agentcascade.actions.base import ActionFormat, slow
from agentcascade.errors import InvalidRequest
from agentcascade.messages import text_of
from agentcascade.types import Message, Situation, Step
from agentcascade.wire.anthropic_blocks import DETAILS
from agentcascade.wire.chat_only import ERROR

__all__ = ["History", "check", "read", "split"]

ROLES = {"system", "developer", "user", "assistant", "tool", "function"}


def check(messages: Sequence[Message], checked: int = 0) -> None:
    """Raises `InvalidRequest` unless there is at least one well-formed message from someone other than the system.

    The first `checked` messages are known to be well-formed.
    """
    if not messages:
        raise InvalidRequest("messages is empty: send at least one user message")
    for i, message in enumerate(messages[checked:], checked):
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


class History:
    """Steps of one conversation as they were parsed, so that each message of an episode is parsed once.

    What earlier calls showed is kept as copies: a message that the caller changed since is parsed anew, with all that
    follows it.

    Args:
        formats: Reads actions off assistant messages.

    Attributes:
        known: What is known of single messages of the last call.
    """

    def __init__(self, formats: ActionFormat) -> None:
        self.known: ItemResults[Message] = ItemResults()
        self._formats = formats
        self._messages: list[Message | None] = []
        self._steps: list[Step] = []
        self._ends: list[int] = []
        """Index of the assistant message that closes each step."""

    async def read(self, messages: Sequence[Message], **given: str) -> Situation:
        """`read` of the whole conversation; the new messages are parsed in a thread where that takes long.

        Raises `InvalidRequest` for unusable messages (`check`).
        `messages` must not change afterwards: `known` holds it.
        """
        common, known = self._common(messages), self.known
        check(messages, common)
        kept = bisect_left(self._ends, common)
        steps, ends = self._steps[:kept], self._ends[:kept]
        start = ends[-1] + 1 if ends else 0
        earlier, new = self._messages[:start], messages[start:]
        new_steps, new_ends, observation = await _steps_off_loop(new, self._formats)
        self._messages = [*earlier, *map(_copied, new)]
        self.known = known.followed_by(messages, common)
        self._steps = [*steps, *new_steps]
        self._ends = [*ends, *(start + end for end in new_ends)]
        return _situation(messages, tuple(self._steps), observation, **given)

    def _common(self, messages: Sequence[Message]) -> int:
        """How many of the messages are those of the last call."""
        shorter = min(len(self._messages), len(messages))
        try:
            return next(compress(count(), map(ne, self._messages, messages)), shorter)
        except Exception:  # arrays do not say whether they are equal
            pairs = zip(self._messages, messages)
            return next((i for i, (known, message) in enumerate(pairs) if not _is_same(known, message)), shorter)


def _copied(message: Message) -> Message | None:
    """A copy; None of a message that holds what cannot be copied, which is then parsed at every call."""
    if type(message) is dict and all(type(value) is str for value in message.values()):
        return message.copy()
    try:
        return deepcopy(message)
    except Exception:  # whatever objects of a caller do
        return None


def _is_same(known: Message | None, message: Message) -> bool:
    try:
        return bool(known == message)
    except Exception:
        return False


async def read_off_loop(messages: Sequence[Message], formats: ActionFormat, **given: str) -> Situation:
    """`read`, in a thread where the steps so far are long to parse."""
    steps, _, observation = await _steps_off_loop(messages, formats)
    return _situation(messages, tuple(steps), observation, **given)


def read(messages: Sequence[Message], formats: ActionFormat, **given: str) -> Situation:
    """Situation of a conversation: its goal, the steps so far, and the observation to act on.

    Every assistant message closes a step; what others said since the one before it is its observation.

    Args:
        messages: The whole conversation, checked.
        formats: Reads actions off assistant messages.
        given: Fields of the situation that are known; `goal` defaults to the first user message.
    """
    steps, _, observation = _steps(messages, formats)
    return _situation(messages, tuple(steps), observation, **given)


async def _steps_off_loop(messages: Sequence[Message], formats: ActionFormat) -> tuple[list[Step], list[int], str]:
    heavy = any(m["role"] == "assistant" and slow(formats, m) for m in messages)
    return await bounds.off_loop(heavy, _steps, messages, formats)


def _steps(messages: Sequence[Message], formats: ActionFormat) -> tuple[list[Step], list[int], str]:
    """Closed steps, the index of the message that closes each, and what was said since the last one."""
    steps: list[Step] = []
    ends: list[int] = []
    observed: list[str] = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            reasoning, action = split(message, formats)
            steps.append(Step(observation="\n".join(observed), reasoning=reasoning, action=action))
            ends.append(index)
            observed = []
        elif message["role"] not in ("system", "developer"):
            observed.append(_observation(message))
    return steps, ends, "\n".join(observed)


def _observation(message: Message) -> str:
    """What a message says; a tool's result that is marked as an error says so, as models are told (`wire`)."""
    text, details = text_of(message), message.get(DETAILS)
    failed = message["role"] == "tool" and isinstance(details, Mapping) and details.get("is_error") is True
    return f"{ERROR}{text}" if failed and "error" not in text[:200].lower() else text


def _situation(messages: Sequence[Message], steps: tuple[Step, ...], observation: str, **given: str) -> Situation:
    goal = given.pop("goal", "") or next((text_of(m) for m in messages if m["role"] == "user"), "")
    return Situation(goal=goal, history=steps, observation=observation, **given)


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
