"""Items to the text that an agent reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentcascade.memory.question import Item, Work


class Text(NamedTuple):
    text: str
    sources: tuple[str, ...]
    """Ids of the turns it draws on, most useful first."""
    tokens: int
    dropped: int
    """Items that did not fit."""


def compose(work: Work, items: Sequence[Item], budget: int) -> Text:
    """Whole items in the order given, as many as `budget` tokens hold; one that is too long is passed over."""
    shown, sources, total, dropped = [], dict[str, None](), 0, 0
    # The most useful come in first, whatever their place.
    useful = sorted(range(len(items)), key=lambda n: -items[n].score)
    fitting = set()
    for n in useful:
        tokens = _tokens(work, items[n]) + 2
        if total + tokens > budget:
            dropped += 1
            continue
        total += tokens
        fitting.add(n)
        sources.update(dict.fromkeys(work.view.lines[i].turn for i in items[n].lines))
    shown = [f"- {item.text}" for n, item in enumerate(items) if n in fitting]
    text = "\n".join(shown)
    return Text(text, tuple(sources), work.tools.count(text) if text else 0, dropped)


def _tokens(work: Work, item: Item) -> int:
    """Of a line as it is shown: of what stands before it, and those it was counted to have when it was read."""
    line = work.view.lines[item.lines[0]] if len(item.lines) == 1 else None
    if line is not None and item.text.endswith(line.text):
        return work.tools.count(item.text[: -len(line.text)]) + line.tokens
    return work.tools.count(item.text)
