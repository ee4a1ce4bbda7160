"""A complete table of outcomes as the world that a tier router is trained in: playing it costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentcascade.memory.types import Vector

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

COMBINATIONS = 243
PLACES = np.array([81, 27, 9, 3, 1])
"""A combination's number is its five tiers read as digits of base three, the filter's first."""


@dataclass(frozen=True)
class Reward:
    """Task score + λ × efficiency, both of comparable spread (BudgetMem, section "reward").

    Efficiency falls from 1 to 0 between the costs `cheap` and `dear`, the 5th and 95th percentile of those seen.
    """

    cheap: float
    dear: float
    scale: float
    """Spread of the scores over the spread of the efficiencies."""

    @classmethod
    def of(cls, score: Floats, cost: Floats) -> Reward:
        cheap, dear = (float(p) for p in np.percentile(cost, [5, 95]))
        bare = cls(cheap, dear, 1.0)
        spread = float(bare.efficiency(cost).std())
        return cls(cheap, dear, float(score.std()) / spread if spread > 1e-9 else 1.0)

    def efficiency(self, cost: Floats) -> Floats:
        if self.dear <= self.cheap:
            return np.ones_like(cost)
        found: Floats = np.clip((self.dear - cost) / (self.dear - self.cheap), 0.0, 1.0)
        return found

    def __call__(self, score: Floats, cost: Floats, tradeoff: Floats | float) -> Floats:
        found: Floats = score + tradeoff * self.scale * self.efficiency(cost)
        return found


class Policy(Protocol):
    """Draws tiers: of one stage for a batch of states."""

    def __call__(self, module: int, query: Vector, read: Vector, tradeoff: Vector) -> Ints:
        """Tiers (batch,) of a module for questions (batch, d) that would read (batch, d) at λ (batch,)."""
        ...


@dataclass(frozen=True)
class Played:
    """A batch of episodes: five decisions each, one reward at the end."""

    query: Vector
    """(batch, d)"""
    reads: Vector
    """(batch, 3, d)"""
    tiers: Ints
    """(batch, 5)"""
    score: Floats
    cost: Floats


@dataclass(frozen=True)
class Table:
    """Every outcome of every question.

    `raw` (n, d), `kept` (n, 3, d) by the filter's tier and `found` (n, 81, d) by the first four tiers are what the
    decisions are made on; `score` and `cost` are (n, 243).
    """

    query: Vector
    raw: Vector
    kept: Vector
    found: Vector
    score: Floats
    cost: Floats

    def __len__(self) -> int:
        return len(self.query)

    def select(self, questions: Ints) -> Table:
        """These questions alone."""
        return Table(*(getattr(self, name)[questions] for name in self.__dataclass_fields__))

    def play(self, questions: Ints, policy: Policy, tradeoff: Vector) -> Played:
        """One episode for each of `questions` (batch,), at λ `tradeoff` (batch,)."""
        query, raw = self.query[questions], self.raw[questions]
        tiers = np.zeros((len(questions), 5), dtype=np.int64)
        tiers[:, 0] = policy(0, query, raw, tradeoff)
        kept = self.kept[questions, tiers[:, 0]].astype(np.float32)
        for module in (1, 2, 3):
            tiers[:, module] = policy(module, query, kept, tradeoff)
        found = self.found[questions, tiers[:, :4] @ (PLACES[:4] // 3)].astype(np.float32)
        tiers[:, 4] = policy(4, query, found, tradeoff)
        combination = tiers @ PLACES
        return Played(
            query=query,
            reads=np.stack([raw, kept, found], axis=1),
            tiers=tiers,
            score=self.score[questions, combination],
            cost=self.cost[questions, combination],
        )
