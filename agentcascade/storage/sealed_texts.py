"""Sealed texts by what they were made of: kept where every replica finds them, readable with that alone."""

from __future__ import annotations

from hashlib import blake2b

from agentcascade.storage.computed_cache import ComputedCache
from agentcascade.storage.database import Database
from agentcascade.storage.sealing import seal, unseal

LONGEST = 1_000_000
"""Bytes of a text."""


class SealedTexts:
    """Texts of one kind in a database. A cache: what cannot be read or written is not known, and not kept.

    A text is made of what must not be on a disk unredacted, and must come back as it was. Row and key are two digests
    of a `secret` that follows from the material, so nobody reads it who does not have that.

    Args:
        database: That holds them.
        kind: In its table of computed results.
    """

    def __init__(self, database: Database, kind: str) -> None:
        self._cache, self._kind = ComputedCache(database), kind

    def get(self, secret: str) -> str | None:
        """The text that was made of it."""
        row = _digest(secret, b"row", 16).hex()
        stored = self._cache.get(self._kind, [row]).get(row)
        if stored is None:
            return None
        try:
            plain = unseal(_digest(secret, b"key", 32), stored, LONGEST)
            return None if plain is None else plain.decode()
        except Exception:  # of a row that somebody changed
            return None

    def put(self, secret: str, text: str) -> None:
        """Keep it; what is there stays as it is."""
        data = text.encode(errors="replace")
        if len(data) <= LONGEST:
            self._cache.put(self._kind, {_digest(secret, b"row", 16).hex(): seal(_digest(secret, b"key", 32), data)})


def _digest(secret: str, purpose: bytes, size: int) -> bytes:
    return blake2b(secret.encode(), key=purpose, digest_size=size).digest()
