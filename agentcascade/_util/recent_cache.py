"""Recent cache: a bounded mapping without a lock, of two generations; what is used again outlives the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class RecentCache(Generic[K, V]):
    """Holds what was put or used last: up to two generations of `size` each. Thread-safe.

    Cheaper to read than `LRUCache`: a hit in the young generation is one look into a dict, and nothing moves. When the
    young one is full, it becomes the old one. Threads that fill it at once may drop items early, and mix up none.

    Args:
        size: Of a generation, as the sum of what its items weigh.
        weigh: The part of it that a key and its value take; by default each item counts as one.
    """

    def __init__(self, size: int, weigh: Callable[[K, V], int] = lambda key, value: 1) -> None:
        self._size, self._weigh = size, weigh
        self._held = 0
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        self.grew(self._weigh(key, value))
        self._young[key] = value

    def grew(self, weight: int) -> None:
        """An item of the young generation takes so much more."""
        if self._held + weight > self._size:
            self._old, self._young, self._held = self._young, {}, 0
        self._held += weight
