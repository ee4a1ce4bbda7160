"""A history made searchable: lines, chunks, their vectors and BM25. Nothing is built that depends on a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agentcascade._util import forking
from agentcascade.memory.bm25 import Lexical
from agentcascade.memory.chunking import Chunk, Line, chunks_of, lines_of
from agentcascade.memory.result_cache import LineVectors
from agentcascade.memory.tokenization import terms
from agentcascade.protocols import TokenCounter
from agentcascade.types import Turn

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

EMBEDDED_AT_ONCE = 256


@dataclass(frozen=True)
class View:
    """A history at one moment. Later appends do not change it."""

    lines: Sequence[Line]
    chunks: Sequence[Chunk]
    vectors: Vector
    """Unit vectors (embedded, d) of the first lines; those behind are not embedded yet."""
    lexical: Vector
    """BM25 (chunks,) of the question."""
    rarity: dict[str, float]
    """Inverse document frequency of the question's terms, over lines."""


class HistoryIndex:
    """The lines of one history. Thread-safe.

    It holds at most `max_tokens`: the oldest lines beyond that are forgotten, and `forgotten` tells how many tokens.
    """

    def __init__(
        self, vectors: LineVectors, dimension: int, count: TokenCounter, chunk_tokens: int, max_tokens: int
    ) -> None:
        self._vectors, self._count, self._chunk_tokens, self.max_tokens = vectors, count, chunk_tokens, max_tokens
        self._lock, self._embedding = forking.rlock(), forking.lock()
        self._dimension = dimension
        self.forgotten = 0
        self.generation = 0
        """Changes whenever the history does."""
        self._clear()

    def clear(self) -> None:
        """Forget all of it, as if it had never been."""
        with self._embedding, self._lock:
            self._clear()
            self.forgotten = 0
            self.generation += 1

    def _clear(self) -> None:
        self.tokens, self._embedded = 0, 0
        self._lines: list[Line] = []
        self._chunks: list[Chunk] = []
        self._lexical, self._frequency = Lexical(), Counter[str]()
        self._rows = np.empty((0, self._dimension), dtype=np.float32)

    def __len__(self) -> int:
        """Lines held."""
        return len(self._lines)

    @property
    def missing(self) -> int:
        """Lines that have no vector yet."""
        return len(self._lines) - self._embedded

    def append(self, turns: Sequence[Turn]) -> None:
        """Add turns at the end."""
        lines = lines_of(turns, self._count, self._chunk_tokens)
        if not lines:
            return
        with self._lock:
            total = self.tokens + sum(line.tokens for line in lines)
            if total > self.max_tokens:
                lines = self._newest([*self._lines, *lines], total)
                kept = self._rows[: self._embedded]
                old = self._lines
                self._clear()
                self._keep_vectors(old, kept, lines)
            self._add(lines)
            self.generation += 1

    def _newest(self, lines: list[Line], total: int) -> list[Line]:
        """The last lines that fill nine tenths of the limit, so that not every append forgets anew."""
        first, left = 0, total
        while left > 0.9 * self.max_tokens and first < len(lines):
            left -= lines[first].tokens
            first += 1
        self.forgotten += total - left
        return lines[first:]

    def _keep_vectors(self, old: Sequence[Line], rows: Vector, lines: Sequence[Line]) -> None:
        gone = next((i for i, line in enumerate(old) if lines and line is lines[0]), len(old))
        kept = rows[gone:].copy()
        self._rows, self._embedded = kept, len(kept)

    def _add(self, lines: Sequence[Line]) -> None:
        start = len(self._lines)
        found = [terms(line.said) for line in lines]
        self._lines.extend(lines)
        self.tokens += sum(line.tokens for line in lines)
        for words in found:
            self._frequency.update(set(words))
        added = chunks_of(lines, self._chunk_tokens, start)
        self._chunks.extend(added)
        self._lexical.add([tuple(w for words in found[c.start - start : c.end - start] for w in words) for c in added])

    def embed(self, most: int | None = None) -> int:
        """Embed the next lines that have no vector, at most `most`; returns how many are still without."""
        with self._embedding:
            with self._lock:
                start = self._embedded
                batch = self._lines[start : start + min(most or EMBEDDED_AT_ONCE, EMBEDDED_AT_ONCE)]
                generation = self.forgotten
            if not batch:
                return 0
            texts = [line.said for line in batch]
            found = self._vectors.of(texts)
            with self._lock:
                if self.forgotten == generation:  # else the rows have moved: next time
                    self._store(start, np.stack([found[t] for t in texts]))
                return len(self._lines) - self._embedded

    def _store(self, start: int, rows: Vector) -> None:
        end = start + len(rows)
        if end > len(self._rows):
            grown = np.empty((max(end, 2 * len(self._rows), 1024), self._dimension), dtype=np.float32)
            grown[:start] = self._rows[:start]
            self._rows = grown
        self._rows[start:end] = rows
        self._embedded = end

    def view(self, question: Sequence[str]) -> View:
        """The history now, with BM25 of the question's terms."""
        with self._lock:
            size = max(1, len(self._lines))
            rarity = {t: float(np.log(1 + size / (0.5 + self._frequency[t]))) for t in question}
            return View(
                lines=self._lines[:],
                chunks=self._chunks[:],
                vectors=self._rows[: self._embedded],
                lexical=self._lexical.scores(question),
                rarity=rarity,
            )
