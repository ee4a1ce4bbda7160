"""Search index of a history: lines, chunks, line vectors and BM25."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agentcascade._util import forking
from agentcascade.memory.bm25 import BM25Index
from agentcascade.memory.chunking import Chunk, Line, pack_chunks, split_turns
from agentcascade.memory.result_cache import LineVectorCache
from agentcascade.memory.tokenization import terms
from agentcascade.protocols import TokenCounter
from agentcascade.types import Turn

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

EMBEDDING_BATCH = 256
LINE_BYTES, TOKEN_BYTES = 700, 22
"""What a line takes beside its vector, and each of its tokens: its texts, its terms, and BM25 (measured)"""


def expected_bytes(turns: Sequence[Turn], dimension: int) -> int:
    """Rather more than the `HistoryIndex.held_bytes` that turns in English will take."""
    tokens = sum(len(turn.text) for turn in turns) // 3
    return (len(turns) + tokens // 100) * (4 * dimension + LINE_BYTES) + tokens * TOKEN_BYTES


@dataclass(frozen=True)
class HistorySnapshot:
    """Snapshot of a history index at one question; later appends do not change it."""

    lines: Sequence[Line]
    chunks: Sequence[Chunk]
    vectors: Vector
    """Unit vectors (embedded, d) of the first lines; later lines are not embedded yet"""
    bm25: Vector
    """BM25 (chunks,) of the question."""
    idf: dict[str, float]
    """Inverse document frequency of the question's terms, over lines."""


class HistoryIndex:
    """Index of one history. Thread-safe.

    It holds at most `max_tokens` tokens: the oldest lines beyond that are dropped and counted in `forgotten_tokens`.
    """

    def __init__(
        self, vectors: LineVectorCache, dimension: int, count: TokenCounter, chunk_tokens: int, max_tokens: int
    ) -> None:
        self._vectors = vectors
        self._count = count
        self._chunk_tokens = chunk_tokens
        self.max_tokens = max_tokens
        self._lock = forking.rlock()
        self._embedding = forking.lock()
        self._dimension = dimension
        self.forgotten_tokens: int = 0
        self.generation: int = 0
        """Changes whenever the history does."""
        self._clear()

    def clear(self) -> None:
        """Empty the index."""
        with self._embedding, self._lock:
            self._clear()
            self.forgotten_tokens = 0
            self.generation += 1

    def _clear(self) -> None:
        self.tokens = 0
        self._embedded = 0
        self._lines: list[Line] = []
        self._chunks: list[Chunk] = []
        self._bm25 = BM25Index()
        self._frequency = Counter[str]()
        self._rows = np.empty((0, self._dimension), dtype=np.float32)

    def __len__(self) -> int:
        """Number of lines."""
        return len(self._lines)

    @property
    def unembedded(self) -> int:
        """Number of lines that have no vector yet."""
        return len(self._lines) - self._embedded

    @property
    def held_bytes(self) -> int:
        """About what it takes in memory once all of its lines are embedded."""
        return len(self._lines) * (4 * self._dimension + LINE_BYTES) + self.tokens * TOKEN_BYTES

    def append(self, turns: Sequence[Turn]) -> None:
        """Append turns."""
        lines = split_turns(turns, self._count, self._chunk_tokens)
        if not lines:
            return
        with self._lock:
            total = self.tokens + sum(line.tokens for line in lines)
            if total > self.max_tokens:
                lines = self._newest([*self._lines, *lines], total)
                rows = self._rows[: self._embedded]
                old_lines = self._lines
                self._clear()
                self._keep_vectors(old_lines, rows, lines)
            self._add(lines)
            self.generation += 1

    def _newest(self, lines: list[Line], total: int) -> list[Line]:
        """The newest lines that fill nine tenths of the limit, so that not every append drops lines."""
        first, left = 0, total
        while left > 0.9 * self.max_tokens and first < len(lines):
            left -= lines[first].tokens
            first += 1
        self.forgotten_tokens += total - left
        return lines[first:]

    def _keep_vectors(self, old_lines: Sequence[Line], rows: Vector, lines: Sequence[Line]) -> None:
        dropped = next((i for i, line in enumerate(old_lines) if lines and line is lines[0]), len(old_lines))
        remaining = rows[dropped:].copy()
        self._rows = remaining
        self._embedded = len(remaining)

    def _add(self, lines: Sequence[Line]) -> None:
        start = len(self._lines)
        terms_of_lines = [terms(line.said) for line in lines]
        self._lines.extend(lines)
        self.tokens += sum(line.tokens for line in lines)
        for words in terms_of_lines:
            self._frequency.update(set(words))
        added = pack_chunks(lines, self._chunk_tokens, start)
        self._chunks.extend(added)
        self._bm25.add(
            [tuple(w for words in terms_of_lines[c.start - start : c.end - start] for w in words) for c in added]
        )

    def embed(self, most: int | None = None) -> int:
        """Embed up to `most` of the lines that have no vector; returns how many are left."""
        with self._embedding:
            with self._lock:
                start = self._embedded
                batch = self._lines[start : start + min(most or EMBEDDING_BATCH, EMBEDDING_BATCH)]
                generation = self.forgotten_tokens
            if not batch:
                return 0
            texts = [line.said for line in batch]
            vectors = self._vectors.of(texts)
            with self._lock:
                if self.forgotten_tokens == generation:  # else the rows have moved: next time
                    self._store(start, np.stack([vectors[t] for t in texts]))
                return len(self._lines) - self._embedded

    def _store(self, start: int, rows: Vector) -> None:
        end = start + len(rows)
        if end > len(self._rows):
            grown = np.empty((max(end, 2 * len(self._rows), 1024), self._dimension), dtype=np.float32)
            grown[:start] = self._rows[:start]
            self._rows = grown
        self._rows[start:end] = rows
        self._embedded = end

    def snapshot(self, question: Sequence[str]) -> HistorySnapshot:
        """Snapshot of the history, with BM25 scores and inverse document frequencies of the question's terms."""
        with self._lock:
            size = max(1, len(self._lines))
            idf = {t: float(np.log(1 + size / (0.5 + self._frequency[t]))) for t in question}
            return HistorySnapshot(
                lines=self._lines[:],
                chunks=self._chunks[:],
                vectors=self._rows[: self._embedded],
                bm25=self._bm25.scores(question),
                idf=idf,
            )
