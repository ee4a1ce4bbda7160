"""BM25 scores over a growing list of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.errors import MissingExtra

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

REBUILD_SHARE = 0.25
"""Share of the texts in the small index above which the large one is rebuilt; an append rebuilds the small one only"""


class BM25Index:
    """BM25 index of texts, which are tuples of terms. Not thread-safe: its owner holds the lock."""

    def __init__(self) -> None:
        self._texts: list[tuple[str, ...]] = []
        self._indexed = 0  # texts in the large index
        self._large: Any = None
        self._small: Any = None

    def add(self, texts: Sequence[tuple[str, ...]]) -> None:
        self._texts.extend(texts)
        self._small = None

    def scores(self, query: Sequence[str]) -> Vector:
        """BM25 score of every text (n,), float32."""
        total = len(self._texts)
        if not query or not total:
            return np.zeros(total, dtype=np.float32)
        if total - self._indexed > REBUILD_SHARE * self._indexed:
            self._large = _build_index(self._texts)
            self._small = None
            self._indexed = total
        elif self._small is None and self._indexed < total:
            self._small = _build_index(self._texts[self._indexed :])
        parts = [_scores(self._large, query, self._indexed)]
        if self._indexed < total:
            parts.append(_scores(self._small, query, total - self._indexed))
        return np.concatenate(parts)


def _build_index(texts: Sequence[tuple[str, ...]]) -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtra("bm25s", "memory", "memory of histories") from error
    index = bm25s.BM25()
    if not any(texts):
        return None
    index.index([list(t) for t in texts], show_progress=False)
    return index


def _scores(index: Any, query: Sequence[str], size: int) -> Vector:
    known = [t for t in query if index is not None and t in index.vocab_dict]
    if not known:
        return np.zeros(size, dtype=np.float32)
    scores: Vector = np.asarray(index.get_scores(known), dtype=np.float32)
    return scores
