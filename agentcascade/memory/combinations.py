"""Combinations of tiers, one for each memory module: how many there are, their numbers, and what each module reads.

All counts follow from `MODULES` and `TIERS` (`agentcascade.types`): the first module filters, the last writes the
summary, and those between extract side by side from what the filter left.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentcascade.types import MODULES, TIERS, ModuleName, Tier

EXTRACTORS: tuple[ModuleName, ...] = MODULES[1:-1]
COMBINATIONS = len(TIERS) ** len(MODULES)
PLACES: tuple[int, ...] = tuple(len(TIERS) ** power for power in reversed(range(len(MODULES))))
"""A combination's number is its tiers read as digits, the filter's first: their inner product with these."""
PREFIXES = COMBINATIONS // len(TIERS)
"""Combinations of all modules but the last, which are what the summary may read"""
STAGES: tuple[int, ...] = (0, *(1 for _ in EXTRACTORS), 2)
"""By module, the stage that it reads: 0 what was retrieved, 1 what was filtered, 2 what was extracted"""


def combination_number(tiers: Sequence[int | Tier]) -> int:
    """The number of a combination, from 0, of tiers by name or index in the order of `MODULES`.

    >>> combination_number(["low", "low", "low", "mid", "high"])
    5
    """
    indices = (TIERS.index(tier) if isinstance(tier, str) else int(tier) for tier in tiers)
    return sum(place * index for place, index in zip(PLACES, indices, strict=True))


def combination_tiers(number: int) -> tuple[Tier, ...]:
    """The tiers of a combination's number, in the order of `MODULES`.

    >>> combination_tiers(5)
    ('low', 'low', 'low', 'mid', 'high')
    """
    return tuple(TIERS[number // place % len(TIERS)] for place in PLACES)
