"""Raw retrieval: which chunks the modules get to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from agentcascade.memory.index import View

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

Retrieval = Literal["hybrid", "dense", "lexical"]


def retrieve(view: View, query: Vector | None, how: Retrieval, k: int, most: int) -> list[int]:
    """Indices of at most `most` chunks, best first: the best `k` of each search (BudgetMem: 5 and 10).

    Without `query`, or where nothing is embedded yet, by words alone.
    """
    dense = how != "lexical" and query is not None and len(view.vectors) > 0
    lexical = how != "dense" or not dense
    rankings = []
    if dense:
        assert query is not None
        rankings.append(_best(similarities(view, query), k if lexical else most))
    if lexical:
        found = _best(view.lexical, k if dense else most)
        rankings.append([i for i in found if view.lexical[i] > 0])
    merged: dict[int, None] = {}
    for rank in range(max(map(len, rankings), default=0)):
        for ranking in rankings:
            if rank < len(ranking):
                merged.setdefault(ranking[rank])
    return list(merged)[:most]


def similarities(view: View, query: Vector) -> Vector:
    """Of each chunk (chunks,): the cosine of its best line. One line answers a question; a mean would blur it."""
    lines = view.vectors @ query
    starts = np.array([c.start for c in view.chunks], dtype=np.intp)
    embedded = starts < len(lines)
    found = np.full(len(starts), -1.0, dtype=np.float32)
    if embedded.any():
        found[embedded] = np.maximum.reduceat(lines, starts[embedded])
    return found


def _best(scores: Vector, k: int) -> list[int]:
    k = min(k, len(scores))
    if k == 0:
        return []
    top = np.argpartition(-scores, k - 1)[:k]
    return [int(i) for i in top[np.argsort(-scores[top], kind="stable")]]
