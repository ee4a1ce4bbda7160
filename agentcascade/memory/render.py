"""Compose the memory text from items within a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentcascade.memory.question import MemoryItem, QuestionContext


class MemoryText(NamedTuple):
    """Text of a memory as an agent reads it."""

    text: str
    sources: tuple[str, ...]
    """Ids of the turns it draws on, most useful first"""
    tokens: int
    dropped: int
    """Number of items that did not fit"""


def compose(context: QuestionContext, items: Sequence[MemoryItem], budget: int) -> MemoryText:
    """Compose a memory of at most `budget` tokens: the best whole items that fit, in the order given."""
    fitting_texts, sources, total, dropped = [], dict[str, None](), 0, 0
    # The most useful come in first, whatever their place.
    useful = sorted(range(len(items)), key=lambda n: -items[n].score)
    fitting = set()
    for n in useful:
        tokens = _count_tokens(context, items[n]) + 2
        if total + tokens > budget:
            dropped += 1
            continue
        total += tokens
        fitting.add(n)
        sources.update(dict.fromkeys(context.history.lines[i].turn for i in items[n].lines))
    fitting_texts = [f"- {item.text}" for n, item in enumerate(items) if n in fitting]
    text = "\n".join(fitting_texts)
    return MemoryText(text, tuple(sources), context.small_models.count(text) if text else 0, dropped)


def _count_tokens(context: QuestionContext, item: MemoryItem) -> int:
    """Tokens of an item; of a line's text they were counted when it was indexed."""
    line = context.history.lines[item.lines[0]] if len(item.lines) == 1 else None
    if line is not None and item.text.endswith(line.text):
        return context.small_models.count(item.text[: -len(line.text)]) + line.tokens
    return context.small_models.count(item.text)
