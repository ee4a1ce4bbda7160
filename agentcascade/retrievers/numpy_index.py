"""Exact search with numpy alone: for small banks, and where faiss is not installed."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from agentcascade._util import forking
from agentcascade.retrievers.grouping import Hit, best_per_group, check_keys, check_rows

if TYPE_CHECKING:
    from agentcascade.protocols import IdArray, Vectors


class ExactRetriever:
    """Every search looks at every step of the namespace: exact, and linear in their number. Thread-safe."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._lock = forking.lock()
        self._parts: dict[str, _Part] = {}

    def add(self, namespace: str, rows: IdArray, groups: IdArray, keys: Vectors) -> None:
        rows, groups, keys = check_rows(rows, groups, keys, self.dimension)
        with self._lock:
            self._parts.setdefault(namespace, _Part(self.dimension)).append(rows, groups, keys)

    def remove(self, namespace: str, groups: Collection[int]) -> None:
        with self._lock:
            part = self._parts.get(namespace)
            if part is not None:
                rows, part_groups, keys = part.view()
                keep = ~np.isin(part_groups, list(groups))
                self._parts[namespace] = remaining = _Part(self.dimension)
                remaining.append(rows[keep], part_groups[keep], keys[keep])

    def search(self, namespace: str, key: Vectors, k: int, exclude: Collection[int] = ()) -> list[Hit]:
        key = check_keys(np.asarray(key)[None], self.dimension)[0]
        with self._lock:
            part = self._parts.get(namespace)
            if part is None or k < 1:
                return []
            rows, groups, keys = part.view()
        return best_per_group(rows, groups, keys @ key, k, exclude)

    def settle(self) -> None:
        """Nothing is done in the background."""

    def __len__(self) -> int:
        with self._lock:
            return sum(part.size for part in self._parts.values())


class _Part:
    """Arrays with room to grow. Rows once written never change, so a view stays good after the lock is released."""

    def __init__(self, dimension: int) -> None:
        self.size = 0
        self._rows = np.empty(0, dtype=np.int64)
        self._groups = np.empty(0, dtype=np.int64)
        self._keys = np.empty((0, dimension), dtype=np.float32)

    def view(self) -> tuple[IdArray, IdArray, Vectors]:
        return self._rows[: self.size], self._groups[: self.size], self._keys[: self.size]

    def append(self, rows: IdArray, groups: IdArray, keys: Vectors) -> None:
        start, end = self.size, self.size + len(rows)
        if end > len(self._rows):
            capacity = max(end, len(self._rows) * 3 // 2)
            old = self.view()
            self._rows = np.empty(capacity, dtype=np.int64)
            self._groups = np.empty(capacity, dtype=np.int64)
            self._keys = np.empty((capacity, keys.shape[1]), dtype=np.float32)
            self._rows[:start], self._groups[:start], self._keys[:start] = old
        self._rows[start:end], self._groups[start:end], self._keys[start:end] = rows, groups, keys
        self.size = end
