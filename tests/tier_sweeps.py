"""A small world in which tiers matter, and routers for it: every outcome of made-up questions."""

from __future__ import annotations

import numpy as np

from agentcascade.memory.combinations import COMBINATIONS
from agentcascade.memory.types import Probabilities, State
from agentcascade.routers.tier.log import TierLog
from agentcascade.types import MODULES, ModuleName

D = 6
PRICES = np.array([1, 1, 2, 1, 4])
TIERS_OF = np.stack(np.unravel_index(np.arange(COMBINATIONS), (3,) * 5), axis=1)


def make_sweep(n: int = 40, groups: int = 10, seed: int = 0) -> TierLog:
    """Questions of a group are alike, each tier suits some questions, and what is read depends on the tiers before.

    The world is always the same one; `seed` draws its groups and questions.
    """
    world, rng = np.random.default_rng(1), np.random.default_rng([seed, 7])
    suits = world.normal(size=(5, 3, D))
    kept_by, found_by = world.normal(size=(3, D)) * 0.5, world.normal(size=(5, 3, D)) * 0.4
    group = np.arange(n) % groups
    query = rng.normal(size=(n, D)) + 0.5 * rng.normal(size=(groups, D))[group]
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    raw = query + 0.2 * rng.normal(size=(n, D))
    kept = raw[:, None] + kept_by + 0.2 * rng.normal(size=(n, 3, D))
    parts = sum(found_by[place, TIERS_OF[::3, place]] for place in range(1, 4))
    found = kept[:, np.arange(81) // 27] + parts + 0.2 * rng.normal(size=(n, 81, D))
    vectors = np.concatenate([raw[:, None], kept, found], axis=1)
    vectors /= np.maximum(1, np.linalg.norm(vectors, axis=2, keepdims=True))
    number = np.arange(COMBINATIONS)
    worth = sum((query @ suits[place].T)[:, TIERS_OF[:, place]] for place in range(5))
    worth = worth + 1.5 * (vectors[:, 4 + number // 3] * query[:, None]).sum(axis=2)
    worth = worth + 0.3 * TIERS_OF.sum(axis=1) - 1.5 + 0.5 * rng.normal(size=(n, COMBINATIONS))
    cost = 1 + (TIERS_OF * PRICES).sum(axis=1) * (1 + 0.2 * rng.random((n, 1)))
    first = 85 * np.arange(n)[:, None]
    reads = np.stack([first + 0 * number, first + 1 + number // 81, first + 4 + number // 3], axis=2)
    return TierLog(
        questions=[f"question {i}" for i in range(n)],
        groups=[f"group {g}" for g in group],
        query=query.astype(np.float32),
        question=np.repeat(np.arange(n), COMBINATIONS).astype(np.int32),
        tiers=np.tile(TIERS_OF, (n, 1)).astype(np.int8),
        propensity=np.full(n * COMBINATIONS, 1 / COMBINATIONS),
        score=1 / (1 + np.exp(-worth.ravel())),
        cost=cost.ravel(),
        reads=reads.reshape(-1, 3).astype(np.int32),
        vectors=vectors.reshape(-1, D).astype(np.float16),
        metrics={"tokens": cost.ravel() * 10},
        about={"cost_unit": "milliseconds", "encoder": "made up", "seed": seed},
    )


class Soft:
    """Chooses by question and by what would be read; the less `heat`, the more at random."""

    name = "soft"

    def __init__(self, seed: int = 0, heat: float = 1.0) -> None:
        self._weights = np.random.default_rng(seed).normal(size=(5, 3, 2 * D)) * heat
        self.calls = 0

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        self.calls += 1
        worth = self._weights[MODULES.index(module)] @ np.concatenate([state.query, state.read])
        chances = np.exp(worth - worth.max())
        low, mid, high = (chances / chances.sum()).tolist()
        return low, mid, high


class Hard(Soft):
    """Always the likeliest tier of a `Soft` one."""

    name = "hard"

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        found = super().probabilities(module, state, tradeoff)
        low, mid, high = (float(p == max(found)) for p in found)
        return low, mid, high
