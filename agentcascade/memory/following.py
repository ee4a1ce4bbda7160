"""An index that keeps up with a history that others append to."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from agentcascade.memory.index import HistoryIndex
from agentcascade.memory.types import Turn


class Stored(Protocol):
    """Where histories are kept; `agentcascade.storage.histories.Histories` in a database."""

    def append(self, namespace: str, name: str, turns: Sequence[Turn]) -> int: ...

    def follow(
        self, namespace: str, name: str, after_position: int = -1
    ) -> tuple[int | None, Sequence[tuple[int, Turn]]]:
        """The history's key, and (position, turn) of all behind `after_position`."""
        ...

    def remove(self, namespace: str, name: str) -> bool: ...


class Followed:
    """An index, and how far it has read. Thread-safe."""

    def __init__(self, index: HistoryIndex) -> None:
        self.index = index
        self._lock = threading.Lock()
        self._position = -1
        self._key: int | None = None
        self._ids: set[str] = set()

    def append(self, turns: Sequence[Turn]) -> None:
        """Turns of a history that is kept nowhere else; known ids are passed over."""
        with self._lock:
            new = {turn.id: turn for turn in turns if turn.id not in self._ids}
            self._ids |= new.keys()
            self.index.append(list(new.values()))

    def once(self, turns: Sequence[Turn]) -> None:
        """A history that never grows: only the first call does anything."""
        with self._lock:
            if self._position < 0:
                self._position = 0
                self.index.append(turns)

    def follow(self, stored: Stored, namespace: str, name: str) -> None:
        """Read what was appended since the last time, by whomever."""
        with self._lock:
            key, rows = stored.follow(namespace, name, self._position)
            if key != self._key and self._key is not None:
                self.index.clear()
                self._position = -1
                key, rows = stored.follow(namespace, name, self._position)
            self._key = key
            if rows:
                self.index.append([turn for _, turn in rows])
                self._position = rows[-1][0]
