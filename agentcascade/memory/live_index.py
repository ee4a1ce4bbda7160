"""An index that keeps up with a history that others append to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agentcascade._util import forking
from agentcascade.errors import InvalidRequest
from agentcascade.memory.index import HistoryIndex
from agentcascade.types import Turn


class Stored(Protocol):
    """Where histories are kept; `agentcascade.storage.histories.Histories` in a database."""

    def append(self, namespace: str, name: str, turns: Sequence[Turn]) -> int: ...

    def follow(
        self, namespace: str, name: str, after_position: int = -1
    ) -> tuple[int | None, Sequence[tuple[int, Turn]]]:
        """The history's key, and (position, turn) of all behind `after_position`."""
        ...

    def remove(self, namespace: str, name: str) -> bool: ...


class Held:
    """Histories of one process, where no database keeps them: all their turns, whatever index of them is dropped.

    Thread-safe; what it takes and refuses is what `Histories` does.
    """

    def __init__(self) -> None:
        self._lock = forking.lock()
        self._made = 0
        self._known: dict[tuple[str, str], tuple[int, list[Turn], dict[str, Turn]]] = {}

    def append(self, namespace: str, name: str, turns: Sequence[Turn]) -> int:
        """Add turns at the end, all or none; returns how many were new. Raises `InvalidRequest`."""
        with self._lock:
            key, said, ids = self._known.get((namespace, name)) or (self._made, [], {})
            new: dict[str, Turn] = {}
            for turn in turns:
                known = ids.get(turn.id) or new.setdefault(turn.id, turn)
                if known != turn:
                    raise InvalidRequest(
                        f"history '{name[:60]}' has a turn '{turn.id[:60]}' that says something else: a history only "
                        "grows, give what is new an id of its own"
                    )
            if new:
                said.extend(new.values())
                ids.update(new)
                self._known[namespace, name] = key, said, ids
                self._made += key == self._made
            return len(new)

    def follow(
        self, namespace: str, name: str, after_position: int = -1
    ) -> tuple[int | None, Sequence[tuple[int, Turn]]]:
        with self._lock:
            key, said, _ = self._known.get((namespace, name)) or (None, [], {})
            return key, list(enumerate(said[after_position + 1 :], after_position + 1))

    def remove(self, namespace: str, name: str) -> bool:
        with self._lock:
            return self._known.pop((namespace, name), None) is not None


class Followed:
    """An index, and how far it has read. Thread-safe."""

    def __init__(self, index: HistoryIndex) -> None:
        self.index = index
        self._lock = forking.lock()
        self._position = -1
        self._key: int | None = None

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
