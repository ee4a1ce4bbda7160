"""Nearest groups from the nearest rows; and the checks of shapes that every index makes."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from agentcascade.errors import EmbeddingError

if TYPE_CHECKING:
    from agentcascade.protocols import IdArray, Vectors

Hit = tuple[int, int, float]
"""(row, group, inner product)"""

SORTED_AT_FIRST = 2_048
"""Of many scores only so many of the best are sorted; more when they hold too few groups."""


def best_per_group(rows: IdArray, groups: IdArray, scores: Vectors, k: int, exclude: Collection[int] = ()) -> list[Hit]:
    """The best row of each of the k best groups, best first; ties go to the lower row."""
    if exclude:
        keep = ~np.isin(groups, list(exclude))
        rows, groups, scores = rows[keep], groups[keep], scores[keep]
    take = max(SORTED_AT_FIRST, 32 * k)
    while take < len(scores):
        bar = np.partition(scores, len(scores) - take)[len(scores) - take]
        near = scores >= bar  # with all that tie at the bar, so that ties are settled by row, not by chance
        hits = _take_groups(rows[near], groups[near], scores[near], k)
        if len(hits) == k:
            return hits
        take *= 8
    return _take_groups(rows, groups, scores, k)


def _take_groups(rows: IdArray, groups: IdArray, scores: Vectors, k: int) -> list[Hit]:
    order = np.lexsort((rows, -scores))
    first: dict[int, int] = {}
    for position, group in zip(order.tolist(), groups[order].tolist()):
        if group not in first:
            first[group] = position
            if len(first) == k:
                break
    return [(int(rows[i]), group, float(scores[i])) for group, i in first.items()]


def check_rows(rows: IdArray, groups: IdArray, keys: Vectors, dimension: int) -> tuple[IdArray, IdArray, Vectors]:
    """Rows, groups and keys as arrays of one length; raises `EmbeddingError` where `check_keys` does."""
    keys = check_keys(keys, dimension)
    rows, groups = np.asarray(rows, dtype=np.int64), np.asarray(groups, dtype=np.int64)
    if not rows.shape == groups.shape == (len(keys),):
        raise EmbeddingError(f"{len(keys)} keys need as many rows and groups, got {rows.shape} and {groups.shape}")
    return rows, groups, keys


def check_keys(keys: Vectors, dimension: int) -> Vectors:
    """`keys` as a C-contiguous float32 (n, dimension); raises `EmbeddingError` for another shape, NaN or infinity."""
    keys = np.ascontiguousarray(keys, dtype=np.float32)
    if keys.ndim != 2 or keys.shape[1] != dimension:
        raise EmbeddingError(
            f"keys have shape {keys.shape}, the index takes (n, {dimension}): was the embedder changed?"
        )
    finite = np.isfinite(keys).all(axis=1)
    if not finite.all():
        raise EmbeddingError(f"key {int(np.argmin(finite))} of {len(keys)} holds NaN or infinity")
    return keys
