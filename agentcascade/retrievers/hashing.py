"""An embedder that needs nothing: words hashed into a vector. Knows no synonyms; for tests and as a last resort."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from agentcascade.errors import ConfigError

if TYPE_CHECKING:
    from agentcascade.protocols import Vectors

_WORD = re.compile(r"\w+")


class HashEmbedder:
    """Signed feature hashing of a text's words, damped counts, unit length; an empty text gets a fixed vector.

    Raises `ConfigError` for less than one dimension.
    """

    at_once = 1_000
    """Characters that are embedded in the event loop: a few tenths of a millisecond."""

    def __init__(self, dimension: int = 256) -> None:
        if dimension < 1:
            raise ConfigError(f"hashing needs at least 1 dimension, not {dimension}: see retrieval.embedder")
        self.dimension = dimension
        self.name = f"hashing-{dimension}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 (len(texts), dimension)."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts):
            for word, count in Counter(_WORD.findall(text.lower()) or [""]).items():
                number = int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
                row[number % self.dimension] += (1 if number >> 63 else -1) * np.sqrt(count)
            norm = np.linalg.norm(row)
            if norm:
                row /= norm
            else:  # words that cancel out
                row[0] = 1.0
        return vectors
