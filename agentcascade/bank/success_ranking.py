"""Success ranking: demonstrations whose use led to success more often than the bank's average rank higher.

Later versions of Traj-Bootstrap weigh an exemplar by how often the tasks that retrieved it succeeded. A success rate of
few episodes says little, so it is drawn to the namespace's own rate as if by `PRIOR` episodes of that rate: a
demonstration that was never shown is worth 0, neither more nor less.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from agentcascade._util.lru_cache import LRUCache
from agentcascade.storage import Database, bank_metadata

PRIOR = 10.0
"""Episodes that the namespace's rate counts for: the weight of the Beta prior."""
SECONDS = 10.0
"""For which counts that were read are used."""
CACHED = 50_000

RankedHit = tuple[int, int, float]
"""Row, trajectory key, score."""


class SuccessRanking:
    """Adds weight × (posterior mean − prior mean) to the scores of an index's hits. Blocks; thread-safe."""

    def __init__(self, database: Database, weight: float) -> None:
        self._database = database
        self._weight = weight
        self._known: LRUCache[int, tuple[float, float]] = LRUCache(CACHED)  # until when, worth
        self._rates: LRUCache[str, tuple[float, float]] = LRUCache(CACHED)

    def ranked(self, namespace: str, hits: Sequence[RankedHit]) -> tuple[list[RankedHit], float]:
        """The hits, best first by score and worth, and the most that a trajectory which is not among them can have."""
        rate = self._read(namespace, [group for _, group, _ in hits])
        worth = {group: cached[1] for _, group, _ in hits if (cached := self._known.get(group)) is not None}
        weighed = [(row, group, score + self._weight * worth.get(group, 0.0)) for row, group, score in hits]
        best_of_rest = hits[-1][2] + self._weight * (1 - rate) if hits else float("-inf")
        return sorted(weighed, key=lambda hit: -hit[2]), best_of_rest

    def _read(self, namespace: str, groups: Sequence[int]) -> float:
        """Read what is not known or too old; returns the namespace's rate."""
        present = time.monotonic()
        rate = self._rates.get(namespace)
        stale = [g for g in groups if (cached := self._known.get(g)) is None or cached[0] < present]
        if rate is not None and rate[0] >= present and not stale:
            return rate[1]
        with self._database.begin() as connection:
            if rate is None or rate[0] < present:
                episodes, successes = bank_metadata.sum_uses(connection, namespace)
                rate = present + SECONDS, successes / episodes if episodes else 0.5
                self._rates.put(namespace, rate)
            counts = bank_metadata.read_uses(connection, stale)
        for group in stale:
            episodes, successes = counts.get(group, (0, 0))
            worth = (successes + PRIOR * rate[1]) / (episodes + PRIOR) - rate[1]
            self._known.put(group, (present + SECONDS, worth))
        return rate[1]
