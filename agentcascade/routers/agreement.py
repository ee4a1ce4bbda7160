"""Agreement threshold: the vote of n samples that is decided as soon as `needed` of them agree, or cannot any more."""

from __future__ import annotations

from agentcascade.protocols import Verdict
from agentcascade.types import Situation, Tally


class Agreement:
    """Accept when at least `needed` of `n` samples agree on one action.

    Stops as soon as the outcome is settled: the votes needed are in and no other class can overtake, or none can reach
    them any more.
    """

    name = "agreement"

    def __init__(self, n: int, needed: int) -> None:
        self.n: int = n
        self.needed: int = needed

    def samples(self, situation: Situation) -> int:
        return self.n

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        votes, runner_up = [*sorted(tally.counts.values(), reverse=True), 0, 0][:2]
        if votes >= self.needed and (not remaining or votes > runner_up + remaining):
            return Verdict.ACCEPT
        return Verdict.DEFER if votes + remaining < self.needed else None
