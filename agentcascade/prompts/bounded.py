"""Bounded history: the window of a conversation that a prompt holds, and the carried state in place of older steps.

Of an agent's run the last steps stand as they are, and what was before them as a short text ("The Markovian Thinker",
section 2: reasoning in chunks of bounded size that hand on a short state). A step is an answer of the agent with what
came back, so the window begins with an answer: no result of a tool stands without its call. Older steps leave the
window several at a time, so the prompt begins alike for as many steps, and a provider's prompt cache hits. The window
follows from the messages alone: who sends the whole conversation at every call gets the same one again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agentcascade.messages import text_of
from agentcascade.prompts.additions import Composed, Rendered, additions, without
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.prompts.quoting import mark_of
from agentcascade.protocols import TokenCounter
from agentcascade.types import Message

TEMPLATE, ASKED = "history", "history_asked"
MARK = "0a1b2c"
"""As long as one is."""
SYSTEM = ("system", "developer")


class Window(NamedTuple):
    """Where a conversation is cut, by indexes of its messages."""

    head: int
    """Messages before it stay: system, goal, and what else stands before the first answer to it."""
    cut: int
    """The first message that stands as it is again: an answer."""
    settled: int
    """Messages before it were there when these steps left the window, and are while it stands."""
    steps: int
    """Answers between `head` and `cut`."""
    asked: int | None = None
    """The last message of a user among these, where the window begins without one: it may be what is worked on."""


def window_of(messages: Sequence[Message], keep: int, every: int) -> Window | None:
    """The window of a conversation.

    Args:
        messages: A conversation, whole.
        keep: Steps that stand as they are, at least.
        every: Older steps leave the window so many at a time.

    Returns:
        Where to cut; None where all of it stays, as what is bounded already does.
    """
    goal = next((i for i, message in enumerate(messages) if message.get("role") == "user"), None)
    if goal is None:
        return None
    answers = [i for i in range(goal + 1, len(messages)) if messages[i].get("role") == "assistant"]
    steps = (len(answers) - keep) // every * every
    if steps <= 0 or any(map(_is_carried, messages[: answers[0]])):
        return None
    cut = _with_its_calls(messages, answers[steps])
    steps = sum(answer < cut for answer in answers)
    if not steps:
        return None
    settled = answers[steps + keep - 1] + 1
    asked = None
    if not any(message.get("role") == "user" for message in messages[cut:settled]):
        users = [i for i in range(answers[0], cut) if messages[i].get("role") == "user"]
        asked = users[-1] if users else None
    return Window(answers[0], cut, settled, steps, asked)


def _with_its_calls(messages: Sequence[Message], cut: int) -> int:
    """The last answer up to `cut` such that all calls whose results stand behind it do so, too."""
    last: dict[str, int] = {}
    made: list[int | None] = []
    for index, message in enumerate(messages):
        if message.get("role") == "assistant":
            last |= {str(call.get("id")): index for call in message.get("tool_calls") or () if isinstance(call, dict)}
        made.append(last.get(str(message.get("tool_call_id"))) if message.get("role") == "tool" else None)
    index = len(messages) - 1
    while index > cut:  # which moves towards the beginning, at most as far as `index` does
        of = made[index]
        cut = cut if of is None else min(cut, of)
        index -= 1
    return cut


class Bounded(NamedTuple):
    """A bounded conversation, and what it was made of."""

    messages: list[Message]
    whole: Sequence[Message]
    window: Window
    kept: int
    """Index in `messages` of the window's first answer."""
    moved: bool
    """Whether the memory stood in what was left out, and stands elsewhere now."""


def bounded(
    messages: Sequence[Message],
    window: Window,
    block: str,
    values: Mapping[str, str],
    prompts: Prompts = DEFAULT,
) -> Bounded:
    """Put a carried state in place of the steps before the window.

    Args:
        messages: The conversation, which is not changed.
        window: Where it is cut (`window_of`).
        block: The carried state as `carried_block` renders it; none where it is empty.
        values: That it was rendered with.
        prompts: Templates, of what the user asked last.

    Returns:
        The messages to send: head, with the block at the end of its last user's message; system messages; window.
    """
    head, dropped = list(messages[: window.head]), messages[window.head : window.cut]
    last = max(i for i, message in enumerate(head) if message.get("role") == "user")
    if block:
        head[last] = _below_memory(head[last], block, Rendered(TEMPLATE, values))
    if asked := asked_text(messages, window, prompts):
        said_last = {"asked": text_of(as_sent(messages[window.asked or 0]))}
        head[last] = _below_memory(head[last], asked, Rendered(ASKED, said_last))
    systems = [message for message in dropped if message.get("role") in SYSTEM]
    made = [*head, *systems, *messages[window.cut :]]
    memory = next((message for message in dropped if _memory(message) is not None), None)
    if memory is not None:
        last = max(i for i, message in enumerate(made) if message.get("role") == "user")
        made[last] = _with_memory(made[last], memory)
    return Bounded(made, messages, window, len(head) + len(systems), memory is not None)


def asked_text(messages: Sequence[Message], window: Window, prompts: Prompts = DEFAULT) -> str:
    """What the user said last, where that left the window with the step that it stands in; as it was said."""
    if window.asked is None:
        return ""
    text = text_of(as_sent(messages[window.asked]))
    return prompts.render(ASKED, asked=text) if text.strip() else ""


def _below_memory(message: Message, block: str, addition: Rendered) -> Composed:
    """The message with the block, which stays for some steps, before a memory, which is another at every step."""
    if isinstance(message, Composed) and message.addition is _memory(message):
        return message.on(Composed(message.base, block, addition))
    return Composed(message, block, addition)


def _is_carried(message: Message) -> bool:
    return any(isinstance(a, Rendered) and a.template in (TEMPLATE, ASKED) for a in additions(message))


def _memory(message: Message) -> Rendered | None:
    return next((a for a in additions(message) if isinstance(a, Rendered) and a.template == "memory"), None)


def _with_memory(message: Message, source: Message) -> Message:
    while isinstance(source, Composed):
        if source.addition is _memory(source):
            return source.on(message)
        source = source.base
    return message


def whole_again(bound: Bounded, prompt: Sequence[Message]) -> list[Message]:
    """`prompt`, which was made of bounded messages, with what was added to it and with all steps."""
    head = [without(without(message, ASKED), TEMPLATE) for message in prompt[: bound.window.head]]
    if bound.moved:
        head = [without(message, "memory") for message in head]
    return [*head, *bound.whole[bound.window.head : bound.window.cut], *prompt[bound.kept :]]


def carried_block(
    lines: Sequence[str], steps: int, *, key: str, budget: int, count: TokenCounter, prompts: Prompts = DEFAULT
) -> tuple[str, dict[str, str]]:
    """The carried state as it stands in a prompt, of at most `budget` tokens, and the values it was rendered with.

    Args:
        lines: Of the state, untrusted. What does not fit is cut, from the last line on.
        steps: That it stands for.
        key: Of the mark: the goal, so that it is the same for the same conversation.
        budget: Tokens, of the frame and the state.
        count: Counts the tokens of a text.
        prompts: Templates, and the quoting of the state.

    Returns:
        Text and values; both empty where not even the frame fits.
    """
    quoted = [prompts.quoting.text(line) for line in lines]
    while True:
        values = {"state": "\n".join(quoted), "steps": str(steps)}
        if prompts.quoting.on:
            values["mark"] = mark_of(f"{TEMPLATE}\0{key}", [values["state"]])
        block = prompts.render(TEMPLATE, **values)
        over = count(block) - budget
        if over <= 0:
            return block, values
        if not quoted:
            return "", {}
        quoted = _shorter(quoted, over, count)


def _shorter(lines: list[str], over: int, count: TokenCounter) -> list[str]:
    """The lines without the last ones, which hold so many tokens, or without the last line's end."""
    *others, last = lines
    tokens = count(last)
    if tokens <= over + 8:
        return others
    cut = last[: max(1, len(last) * (tokens - over - 1) // tokens)].rstrip()
    return [*others, cut] if cut and len(cut) < len(last) else others


def frame_tokens(steps: int, count: TokenCounter, prompts: Prompts = DEFAULT) -> int:
    """Tokens of the block without a state."""
    return count(prompts.render(TEMPLATE, state="", steps=str(steps), mark=MARK if prompts.quoting.on else ""))


def as_sent(message: Message) -> Message:
    """The message without anything that was added to it."""
    while isinstance(message, Composed):
        message = message.base
    return message


def said(message: Message) -> str:
    """What a message takes of a prompt: its text, and the arguments of its calls."""
    calls = [call.get("function") for call in message.get("tool_calls") or () if isinstance(call, dict)]
    return "\n".join([text_of(message), *(str(f.get("arguments")) for f in calls if isinstance(f, dict))])


def goal_of(messages: Sequence[Message]) -> str:
    """The first user's text."""
    return next((text_of(message) for message in messages if message.get("role") == "user"), "")
