"""Caches of line vectors and of chat models' answers, keyed by content, which a result store keeps over restarts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agentcascade._util.lru_cache import LRUCache
from agentcascade.models.embeddings import TextVectors

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector


class ResultStore(Protocol):
    """Store of cached results by kind and key; `agentcascade.storage.computed_cache` has the one in a database."""

    def get(self, kind: str, keys: Collection[str]) -> dict[str, bytes]: ...

    def put(self, kind: str, values: Mapping[str, bytes]) -> None: ...


class LineVectorCache:
    """Cache of line vectors. Thread-safe."""

    def __init__(self, vectors: TextVectors, encoder: str, dimension: int, store: ResultStore | None) -> None:
        self._vectors = vectors
        self._kind = f"vector:{encoder}"[:200]
        self._dimension = dimension
        self._store = store

    def of(self, texts: Sequence[str]) -> dict[str, Vector]:
        """Unit vectors (dimension,) by text."""
        if self._store is None or self._vectors.cached(texts):
            return self._vectors.of(texts)
        keys = {text: text_digest(text) for text in texts}
        stored = self._store.get(self._kind, set(keys.values()))
        size = 4 * self._dimension
        cached = {
            text: np.frombuffer(stored[key], dtype="<f4")
            for text, key in keys.items()
            if len(stored.get(key, b"")) == size
        }
        computed = self._vectors.of([text for text in keys if text not in cached])
        self._store.put(self._kind, {keys[text]: vector.astype("<f4").tobytes() for text, vector in computed.items()})
        return {**cached, **computed}


class AnswerCache:
    """Cache of chat models' answers by model and messages. Thread-safe."""

    KIND = "answer"

    def __init__(self, size: int, store: ResultStore | None = None) -> None:
        self._known: LRUCache[str, str] = LRUCache(size)
        self._store = store

    def get(self, key: str) -> str | None:
        """The answer from this process, else from the store, which may block."""
        known = self._known.get(key)
        if known is None and self._store is not None:
            stored = self._store.get(self.KIND, [key]).get(key)
            if stored is not None:
                known = stored.decode()
                self._known.put(key, known)
        return known

    def put(self, key: str, text: str) -> None:
        self._known.put(key, text)
        if self._store is not None:
            self._store.put(self.KIND, {key: text.encode(errors="replace")})


def text_digest(text: str) -> str:
    return blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()
