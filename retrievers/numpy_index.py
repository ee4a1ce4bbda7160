"""Exact search with numpy alone: for small banks, and where faiss is not installed."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from agentcascade.retrievers.grouping import Hit, best_per_group, check_keys

if TYPE_CHECKING:
    from agentcascade.protocols import Ids, Vectors


class ExactRetriever:
    """Every search looks at every step of the namespace: exact, and linear in their number."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._lock = threading.RLock()
        self._parts: dict[str, tuple[Ids, Ids, Vectors]] = {}

    def add(self, namespace: str, rows: Ids, groups: Ids, keys: Vectors) -> None:
        keys = check_keys(keys, self.dimension)
        new = np.asarray(rows, dtype=np.int64), np.asarray(groups, dtype=np.int64), keys
        with self._lock:
            old = self._parts.get(namespace)
            if old is None:
                self._parts[namespace] = new
            else:
                joined = tuple(np.concatenate(pair) for pair in zip(old, new))
                self._parts[namespace] = joined[0], joined[1], joined[2]

    def remove(self, namespace: str, groups: Collection[int]) -> None:
        with self._lock:
            if namespace in self._parts:
                rows, own, keys = self._parts[namespace]
                keep = ~np.isin(own, list(groups))
                self._parts[namespace] = rows[keep], own[keep], keys[keep]

    def search(self, namespace: str, key: Vectors, k: int, exclude: Collection[int] = ()) -> list[Hit]:
        key = check_keys(key[None], self.dimension)[0]
        with self._lock:
            part = self._parts.get(namespace)
        if part is None or k < 1:
            return []
        rows, groups, keys = part
        return best_per_group(rows, groups, keys @ key, k, exclude)

    def __len__(self) -> int:
        with self._lock:
            return sum(len(rows) for rows, _, _ in self._parts.values())
