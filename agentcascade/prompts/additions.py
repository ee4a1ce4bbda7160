"""Additions to messages as structures: models of our own read them, whatever the template; providers cannot see them.

A message that something was added to is a `Composed`: a dict like any other, which knows as an attribute what was
added. Attributes are in no JSON, no request and no copy that somebody else makes of a message, so none reaches a
provider; and what comes from a client or a file has none, so nobody can forge one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentcascade.messages import with_text, with_text_before
from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.prompts.prompts import Prompts
from agentcascade.types import Message


class Addition(Protocol):
    """What was added to the end of a message."""

    def default_text(self) -> str:
        """As the default templates render it, without marks."""
        ...


@dataclass(frozen=True)
class Rendered:
    """A template and the values that were put into it, quoted."""

    template: str
    values: Mapping[str, str]

    def default_text(self) -> str:
        return TEMPLATES[self.template].render(**self.values)


class Composed(dict[str, Any]):
    """`base` with `text` at its end, or before it, which says `addition`."""

    def __init__(self, base: Message, text: str, addition: Addition, *, before: bool = False) -> None:
        super().__init__((with_text_before if before else with_text)(base, text))
        self.text: str = text
        self.addition: Addition = addition
        self.before: bool = before
        self.base = base

    def on(self, base: Message) -> Composed:
        """The same addition to another message."""
        return Composed(base, self.text, self.addition, before=self.before)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        """Copied and pickled as a plain message."""
        return dict, (dict(self),)


def with_addition_behind(
    messages: Sequence[Message], text: str, addition: Addition, *, user_after_tools: bool = True
) -> list[Message] | None:
    """`messages` with `text` at the end of the last, a user's, or behind it, where tools' results stand there.

    None where there is no place: an answer that is to be gone on with stands last, or the model that is asked takes no
    user's message behind tools' results.
    """
    role = messages[-1].get("role") if messages else None
    if role == "user":
        return [*messages[:-1], Composed(messages[-1], text, addition)]
    if role in ("tool", "function") and user_after_tools:
        return [*messages, Composed({"role": "user", "content": ""}, text, addition)]
    return None


def additions(message: Message) -> Iterator[Addition]:
    """What was added to a message, last first; nothing for a message of somebody else."""
    while isinstance(message, Composed):
        yield message.addition
        message = message.base


def rendered(message: Message, template: str) -> Mapping[str, str] | None:
    """The values that `template` was rendered with at the end of the message; None where it was not."""
    for addition in additions(message):
        if isinstance(addition, Rendered) and addition.template == template:
            return addition.values
    return None


def without(message: Message, template: str) -> Message:
    """The message without what `template` was rendered to in it, and with all else that was added."""
    if not isinstance(message, Composed):
        return message
    base = without(message.base, template)
    if isinstance(message.addition, Rendered) and message.addition.template == template:
        return base
    return message if base is message.base else message.on(base)


def rendered_by(prompts: Prompts, message: Message) -> Message:
    """The message with the texts that `prompts` have for the templates in it; the same one where there are none."""
    if not isinstance(message, Composed) or not isinstance(message.addition, Rendered):
        return message
    text = prompts.render(message.addition.template, **message.addition.values)
    return Composed(rendered_by(prompts, message.base), text, message.addition, before=message.before)


def by_default(message: Message) -> Message:
    """The message as the default templates would have made it, without marks around demonstrations."""
    if not isinstance(message, Composed):
        return message
    add = with_text_before if message.before else with_text
    return add(by_default(message.base), message.addition.default_text())
