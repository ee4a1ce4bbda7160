"""Chunking: turns are split into lines, and lines packed into chunks of a number of tokens (BudgetMem: 256)."""

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
    """Line of a history: a turn or a part of a long one, the smallest piece that is embedded and cited."""

    turn: str
    text: str
    speaker: str
    session: str
    at: datetime | None
    tokens: int
    said: str = field(init=False, compare=False)
    """The text with its speaker in front, which is embedded and searched"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", f"{self.speaker}: {self.text}" if self.speaker else self.text)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines `start` to `end` (exclusive), all of one session."""

    start: int
    end: int
    tokens: int


def split_turns(turns: Iterable[Turn], count: TokenCounter, limit: int) -> list[Line]:
    """Split turns into lines of at most `limit` tokens; empty turns are left out."""
    lines = []
    for turn in turns:
        for text, tokens in _split_text(" ".join(turn.text.split()), count, limit):
            lines.append(Line(turn.id, text, turn.speaker, turn.session, turn.at, tokens))
    return lines


def _split_text(text: str, count: TokenCounter, limit: int) -> list[tuple[str, int]]:
    """(part, tokens) pairs: the whole text where it fits, else sentences, else words, else characters."""
    if not text:
        return []
    if len(text) <= limit * CHARACTERS_PER_TOKEN and (tokens := count(text)) <= limit:
        return [(text, tokens)]
    packed: list[tuple[str, int]] = []
    for part in _split_sentences(text, limit):
        tokens = count(part)
        if packed and packed[-1][1] + tokens + 1 <= limit:
            last, before = packed[-1]
            packed[-1] = (f"{last} {part}", before + tokens + 1)
        else:
            packed.append((part, tokens))
    return packed


def _split_sentences(text: str, limit: int) -> Iterable[str]:
    """Split into sentences; one that may exceed `limit` tokens is cut at spaces where there are any."""
    safe = max(1, limit)  # a token has at least one character, but for rare bytes
    for sentence in SENTENCE.split(text):
        while len(sentence) > 3 * safe:
            cut = sentence.rfind(" ", safe, 3 * safe)
            cut = cut if cut > 0 else 3 * safe
            yield sentence[:cut].strip()
            sentence = sentence[cut:].strip()
        if sentence:
            yield sentence


def pack_chunks(lines: Sequence[Line], limit: int, start: int = 0) -> list[Chunk]:
    """Pack consecutive lines of one session into chunks of up to `limit` tokens; indices count from `start`."""
    chunks: list[Chunk] = []
    for i, line in enumerate(lines, start):
        last = chunks[-1] if chunks else None
        same = last is not None and lines[last.start - start].session == line.session
        if last is not None and same and last.tokens + line.tokens <= limit:
            chunks[-1] = Chunk(last.start, i + 1, last.tokens + line.tokens)
        else:
            chunks.append(Chunk(i, i + 1, line.tokens))
    return chunks
