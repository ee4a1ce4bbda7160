"""Coverage of a bank: the fewest trajectories that are still near to every step, by greedy facility location.

The value of a set of trajectories is the mean, over the steps of the namespace, of the cosine of a step's key and the
nearest key that is kept. It is submodular: greedy choice reaches 1 − 1/e of the best at least (Nemhauser et al. 1978),
and lazy evaluation finds the same set with few of the comparisons (Minoux 1978). DED (arXiv 2508.09883)
prunes near-duplicates for diversity likewise.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agentcascade.bank.bank import Bank
from agentcascade.errors import BankError
from agentcascade.storage import trajectories

EVALUATED = 4_000
"""Steps on which coverage is measured; of a larger namespace a random sample."""


class Covering(NamedTuple):
    """Trajectories in the order in which greedy choice takes them, and the coverage of the first 1, 2, …."""

    pks: list[int]
    coverage: list[float]

    def size_for(self, share: float) -> int:
        """The fewest trajectories with so much of the coverage of all."""
        return next((i for i, value in enumerate(self.coverage, 1) if value >= share * self.coverage[-1] - 1e-9), 0)


def cover(keys: Sequence[np.ndarray], seed: int = 0) -> tuple[list[int], list[float]]:
    """Order groups of unit vectors by what each adds to coverage, greedily.

    Args:
        keys: One array (steps, d) for each group.
        seed: Of the sample of steps that coverage is measured on, where there are more than `EVALUATED`.

    Returns:
        Indices of the groups, and the coverage in [0, 1] of the first 1, 2, … of them.

    >>> import numpy as np
    >>> east, north = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    >>> cover([east, east, north])
    ([0, 2, 1], [0.6666666666666666, 1.0, 1.0])
    """
    if not keys:
        return [], []
    points = np.concatenate(keys).astype(np.float32)
    if len(points) > EVALUATED:
        chosen = np.random.default_rng(seed).choice(len(points), EVALUATED, replace=False)
        points = points[np.sort(chosen)]
    best = np.zeros(len(points), dtype=np.float32)

    def near(group: int) -> np.ndarray:
        nearest: np.ndarray = np.maximum((points @ keys[group].astype(np.float32).T).max(axis=1), 0)
        return nearest

    heap = [(-float(near(group).sum()), group) for group in range(len(keys))]
    heapq.heapify(heap)
    order, coverage = list[int](), list[float]()
    while heap:
        _, group = heapq.heappop(heap)
        nearest = near(group)
        gain = float(np.maximum(nearest - best, 0).sum())
        if heap and gain < -heap[0][0] - 1e-6:  # by now another one may add more
            heapq.heappush(heap, (-gain, group))
            continue
        order.append(group)
        best = np.maximum(best, nearest)
        coverage.append(float(best.mean(dtype=np.float64)))
    return order, coverage


def covering(bank: Bank, namespace: str) -> Covering:
    """The trajectories of a namespace by what each adds to coverage. Blocks.

    Raises:
        BankError: The namespace holds nothing.
        EmbeddingModelChanged: Another model embedded the bank.
        StorageError: The database fails.
    """
    rows, after = [], 0
    with bank.database.begin() as connection:
        while part := trajectories.read_index_rows(connection, after):
            rows += [row for row in part if row.namespace == namespace and row.observation_keys]
            after = part[-1].pk
        texts = {key for row in rows for key in (row.goal_key, row.plan_key, *row.observation_keys) if key}
        vectors = trajectories.read_vectors(connection, texts, bank.embedder.dimension)
    if not rows:
        raise BankError(f"namespace '{namespace}' holds no trajectories: see `agentcascade bank list`")
    keys = [bank.step_keys(row, vectors) for row in rows]
    order, coverage = cover([_unit(key) for key in keys])
    return Covering([rows[i].pk for i in order], coverage)


def _unit(keys: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(keys, axis=1, keepdims=True)
    units: np.ndarray = keys / np.maximum(lengths, 1e-12)
    return units
