"""LRU of history indexes, bounded in number and in bytes: those asked longest ago go, and are made again when asked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from agentcascade._util import forking
from agentcascade.memory.live_index import LiveIndex

Key = tuple[str, str]
"""Namespace and history"""


class HeldIndexes:
    """At most `size` indexes of `max_bytes` together, but for one that is larger alone. Thread-safe."""

    def __init__(self, size: int, max_bytes: int) -> None:
        self._size = size
        self._max_bytes = max_bytes
        self._lock = forking.lock()
        self._held: OrderedDict[Key, LiveIndex] = OrderedDict()
        self._bytes: dict[Key, int] = {}
        self.bytes: int = 0
        """What they take, as far as `weigh` was told."""

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Key, make: Callable[[], LiveIndex]) -> LiveIndex:
        """The index of `key`, made where there is none: the same for many threads that ask at once."""
        with self._lock:
            if key not in self._held:
                self._held[key] = make()
            self._held.move_to_end(key)
            self._trim()
            return self._held[key]

    def weigh(self, key: Key, live_index: LiveIndex) -> None:
        """Take note of what an index takes by now, and let others go if need be."""
        size = live_index.index.held_bytes
        with self._lock:
            if self._held.get(key) is live_index:
                self.bytes += size - self._bytes.get(key, 0)
                self._bytes[key] = size
                self._trim()

    def drop(self, key: Key) -> None:
        with self._lock:
            self._held.pop(key, None)
            self.bytes -= self._bytes.pop(key, 0)

    def _trim(self) -> None:
        while len(self._held) > self._size or (self.bytes > self._max_bytes and len(self._held) > 1):
            key, _ = self._held.popitem(last=False)
            self.bytes -= self._bytes.pop(key, 0)
