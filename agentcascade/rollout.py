"""Which episodes are in: a share of them, the same ones on every machine."""

from __future__ import annotations

from hashlib import blake2b


def chosen(what: str, share: float, salt: str = "rollout") -> bool:
    """Whether `what` (an episode's id, say) is among `share` of all. Nothing else counts; a larger share keeps it."""
    if share >= 1:
        return True
    return int.from_bytes(blake2b(f"{salt}:{what}".encode(), digest_size=8).digest()) / 2**64 < share
