"""Hybrid retrieval of chunks: dense similarity and BM25."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from agentcascade.memory.index import HistorySnapshot

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

Retrieval = Literal["hybrid", "dense", "lexical"]


def retrieve(snapshot: HistorySnapshot, query: Vector | None, how: Retrieval, k: int, most: int) -> list[int]:
    """Retrieve the indices of at most `most` chunks, best first: the top `k` of each search (BudgetMem: 5 and 10).

    Without `query`, or where nothing is embedded yet, by BM25 alone.
    """
    dense = how != "lexical" and query is not None and len(snapshot.vectors) > 0
    lexical = how != "dense" or not dense
    rankings = []
    if dense:
        assert query is not None
        rankings.append(_top_indices(chunk_similarities(snapshot, query), k if lexical else most))
    if lexical:
        by_words = _top_indices(snapshot.bm25, k if dense else most)
        rankings.append([i for i in by_words if snapshot.bm25[i] > 0])
    merged: dict[int, None] = {}
    for rank in range(max(map(len, rankings), default=0)):
        for ranking in rankings:
            if rank < len(ranking):
                merged.setdefault(ranking[rank])
    return list(merged)[:most]


def chunk_similarities(snapshot: HistorySnapshot, query: Vector) -> Vector:
    """Cosine (chunks,) of the best line of each chunk: one line answers a question, a mean would blur it."""
    lines = snapshot.vectors @ query
    starts = np.array([c.start for c in snapshot.chunks], dtype=np.intp)
    embedded = starts < len(lines)
    similarities = np.full(len(starts), -1.0, dtype=np.float32)
    if embedded.any():
        similarities[embedded] = np.maximum.reduceat(lines, starts[embedded])
    return similarities


def _top_indices(scores: Vector, k: int) -> list[int]:
    k = min(k, len(scores))
    if k == 0:
        return []
    top = np.argpartition(-scores, k - 1)[:k]
    return [int(i) for i in top[np.argsort(-scores[top], kind="stable")]]
