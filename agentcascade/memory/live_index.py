"""Live index of a history that other processes append to, and the stores that it reads from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agentcascade._util import forking
from agentcascade.errors import InvalidRequest
from agentcascade.memory.index import HistoryIndex
from agentcascade.types import Turn


class HistoryStore(Protocol):
    """Store of histories; `agentcascade.storage.histories.Histories` is the one in a database."""

    def append(self, namespace: str, name: str, turns: Sequence[Turn]) -> int: ...

    def follow(
        self, namespace: str, name: str, after_position: int = -1
    ) -> tuple[int | None, Sequence[tuple[int, Turn]]]:
        """The history's key, and (position, turn) of every turn after `after_position`."""
        ...

    def remove(self, namespace: str, name: str) -> bool: ...


class InMemoryHistories:
    """In-memory store of histories, for a process without a database; turns are checked as there. Thread-safe."""

    def __init__(self) -> None:
        self._lock = forking.lock()
        self._made = 0
        self._known: dict[tuple[str, str], tuple[int, list[Turn], dict[str, Turn]]] = {}

    def append(self, namespace: str, name: str, turns: Sequence[Turn]) -> int:
        """Append turns, all or none; returns how many were new. Raises `InvalidRequest` for an id with another text."""
        with self._lock:
            key, history, ids = self._known.get((namespace, name)) or (self._made, [], {})
            new: dict[str, Turn] = {}
            for turn in turns:
                earlier = ids.get(turn.id) or new.setdefault(turn.id, turn)
                if earlier != turn:
                    raise InvalidRequest(
                        f"history '{name[:60]}' has a turn '{turn.id[:60]}' that says something else: a history only "
                        "grows, give what is new an id of its own"
                    )
            if new:
                history.extend(new.values())
                ids.update(new)
                self._known[namespace, name] = key, history, ids
                self._made += key == self._made
            return len(new)

    def follow(
        self, namespace: str, name: str, after_position: int = -1
    ) -> tuple[int | None, Sequence[tuple[int, Turn]]]:
        with self._lock:
            key, history, _ = self._known.get((namespace, name)) or (None, [], {})
            return key, list(enumerate(history[after_position + 1 :], after_position + 1))

    def remove(self, namespace: str, name: str) -> bool:
        with self._lock:
            return self._known.pop((namespace, name), None) is not None


class LiveIndex:
    """Index of a history and the position up to which it has read its store. Thread-safe."""

    def __init__(self, index: HistoryIndex) -> None:
        self.index = index
        self._lock = forking.lock()
        self._position = -1
        self._key: int | None = None

    def load_fixed(self, turns: Sequence[Turn]) -> None:
        """Index a history that never grows; only the first call does anything."""
        with self._lock:
            if self._position < 0:
                self._position = 0
                self.index.append(turns)

    def refresh(self, histories: HistoryStore, namespace: str, name: str) -> None:
        """Index what was appended to the store since the last call."""
        with self._lock:
            key, rows = histories.follow(namespace, name, self._position)
            if key != self._key and self._key is not None:
                self.index.clear()
                self._position = -1
                key, rows = histories.follow(namespace, name, self._position)
            self._key = key
            if rows:
                self.index.append([turn for _, turn in rows])
                self._position = rows[-1][0]
