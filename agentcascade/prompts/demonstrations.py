"""Demonstrations to messages: whole windows, within a token budget, in an order that keeps the prompt's prefix stable.

Layout: everything up to and including the first user message (role, tools, task) stays as it is and comes first; the
demonstrations follow at the end of that message; the live conversation comes last. A provider's prefix cache can
therefore always hit the part before the demonstrations, and the whole prompt while the same windows are shown.
Or they stand last, before the new observation, so that it hits the whole history, whatever is shown: at the beginning
of the user's message that holds the observation, or behind tools' results, which nothing may part from their calls.
Demonstrations are quoted (`quoting`): what stands in one can neither end them nor begin another. Behind them the task
is said once more. Their words are the templates ``demonstrations``, ``heading``, ``example`` and ``step``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from agentcascade._util.line_counter import LineCounter
from agentcascade.errors import InvalidRequest
from agentcascade.messages import text_of
from agentcascade.prompts.additions import Composed, additions
from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.prompts.prompts import DEFAULT, UNQUOTED, Prompts
from agentcascade.prompts.quoting import mark_of
from agentcascade.prompts.transcripts import render_and_count, render_demonstration
from agentcascade.protocols import TokenCounter
from agentcascade.types import Demonstration, Message

Place = Literal["first", "last"]
MARK = "0a1b2c"
"""As long as one is."""
_BLOCKS = TEMPLATES["demonstrations"].blocks(mark=MARK)
HEADER: str = _BLOCKS[0]
"""What the default template of demonstrations begins with."""
FOOTER: str = _BLOCKS[-1]
"""What the default template of demonstrations ends with."""
MAX_TASK = 2_000
"""Characters of a task that is said once more behind the demonstrations; a longer one stands only where it stood."""


class Prompt(NamedTuple):
    """Messages to send, and what became of the demonstrations."""

    messages: list[Message]
    shown: tuple[Demonstration, ...]
    dropped: int
    tokens: int
    """Tokens that the demonstrations add."""


@dataclass(frozen=True)
class Shown:
    """Demonstrations at the end of a message, in their order there, as a structure: see `additions`."""

    demonstrations: tuple[Demonstration, ...]
    quoted: bool
    key: str = ""
    """Of the mark: the conversation."""
    task: str = ""
    """Said once more behind them."""

    def text(self, text: str) -> str:
        """A text of theirs as it stands in the message."""
        return (DEFAULT if self.quoted else UNQUOTED).quoting.text(text)

    def default_text(self) -> str:
        """As the default templates render them, without marks."""
        prompts = DEFAULT if self.quoted else UNQUOTED
        blocks = [
            (demonstration, render_demonstration(demonstration, prompts)) for demonstration in self.demonstrations
        ]
        return prompts.render("demonstrations", examples="\n\n".join(_examples(blocks, prompts)))


def demonstrations_in(message: Message) -> Shown | None:
    """Those that `build` put into the message."""
    return next((addition for addition in additions(message) if isinstance(addition, Shown)), None)


def without_demonstrations(message: Message) -> Message:
    """The message as it was before `build`."""
    while isinstance(message, Composed) and demonstrations_in(message):
        message = message.base
    return message


def render(
    blocks: Sequence[tuple[Demonstration, str]], prompts: Prompts = DEFAULT, key: str = "", task: str = ""
) -> str:
    """All demonstrations with their texts, in the order of `ordered`, and the task once more.

    They end with a mark that depends on `key`, the conversation, and occurs in none of them.
    """
    return render_in_order(sorted(blocks, key=_place), prompts, key, task)


def render_in_order(blocks: Sequence[tuple[Demonstration, str]], prompts: Prompts, key: str, task: str) -> str:
    """The same in the order that is given."""
    examples = _headed(blocks, prompts)
    mark = mark_of(key, examples) if prompts.quoting.on else ""
    return prompts.render("demonstrations", examples="\n\n".join(examples), mark=mark, task=task)


def _examples(blocks: Sequence[tuple[Demonstration, str]], prompts: Prompts) -> list[str]:
    """Texts under their headings, ordered by trajectory so that equal sets give equal text."""
    return _headed(sorted(blocks, key=_place), prompts)


def _headed(blocks: Sequence[tuple[Demonstration, str]], prompts: Prompts) -> list[str]:
    return [f"{_heading(prompts, i)}{text}" for i, (_, text) in enumerate(blocks, 1)]


def _place(block: tuple[Demonstration, str]) -> tuple[str, int]:
    return block[0].trajectory, block[0].start


@lru_cache(maxsize=1024)
def _heading(prompts: Prompts, number: int) -> str:
    heading = prompts.render("heading", number=str(number))
    return f"{heading}\n" if heading else ""


@lru_cache(maxsize=64)
def _frame(prompts: Prompts) -> tuple[tuple[str, ...], int]:
    """The blocks around the demonstrations, and tokens to allow for what stands between them."""
    template = prompts.templates["demonstrations"]
    blocks = template.blocks(mark=MARK if prompts.quoting.on else "")
    return tuple(blocks), len(template.blocks(mark=MARK)) - 1


@lru_cache(maxsize=256)
def _task_blocks(prompts: Prompts, task: str) -> tuple[str, ...]:
    """What the template says of the task, of at most `MAX_TASK` characters; nothing where it has no such field."""
    template = prompts.templates["demonstrations"]
    without = template.blocks()
    return tuple(block for block in template.blocks(task=task) if block not in without) if task else ()


def _frame_tokens(prompts: Prompts, count: TokenCounter, task: str, examples: int) -> tuple[int, int]:
    """Tokens around the demonstrations, and those of a heading."""
    blocks, between = _frame(prompts)
    frame = sum(map(count, (*blocks, *_task_blocks(prompts, task)))) + between
    return frame, count(_heading(prompts, examples)) + 2


_known_frame_tokens = lru_cache(maxsize=1024)(_frame_tokens)


def fit(
    demonstrations: Sequence[Demonstration],
    budget: int,
    count: TokenCounter,
    prompts: Prompts = DEFAULT,
    task: str = "",
) -> tuple[list[tuple[Demonstration, str]], int]:
    """The best demonstrations (given best first) that fit into `budget` tokens with their texts, and what they take.

    A demonstration is shown whole or not at all; one that is longer than what is left is passed over, so a huge
    best match does not crowd out smaller ones.
    """
    if isinstance(count, LineCounter):
        frame, heading = _known_frame_tokens(prompts, count, task, len(demonstrations))
    else:
        frame, heading = _frame_tokens(prompts, count, task, len(demonstrations))
    total = frame
    shown = []
    for demonstration in demonstrations:
        text, tokens = render_and_count(demonstration, prompts, count)
        cost = tokens + heading
        if total + cost <= budget:
            shown.append((demonstration, text))
            total += cost
    return shown, total if shown else total - frame


def build(
    messages: Sequence[Message],
    demonstrations: Sequence[Demonstration],
    *,
    budget: int,
    count: TokenCounter,
    prompts: Prompts = DEFAULT,
    place: Place = "first",
    task: str = "",
) -> Prompt:
    """Put as many of `demonstrations` as `budget` tokens hold into `messages`, which are not changed.

    Args:
        messages: a conversation with a user message.
        demonstrations: best first.
        budget: tokens that they may add.
        count: counts the tokens of a text.
        prompts: templates, and the quoting of what the demonstrations say.
        place: at the end of the first user message, or the last before the new observation.
        task: said once more behind them unless it is longer than `MAX_TASK`: a small model that is to answer at once
            takes up the last example else (README, "Real models").

    Returns:
        The messages to send, with the demonstrations, and which these are.

    Raises:
        InvalidRequest: there is no user message to attach them to.
    """
    return build_at(messages, demonstrations, (place,), budget=budget, count=count, prompts=prompts, task=task)[0]


def build_at(
    messages: Sequence[Message],
    demonstrations: Sequence[Demonstration],
    places: Sequence[Place],
    *,
    budget: int,
    count: TokenCounter,
    prompts: Prompts = DEFAULT,
    task: str = "",
) -> list[Prompt]:
    """One prompt of `build` for each of `places`, rendered once."""
    task = task.strip() if len(task) <= MAX_TASK else ""
    shown, tokens = fit(demonstrations, budget, count, prompts, task)
    dropped = len(demonstrations) - len(shown)
    if not shown:
        return [Prompt(list(messages), (), dropped, 0) for _ in places]
    first = next((i for i, m in enumerate(messages) if m.get("role") == "user"), None)
    if first is None:
        raise InvalidRequest("demonstrations need a user message to follow: the conversation has none")
    key = text_of(messages[first])
    structure = Shown(tuple(d for d, _ in sorted(shown, key=_place)), prompts.quoting.on, key, task)
    text = render(shown, prompts, key, task)
    best_first = tuple(d for d, _ in shown)
    return [Prompt(_placed(messages, first, place, text, structure), best_first, dropped, tokens) for place in places]


def _placed(messages: Sequence[Message], first: int, place: Place, text: str, structure: Shown) -> list[Message]:
    """The messages with `text` at the end of the `first` user message, or before the new observation."""
    at = observation_start(messages) if place == "last" else None
    if at is None:
        return [*messages[:first], Composed(messages[first], text, structure), *messages[first + 1 :]]
    user = next((i for i in range(at, len(messages)) if messages[i].get("role") == "user"), None)
    if user is None:
        return [*messages, Composed({"role": "user", "content": ""}, text, structure)]
    return [*messages[:user], Composed(messages[user], text, structure, before=True), *messages[user + 1 :]]


def observation_start(messages: Sequence[Message]) -> int | None:
    """Index of the first message after the last answer; None where there is no answer or nothing after it."""
    for i in range(len(messages) - 1, -1, -1):
        if messages[i].get("role") == "assistant":
            return i + 1 if any(m.get("role") in ("user", "tool", "function") for m in messages[i + 1 :]) else None
    return None
