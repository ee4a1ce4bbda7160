"""Carried states of histories that a process made, kept by a digest of what they were made of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakValueDictionary

from agentcascade._util.lru_cache import LRUCache

STATES = 2_000
"""That are kept at once."""


@dataclass(frozen=True)
class CarriedState:
    """Carried state of older steps, as it stands in a prompt.

    Attributes:
        block: Its text with the frame; empty where older steps are left out alone.
        values: That the template was rendered with.
        tokens: Of the block.
        tier: That made it: low where a model failed.
        saves: Whether it is shorter than what it stands for.
    """

    block: str
    values: Mapping[str, str]
    tokens: int
    tier: Literal["low", "mid", "high"]
    saves: bool = True


@dataclass(frozen=True)
class CarriedStates:
    """Those that were made, and locks of those that are being made, by event loop: requests at once pay for one.

    Attributes:
        made: By a digest of what they were made of.
        seen: The same by the fingerprints of their messages, which are known at every step (`Request.parts`).
        making: Locks.
        warned: Models whose prompt cache bounded prompts are too short for.
    """

    made: LRUCache[str, CarriedState] = field(default_factory=lambda: LRUCache(STATES))
    seen: LRUCache[tuple[object, ...], CarriedState] = field(default_factory=lambda: LRUCache(STATES))
    warned: set[str] = field(default_factory=set)
    making: WeakValueDictionary[tuple[int, str], asyncio.Lock] = field(default_factory=WeakValueDictionary)
