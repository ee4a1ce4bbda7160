"""Deterministic sampling by hash: include an id with a given probability, or pick one of several options for it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")


def included(what: str, share: float, salt: str = "rollout") -> bool:
    """Whether `what` (an episode's id, say) is among `share` of all. Nothing else counts; a larger share keeps it."""
    return share >= 1 or _fraction(what, salt) < share


def pick(what: str, options: Sequence[T], salt: str) -> T:
    """One of `options`, each as often as the others; the same one for `what` on every machine."""
    return options[int(_fraction(what, salt) * len(options))]


def _fraction(what: str, salt: str) -> float:
    """In [0, 1)."""
    return (int.from_bytes(blake2b(f"{salt}:{what}".encode(), digest_size=8).digest()) >> 11) / 2**53
