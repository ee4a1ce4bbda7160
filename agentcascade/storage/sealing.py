"""Sealing of what must come back as it was, and so cannot be redacted: AES-GCM, compressed, with a key kept nowhere."""

from __future__ import annotations

import os
import zlib
from typing import Any

NONCE = 12


def seal(key: bytes, data: bytes) -> bytes:
    """The data, compressed and encrypted with a key of 32 bytes."""
    nonce = os.urandom(NONCE)
    sealed: bytes = _cipher(key).encrypt(nonce, zlib.compress(data, 1), None)
    return nonce + sealed


def unseal(key: bytes, data: bytes, most: int) -> bytes | None:
    """What was sealed; None where it has more than `most` bytes. Raises `InvalidTag` with another key."""
    packed: bytes = _cipher(key).decrypt(bytes(data[:NONCE]), bytes(data[NONCE:]), None)
    plain = zlib.decompressobj().decompress(packed, most + 1)
    return plain if len(plain) <= most else None


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
