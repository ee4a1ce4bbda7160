"""Varied prompts (`sampling.vary`): each sample sees the demonstrations in another order, or a part of them.

Samples of one prompt share its accidents; samples of several agree where these do not matter. Multi-prompt ensembling:
"Calibrate Before Use: Improving Few-Shot Performance of Language Models", section 3, finds how far order and choice of
the examples move an answer. Which demonstrations a sample sees, and in which order, follows from its number alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from agentcascade.prompts.additions import Composed
from agentcascade.prompts.demonstrations import Shown, demonstrations_in, render_in_order
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.prompts.transcripts import render_demonstration
from agentcascade.types import Demonstration, Message

Variation = Literal["none", "order", "subsets"]
SUBSETS = 3
"""Each leaves out another third of the demonstrations."""


def variants(messages: Sequence[Message], how: Variation) -> int:
    """How many different prompts there are: 1 where nothing is varied, or there are no two demonstrations."""
    if how == "none":
        return 1
    shown = next((found for message in messages if (found := demonstrations_in(message))), None)
    if shown is None or len(shown.demonstrations) < 2:
        return 1
    return len(shown.demonstrations) if how == "order" else SUBSETS


def varied(messages: Sequence[Message], how: Variation, number: int, prompts: Prompts = DEFAULT) -> Sequence[Message]:
    """The messages for sample `number`, from 0; number 0 of ``order`` is the prompt as it was built."""
    number %= variants(messages, how)
    if how == "none" or (how == "order" and number == 0):
        return messages
    return [_varied(m, how, number, prompts) if demonstrations_in(m) else m for m in messages]


def _varied(message: Message, how: Variation, number: int, prompts: Prompts) -> Message:
    assert isinstance(message, Composed)
    if not isinstance(message.addition, Shown):
        return message.on(_varied(message.base, how, number, prompts))
    shown = message.addition
    chosen = _chosen(shown.demonstrations, how, number)
    blocks = [(demonstration, render_demonstration(demonstration, prompts)) for demonstration in chosen]
    text = render_in_order(blocks, prompts, shown.key, shown.task)
    return Composed(message.base, text, replace(shown, demonstrations=chosen), before=message.before)


def _chosen(shown: tuple[Demonstration, ...], how: Variation, number: int) -> tuple[Demonstration, ...]:
    if how == "order":
        return (*shown[number:], *shown[:number])
    if len(shown) < 2:
        return shown
    return tuple(demonstration for i, demonstration in enumerate(shown) if i % SUBSETS != SUBSETS - 1 - number)
