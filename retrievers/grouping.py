"""From the nearest rows to the nearest groups; and what every index checks of what it is given."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from agentcascade.errors import EmbeddingError

if TYPE_CHECKING:
    from agentcascade.protocols import Ids, Vectors

Hit = tuple[int, int, float]
"""(row, group, inner product)"""


def best_per_group(rows: Ids, groups: Ids, scores: Vectors, k: int, exclude: Collection[int] = ()) -> list[Hit]:
    """The best row of each of the k best groups, best first; ties go to the lower row."""
    if exclude:
        keep = ~np.isin(groups, list(exclude))
        rows, groups, scores = rows[keep], groups[keep], scores[keep]
    order = np.lexsort((rows, -scores))
    seen: set[int] = set()
    hits: list[Hit] = []
    for i in order:
        group = int(groups[i])
        if group not in seen:
            seen.add(group)
            hits.append((int(rows[i]), group, float(scores[i])))
            if len(hits) == k:
                break
    return hits


def check_keys(keys: Vectors, dimension: int) -> Vectors:
    """`keys` as a C-contiguous float32 (n, dimension); raises `EmbeddingError` for another shape, NaN or infinity."""
    keys = np.ascontiguousarray(keys, dtype=np.float32)
    if keys.ndim != 2 or keys.shape[1] != dimension:
        raise EmbeddingError(f"keys have shape {keys.shape}, the index takes (n, {dimension})")
    finite = np.isfinite(keys).all(axis=1)
    if not finite.all():
        raise EmbeddingError(f"key {int(np.argmin(finite))} of {len(keys)} holds NaN or infinity")
    return keys
