"""A history cut into lines (a turn, or a part of a long one) and chunks of so many tokens (BudgetMem: 256)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from agentcascade.protocols import TokenCounter
from agentcascade.types import Turn

SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
CHARACTERS_PER_TOKEN = 12
"""No piece of text handed to the tokenizer is longer than this many times its limit: a megabyte without a space would
take it minutes."""


@dataclass(frozen=True, slots=True)
class Line:
    """The smallest piece that is retrieved and cited."""

    turn: str
    text: str
    speaker: str
    session: str
    at: datetime | None
    tokens: int
    said: str = field(init=False, compare=False)
    """With the speaker in front: what is embedded and searched."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", f"{self.speaker}: {self.text}" if self.speaker else self.text)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines `start` to `end` (exclusive), all of one session."""

    start: int
    end: int
    tokens: int


def lines_of(turns: Iterable[Turn], count: TokenCounter, limit: int) -> list[Line]:
    """Turns as lines of at most `limit` tokens; empty turns are left out."""
    found = []
    for turn in turns:
        for text, tokens in _pieces(" ".join(turn.text.split()), count, limit):
            found.append(Line(turn.id, text, turn.speaker, turn.session, turn.at, tokens))
    return found


def _pieces(text: str, count: TokenCounter, limit: int) -> list[tuple[str, int]]:
    """`text` whole where it fits, else by sentences, else by words, else by characters; with their tokens."""
    if not text:
        return []
    if len(text) <= limit * CHARACTERS_PER_TOKEN and (tokens := count(text)) <= limit:
        return [(text, tokens)]
    packed: list[tuple[str, int]] = []
    for part in _split(text, limit):
        tokens = count(part)
        if packed and packed[-1][1] + tokens + 1 <= limit:
            last, before = packed[-1]
            packed[-1] = (f"{last} {part}", before + tokens + 1)
        else:
            packed.append((part, tokens))
    return packed


def _split(text: str, limit: int) -> Iterable[str]:
    """Sentences; a sentence that may be longer than `limit` in parts of so many characters, cut at a space if any."""
    safe = max(1, limit)  # a token has at least one character, but for rare bytes
    for sentence in SENTENCE.split(text):
        while len(sentence) > 3 * safe:
            cut = sentence.rfind(" ", safe, 3 * safe)
            cut = cut if cut > 0 else 3 * safe
            yield sentence[:cut].strip()
            sentence = sentence[cut:].strip()
        if sentence:
            yield sentence


def chunks_of(lines: Sequence[Line], limit: int, start: int = 0) -> list[Chunk]:
    """Consecutive lines of one session, packed up to `limit` tokens; indices count from `start`."""
    found: list[Chunk] = []
    for i, line in enumerate(lines, start):
        last = found[-1] if found else None
        same = last is not None and lines[last.start - start].session == line.session
        if last is not None and same and last.tokens + line.tokens <= limit:
            found[-1] = Chunk(last.start, i + 1, last.tokens + line.tokens)
        else:
            found.append(Chunk(i, i + 1, line.tokens))
    return found
