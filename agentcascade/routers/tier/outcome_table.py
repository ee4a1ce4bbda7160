"""Outcome table: score and cost of every tier combination of every question, which a policy is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from agentcascade.memory.combinations import PLACES
from agentcascade.types import MODULES, TIERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentcascade.memory.types import Vector

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reward:
    """Reward: task score + λ × efficiency, both of comparable spread (BudgetMem, section "reward").

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
        efficiencies: Floats = np.clip((self.dear - cost) / (self.dear - self.cheap), 0.0, 1.0)
        return efficiencies

    def __call__(self, score: Floats, cost: Floats, tradeoff: Floats | float) -> Floats:
        rewards: Floats = score + tradeoff * self.scale * self.efficiency(cost)
        return rewards


class TierPolicy(Protocol):
    """Policy in training: draws the tiers of one module for a batch of states."""

    def __call__(self, module: int, query: Vector, read: Vector, tradeoff: Vector) -> Ints:
        """Tiers (batch,) of a module for questions (batch, d) that would read (batch, d) at λ (batch,)."""
        ...


@dataclass(frozen=True)
class PlayedBatch:
    """Batch of episodes, each with a tier of every module and one score and cost at the end."""

    query: Vector
    """(batch, d)"""
    reads: Vector
    """(batch, 3, d)"""
    tiers: Ints
    """(batch, modules)"""
    score: Floats
    cost: Floats


@dataclass(frozen=True)
class OutcomeTable:
    """Every outcome of every question.

    Decisions are made on `retrieved` (n, d), `filtered` (n, tiers, d) by the filter's tier, and `extracted` (n, p, d)
    by the tiers of all modules but the last; `score` and `cost` are (n, combinations).
    """

    query: Vector
    retrieved: Vector
    filtered: NDArray[np.floating[Any]]
    extracted: NDArray[np.floating[Any]]
    score: Floats
    cost: Floats

    def __len__(self) -> int:
        return len(self.query)

    def select(self, questions: Ints) -> OutcomeTable:
        """Table of some questions."""
        return OutcomeTable(*(getattr(self, name)[questions] for name in self.__dataclass_fields__))

    def play(self, questions: Ints, policy: TierPolicy, tradeoff: Vector) -> PlayedBatch:
        """Play one episode for each of `questions` (batch,), at λ `tradeoff` (batch,)."""
        query, retrieved = self.query[questions], self.retrieved[questions]
        tiers = np.zeros((len(questions), len(MODULES)), dtype=np.int64)
        tiers[:, 0] = policy(0, query, retrieved, tradeoff)
        filtered = self.filtered[questions, tiers[:, 0]].astype(np.float32)
        last = len(MODULES) - 1
        for module in range(1, last):
            tiers[:, module] = policy(module, query, filtered, tradeoff)
        before_last = tiers[:, :last] @ (np.array(PLACES[:last]) // len(TIERS))
        extracted = self.extracted[questions, before_last].astype(np.float32)
        tiers[:, last] = policy(last, query, extracted, tradeoff)
        combination = tiers @ PLACES
        return PlayedBatch(
            query=query,
            reads=np.stack([retrieved, filtered, extracted], axis=1),
            tiers=tiers,
            score=self.score[questions, combination],
            cost=self.cost[questions, combination],
        )
