"""Routers by self-consistency: unanimity and agreement thresholds; and the baselines teacher, student, random.

Each has `as_rule`, by which `agentcascade replay` and `tune` know it (see `tuning.rules.Replayable`).
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import TYPE_CHECKING

from agentcascade.errors import ConfigError
from agentcascade.protocols import Verdict
from agentcascade.routers.agreement import Agreement
from agentcascade.types import Situation, Tally

if TYPE_CHECKING:
    from agentcascade.routers.tuning.rules import Rule

__all__ = ["AgreementThreshold", "AlwaysStudent", "AlwaysTeacher", "RandomMix", "Unanimity"]


class AlwaysTeacher:
    """The teacher takes every step."""

    name = "teacher"

    def samples(self, situation: Situation) -> int:
        """None."""
        return 0

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        """Always to the teacher."""
        return Verdict.DEFER

    def as_rule(self) -> Rule:
        """The rule by which a log is replayed as this router decides."""
        from agentcascade.routers.tuning.rules import TeacherAlone

        return TeacherAlone()


class AlwaysStudent:
    """The student takes every step with its first valid sample."""

    name = "student"

    def samples(self, situation: Situation) -> int:
        """One."""
        return 1

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        """Accept the first valid sample; the teacher where there is none."""
        if tally.counts:
            return Verdict.ACCEPT
        return None if remaining else Verdict.DEFER

    def as_rule(self) -> Rule:
        """The rule by which a log is replayed as this router decides."""
        from agentcascade.routers.tuning.rules import Threshold

        return Threshold(1, 1)


class AgreementThreshold(Agreement):
    """Accept when at least `threshold` of `n` samples agree on one action; as soon as that is settled (`Agreement`).

    `needed` says it in votes: 2 of 3, not at least 0.66 of them. Raises `ConfigError` for n < 1, a threshold outside
    (0, 1], and for votes that n samples do not have.
    """

    name = "threshold"

    def __init__(self, n: int = 3, threshold: float = 1.0, needed: int | None = None) -> None:
        if not isinstance(n, int) or n < 1:
            raise ConfigError(f"router.n is {n!r}: it is a number of samples, at least 1")
        if not 0 < threshold <= 1:
            raise ConfigError(f"router.threshold is {threshold}: it is a share of samples, above 0 and at most 1")
        if needed is not None and (not isinstance(needed, int) or not 1 <= needed <= n):
            raise ConfigError(f"router.needed is {needed!r}: it is a number of votes, 1 to {n}")
        super().__init__(n, needed or max(1, math.ceil(threshold * n - 1e-9)))
        self.threshold: float = needed / n if needed else threshold

    def as_rule(self) -> Rule:
        """The rule by which a log is replayed as this router decides."""
        from agentcascade.routers.tuning.rules import Threshold

        return Threshold(self.n, self.needed)


class Unanimity(AgreementThreshold):
    """Accept only when all `n` samples agree exactly (the paper's rule, n = 3)."""

    name = "unanimity"

    def __init__(self, n: int = 3) -> None:
        super().__init__(n=n, threshold=1.0)


class RandomMix:
    """The teacher takes a step with probability `p`, whatever the student says: the baseline that agreement must beat.

    The draw depends on seed, episode and step alone, so a run can be repeated.
    """

    name = "random"

    def __init__(self, p: float, seed: int = 0) -> None:
        if not 0 <= p <= 1:
            raise ConfigError(f"router.p is {p}: it is a probability between 0 and 1")
        self.p: float = p
        self.seed: int = seed

    def samples(self, situation: Situation) -> int:
        """One, or none with probability `p`."""
        digest = blake2b(f"{self.seed}:{situation.episode}:{situation.step}".encode(), digest_size=8).digest()
        return 0 if int.from_bytes(digest) / 2**64 < self.p else 1

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        """Accept the first valid sample; the teacher where there is none, or none was drawn."""
        if tally.counts:
            return Verdict.ACCEPT
        return None if remaining else Verdict.DEFER

    def as_rule(self) -> Rule:
        """The rule by which a log is replayed as this router decides."""
        from agentcascade.routers.tuning import rules

        return rules.RandomMix(self.p)
