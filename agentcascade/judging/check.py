"""Check of a judge against known outcomes: accuracy, sensitivity, specificity, Cohen's kappa, and what a verdict costs.

A judge that is asked about several episodes at once is compared with itself asked about each alone: what the shared
call saves is worth nothing where its verdicts are others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from agentcascade.errors import InvalidRequest
from agentcascade.judging.stored import Stored, StoredEpisode
from agentcascade.routers.tuning.pvalues import clopper_pearson


class Share(NamedTuple):
    """A share of cases with its exact (Clopper–Pearson) interval of 95 %; `of` may be 0."""

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        return self.hits / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float]:
        return clopper_pearson(self.hits, self.of) if self.of else (0.0, 1.0)

    def __str__(self) -> str:
        if not self.of:
            return "unknown: no such episode"
        low, high = self.interval
        return f"{self.hits / self.of:.3f} [{low:.3f}, {high:.3f}] ({self.hits:,} of {self.of:,})"


class Measured(NamedTuple):
    """What verdicts are worth beside what is known. Episodes without a verdict count in none of the shares."""

    accuracy: Share
    sensitivity: Share
    """Of the successes, those that were called one."""
    specificity: Share
    """Of the failures, those that were called one."""
    kappa: float | None
    """Cohen's: agreement beyond what chance gives; None where one of the two always says the same."""


def measure(said: Sequence[bool | None], truth: Sequence[bool | None]) -> Measured:
    """Compare verdicts with what is known, or with other verdicts, pair by pair.

    >>> measure([True, True, False, None], [True, False, False, True])[0]
    Share(hits=2, of=3)
    """
    pairs = [(verdict, known) for verdict, known in zip(said, truth) if verdict is not None and known is not None]
    right = sum(verdict == known for verdict, known in pairs)
    won = [verdict for verdict, known in pairs if known]
    lost = [verdict for verdict, known in pairs if not known]
    return Measured(
        Share(right, len(pairs)), Share(sum(won), len(won)), Share(len(lost) - sum(lost), len(lost)), _kappa(pairs)
    )


def _kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    number = len(pairs)
    if not number:
        return None
    observed = sum(a == b for a, b in pairs) / number
    yes, known = sum(a for a, _ in pairs) / number, sum(b for _, b in pairs) / number
    chance = yes * known + (1 - yes) * (1 - known)
    return None if chance == 1 else (observed - chance) / (1 - chance)


def with_outcomes(stored: Stored, source: str, *, limit: int | None = None, seed: int = 0) -> list[StoredEpisode]:
    """Episodes whose outcome is known, at most `limit`, in a random order: where an episode stands in a shared call
    must not go with its outcome.

    Raises:
        InvalidRequest: There is none; the message says what to do.
    """
    known = [episode for episode in stored.episodes if episode.success is not None]
    if not known:
        left_out = "; ".join(f"{number:,} {reason}" for reason, number in stored.left_out.items())
        raise InvalidRequest(
            f"{source} holds {len(stored.episodes):,} episodes that a judge can be shown, and the outcome of none of "
            f"them{f' (left out: {left_out})' if left_out else ''}: say how episodes end (finish(success=...), "
            "POST /v1/episodes/ID/feedback, or success in the lines of the log), then check the judge on those"
        )
    random.Random(seed).shuffle(known)
    return known[:limit]
