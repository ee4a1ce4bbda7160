"""LRU cache: a bounded mapping that drops its least recently used items."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, TypeVar

from agentcascade._util import forking

K = TypeVar("K")
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """At most `size` items; the least recently used goes first. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = forking.lock()
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
            return None

    def get_many(self, keys: Sequence[K]) -> list[V | None]:
        """As `get` for each of `keys`, under one lock."""
        items = self._items
        with self._lock:
            found = [items.get(key) for key in keys]
            for key, value in zip(keys, found):
                if value is not None:
                    items.move_to_end(key)
        return found

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            while len(self._items) > self._size:
                self._items.popitem(last=False)

    def setdefault(self, key: K, value: V) -> V:
        """The value that is there, else `value`, put there: for many threads that make one thing."""
        with self._lock:
            present = self._items.setdefault(key, value)
            self._items.move_to_end(key)
            while len(self._items) > self._size:
                self._items.popitem(last=False)
            return present

    def drop(self, key: K) -> None:
        with self._lock:
            self._items.pop(key, None)
