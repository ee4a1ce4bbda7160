"""Texts to checked unit vectors, each embedded once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from agentcascade._util.lru_cache import LRUCache
from agentcascade.errors import EmbeddingError
from agentcascade.messages import without_lone_surrogates
from agentcascade.protocols import Embedder

if TYPE_CHECKING:
    from agentcascade.protocols import Vectors

CACHED_TEXTS = 20_000


class TextVectors:
    """The vectors of an embedder, with the latest kept. Thread-safe. The empty text is the zero vector."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: LRUCache[str, np.ndarray] = LRUCache(CACHED_TEXTS)
        self._zero = np.zeros(embedder.dimension, dtype=np.float32)

    def cached(self, texts: Collection[str]) -> bool:
        """Whether `of` would return without embedding anything."""
        return self.known(texts) is not None

    def known(self, texts: Collection[str]) -> dict[str, np.ndarray] | None:
        """Unit vectors (dimension,) by text, as `of` gives them; None where one is not embedded yet."""
        found = {}
        for text in texts:
            vector = self._known.get(text) if text else self._zero
            if vector is None:
                return None
            found[text] = vector
        return found

    def is_quick(self, texts: Collection[str]) -> bool:
        """Whether `of` is quicker than handing it to a thread: an embedder says by `at_once` of how many characters."""
        return sum(map(len, texts)) <= getattr(self._embedder, "at_once", 0)

    def of(self, texts: Collection[str]) -> dict[str, np.ndarray]:
        """Unit vectors (dimension,) by text; what is not known yet is embedded in one batch."""
        found = {t: v for t in texts if (v := self._known.get(t) if t else self._zero) is not None}
        missing = sorted(set(texts) - set(found))
        if missing:
            for text, vector in zip(missing, embed(self._embedder, missing)):
                own = vector.copy()  # a row of the batch would hold all of the batch while it is known
                self._known.put(text, own)
                found[text] = own
        return found


def embed(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """`embedder`'s vectors (n, dimension); raises `EmbeddingError` naming the first text with an unusable one.

    A lone surrogate, which no tokenizer takes, is embedded as "?".
    """
    if not all(map(str.isascii, texts)):
        texts = without_lone_surrogates(texts)
    vectors = np.asarray(embedder.embed(texts), dtype=np.float32)
    if vectors.shape != (len(texts), embedder.dimension):
        raise EmbeddingError(
            f"embedder {embedder.name} gave an array {vectors.shape} for {len(texts)} texts of {embedder.dimension} "
            "dimensions: see retrieval.embedder"
        )
    norms = np.linalg.norm(vectors, axis=1)
    bad = ~(np.abs(norms - 1) < 1e-2)
    if bad.any():
        i = int(np.argmax(bad))
        raise EmbeddingError(
            f"embedder {embedder.name} gave a vector of length {norms[i]} for {texts[i][:60]!r}, not 1: "
            "nothing was stored"
        )
    return vectors
