"""What memories computed once, kept over restarts: vectors of lines and answers of chat models, by content."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agentcascade._util.lru_cache import Cache
from agentcascade.models.embeddings import TextVectors

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector


class Kept(Protocol):
    """Where they are kept; `agentcascade.storage.computed_cache.ComputedCache` in a database."""

    def get(self, kind: str, keys: Collection[str]) -> dict[str, bytes]: ...

    def put(self, kind: str, values: Mapping[str, bytes]) -> None: ...


class LineVectors:
    """The vectors of a history's lines: embedded once, whatever restarts. Thread-safe."""

    def __init__(self, vectors: TextVectors, encoder: str, dimension: int, kept: Kept | None) -> None:
        self._vectors, self._kind, self._dimension, self._kept = vectors, f"vector:{encoder}"[:200], dimension, kept

    def of(self, texts: Sequence[str]) -> dict[str, Vector]:
        """Unit vectors (dimension,) by text."""
        if self._kept is None or self._vectors.cached(texts):
            return self._vectors.of(texts)
        keys = {text: digest(text) for text in texts}
        stored = self._kept.get(self._kind, set(keys.values()))
        size = 4 * self._dimension
        found = {
            text: np.frombuffer(stored[key], dtype="<f4")
            for text, key in keys.items()
            if len(stored.get(key, b"")) == size
        }
        made = self._vectors.of([text for text in keys if text not in found])
        self._kept.put(self._kind, {keys[text]: vector.astype("<f4").tobytes() for text, vector in made.items()})
        return {**found, **made}


class Answers:
    """What chat models said, by model and messages: asked once, paid once. Thread-safe."""

    KIND = "answer"

    def __init__(self, size: int, kept: Kept | None = None) -> None:
        self._known: Cache[str, str] = Cache(size)
        self._kept = kept

    def get(self, key: str) -> str | None:
        """From this process, else from the database, which may take a moment."""
        known = self._known.get(key)
        if known is None and self._kept is not None:
            stored = self._kept.get(self.KIND, [key]).get(key)
            if stored is not None:
                known = stored.decode()
                self._known.put(key, known)
        return known

    def put(self, key: str, text: str) -> None:
        self._known.put(key, text)
        if self._kept is not None:
            self._kept.put(self.KIND, {key: text.encode(errors="replace")})


def digest(text: str) -> str:
    return blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()
