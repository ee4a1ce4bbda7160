"""Votes over action keys, and when to stop sampling."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from agentcascade.protocols import Router
from agentcascade.types import Sample, Situation, Tally


def tally(samples: Sequence[Sample], similarity: float | None = None) -> Tally:
    """Counts equal action keys; a sample without a valid action counts against every class.

    `similarity` is the score of the best demonstration that the samples were shown.
    """
    counts: dict[str, int] = {}
    total = 0
    for sample in samples:
        total += sample.weight
        if sample.action is not None:
            counts[sample.action.key] = counts.get(sample.action.key, 0) + sample.weight
    return Tally(counts=counts, total=total, logprobs=_logprobs(samples), similarity=similarity)


def _logprobs(samples: Sequence[Sample]) -> dict[str, float]:
    """Means by class, of those classes whose samples are all known."""
    found: dict[str, list[float | None]] = {}
    if any(s.logprob is not None for s in samples):
        for sample in samples:
            if sample.action is not None:
                found.setdefault(sample.action.key, []).append(sample.logprob)
    return {key: fmean(v for v in values if v is not None) for key, values in found.items() if None not in values}


def winner(samples: Sequence[Sample], votes: Tally) -> Sample | None:
    """The first sample of the largest class."""
    if votes.top is None:
        return None
    return next(s for s in samples if s.action is not None and s.action.key == votes.top[0])


def next_wave(router: Router, situation: Situation, votes: Tally, remaining: int) -> int:
    """The fewest further samples after which `router` could have a verdict: all that need be bought now.

    Tries the two extremes for each size: every new sample joins the largest class, or each is a class of its own.
    """
    top = votes.top[0] if votes.top else "first"
    for size in range(1, remaining):
        joined = {**votes.counts, top: votes.counts.get(top, 0) + size}
        apart = {**votes.counts, **{f"new class {i}": 1 for i in range(size)}}
        for counts in (joined, apart):
            if router.judge(situation, Tally(counts=counts, total=votes.total + size), remaining - size) is not None:
                return size
    return remaining


class Seat(NamedTuple):
    """What a member gives to a committee: so many samples, each of so many votes."""

    samples: int = 1
    weight: int = 1

    @property
    def votes(self) -> int:
        return self.samples * self.weight


def next_members(router: Router, situation: Situation, votes: Tally, n: int, seats: Sequence[Seat]) -> int:
    """The fewest of the members to come after whose votes `router` could have a verdict on `n`.

    `next_wave` for votes that come a member at a time: they all join the largest class, or each is one of its own.
    """
    top = votes.top[0] if votes.top else "first"
    joined, apart, total = dict(votes.counts), dict(votes.counts), votes.total
    for size, seat in enumerate(seats[:-1], 1):
        joined[top] = joined.get(top, 0) + seat.votes
        apart |= {f"new class {size}.{i}": seat.weight for i in range(seat.samples)}
        total += seat.votes
        for counts in (joined, apart):
            if router.judge(situation, Tally(counts=counts, total=total), max(0, n - total)) is not None:
                return size
    return len(seats)
