"""Break-even acceptance: the share of steps that a cascade must take from its teacher to cost no more than it.

With p the share of accepted steps, A the dollars of an accepted step, F those of a deferred one (its student's samples
*and* the teacher's answer), T those of a step by the teacher alone, and r the steps of an episode for one of the
teacher's:

    cascade = r · (p · A + (1 − p) · F)        break-even p* = (F − T / r) / (F − A)

Where a deferral costs the same samples as an acceptance, S, and episodes are as long, p* = S / T. Where A · r ≥ T, no
acceptance suffices: the cascade cannot save.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

BELOW_1 = math.nextafter(1.0, 0.0)


class StepCosts(NamedTuple):
    """Dollars of a step.

    Args:
        teacher: Of a step by the teacher alone, which is shown no demonstrations.
        accepted: All that a step costs whose action the student gives: samples, and audits in their share.
        deferred: All that a deferred step costs: the student's samples, and the teacher's answer.
        steps_ratio: Steps of the cascade's episodes for one of the teacher's; 1 where it is not known.

    >>> costs = StepCosts(teacher=Decimal(10), accepted=Decimal(4), deferred=Decimal(14))
    >>> costs.break_even, costs.dollars(0.5), costs.saving(0.5)
    (0.4, Decimal('9'), 0.1)
    """

    teacher: Decimal
    accepted: Decimal
    deferred: Decimal
    steps_ratio: float = 1.0

    def dollars(self, acceptance: float) -> Decimal:
        """What the cascade spends for one step of the teacher's, at an acceptance from 0 to 1."""
        spent = self._spent(acceptance)
        return Decimal(spent.numerator) / spent.denominator

    def saving(self, acceptance: float) -> float:
        """The share of the teacher's dollars that is not spent; below 0 where more is. 0 where the teacher is free."""
        return float(1 - self._spent(acceptance) / Fraction(self.teacher)) if self.teacher else 0.0

    @property
    def break_even(self) -> float | None:
        """The acceptance from which the cascade costs no more than its teacher, 0 to below 1; None: not even at 1."""
        accepted, deferred, goal = self._fractions()
        if accepted >= goal:
            return None
        return min(float((deferred - goal) / (deferred - accepted)), BELOW_1) if deferred > goal else 0.0

    @property
    def most_acceptance(self) -> float:
        """Where `break_even` is None: the acceptance up to which the cascade costs no more; 0: it never pays off."""
        accepted, deferred, goal = self._fractions()
        return float((goal - deferred) / (accepted - deferred)) if deferred < goal else 0.0

    def _spent(self, acceptance: float) -> Fraction:
        """Exact, so that a cascade which costs as much as its teacher saves nothing, not the last digit of a mean."""
        accepted, deferred, _ = self._fractions()
        return Fraction(self.steps_ratio) * (deferred + Fraction(acceptance) * (accepted - deferred))

    def _fractions(self) -> tuple[Fraction, Fraction, Fraction]:
        """Dollars of an accepted and of a deferred step, and what they may cost for the cascade to cost no more."""
        goal = Fraction(self.teacher) / Fraction(self.steps_ratio)
        return Fraction(self.accepted), Fraction(self.deferred), goal

    @property
    def accepted_share(self) -> float | None:
        """Dollars of an accepted step for one of the teacher's, longer episodes counted; None: the teacher is free."""
        return float(self.accepted * Decimal(self.steps_ratio) / self.teacher) if self.teacher else None


class BilledSteps(NamedTuple):
    """Dollars of steps as they were billed, and the share of them whose action the student gave."""

    costs: StepCosts
    acceptance: float

    def sentence(self) -> str:
        """The acceptance that was seen beside the one that these bills need; empty where the teacher is free."""
        costs = self.costs
        if not costs.teacher:
            return ""
        accepted, deferred = (float(dollars / costs.teacher) for dollars in (costs.accepted, costs.deferred))
        longer = "" if costs.steps_ratio == 1 else f", in episodes {costs.steps_ratio:.2f} times as long"
        said = (
            f"an accepted step cost {accepted:.2f} and a deferred one {deferred:.2f} of a step of the teacher's{longer}"
        )
        if costs.break_even is None:
            if (saving := costs.saving(self.acceptance)) > 0:  # an accepted step cost more than a deferred one
                return f"{said}: with {self.acceptance:.1%} accepted it saved {saving:.1%}, and less the more are"
            if (most := costs.most_acceptance) > 0:
                return f"{said}: it pays off below {most:.1%} accepted, and {self.acceptance:.1%} were"
            return f"{said}: no acceptance pays off, and {self.acceptance:.1%} of the steps were accepted"
        return f"{said}: it pays off from {costs.break_even:.1%} accepted, and {self.acceptance:.1%} were"


def billed_steps(
    teacher: Decimal | None, steps: Sequence[tuple[bool, Decimal | None]], steps_ratio: float = 1.0
) -> BilledSteps | None:
    """Means of bills.

    Args:
        teacher: Dollars of a step by the teacher alone.
        steps: Of each step whether the student's action was taken, and its bill.
        steps_ratio: Steps of their episodes for one of the teacher's.

    Returns:
        The means; None without a step of each kind, and where dollars are not known.
    """
    accepted, deferred = (_mean([dollars for taken, dollars in steps if taken is kind]) for kind in (True, False))
    if teacher is None or accepted is None or deferred is None:
        return None
    acceptance = sum(taken for taken, _ in steps) / len(steps)
    return BilledSteps(StepCosts(teacher, accepted, deferred, steps_ratio), acceptance)


def _mean(dollars: Sequence[Decimal | None]) -> Decimal | None:
    known = [one for one in dollars if one is not None]
    return sum(known, Decimal(0)) / len(known) if known and len(known) == len(dollars) else None
