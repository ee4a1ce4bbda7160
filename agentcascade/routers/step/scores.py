"""Routers that accept by a score (entropy, margin, log-probability, learned), or by thresholds per type of step.

`agentcascade tune` chooses their settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agentcascade.errors import ConfigError, did_you_mean
from agentcascade.protocols import Verdict
from agentcascade.routers.signals import SCORES, SIGNALS, certainty, learned, margin, signals
from agentcascade.steplog.types import action_type
from agentcascade.types import Situation, Tally

if TYPE_CHECKING:
    from agentcascade.routers.tuning.rules import Rule


class ScoreRouter:
    """Accept the majority of `n` samples when its `score` is at least `threshold`.

    `score` is entropy (1 less the votes' entropy over log n), margin, logprob (mean log-probability of the majority's
    tokens; without log-probabilities nothing is accepted) or learned, whose `model` holds weights, intercept and types.
    Raises `ConfigError`.
    """

    name = "scored"

    def __init__(self, score: str, threshold: float, n: int = 3, model: Mapping[str, Any] | None = None) -> None:
        if score not in SCORES:
            raise ConfigError(f"router.score '{score}' is unknown: {did_you_mean(score, SCORES)}")
        if not isinstance(n, int) or n < 1:
            raise ConfigError(f"router.n is {n!r}: it is a number of samples, at least 1")
        if score == "learned":
            lacking = [k for k in ("weights", "intercept", "types") if k not in (model or {})]
            if lacking or len((model or {})["weights"]) != len(SIGNALS):
                raise ConfigError(
                    f"router.model needs weights ({len(SIGNALS)} numbers), intercept and types: "
                    "`agentcascade tune --rules learned` writes one"
                )
        self.threshold: float = threshold
        self.n: int = n
        self.model: Mapping[str, Any] = model or {}
        self.score = score

    def samples(self, situation: Situation) -> int:
        return self.n

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        if remaining:
            return None
        return Verdict.ACCEPT if tally.top and self.value(situation, tally) >= self.threshold else Verdict.DEFER

    def value(self, situation: Situation, tally: Tally) -> float:
        """The score of the votes."""
        assert tally.top is not None
        counts = np.array([[*tally.counts.values()]], dtype=float)
        logprob = getattr(tally, "logprobs", {}).get(tally.top[0])
        if self.score == "logprob":
            return float("-inf") if logprob is None else float(logprob)
        if self.score != "learned":
            return float((certainty if self.score == "entropy" else margin)(counts, self.n)[0])
        row = signals(
            counts,
            self.n,
            np.array([float(situation.step)]),
            np.array([_number(getattr(tally, "similarity", None))]),
            np.array([_number(logprob)]),
        )
        return float(learned(row, [action_type(tally.top[0])], self.model)[0])

    def as_rule(self) -> Rule:
        from agentcascade.routers.tuning.families import Votes
        from agentcascade.routers.tuning.rules import Scored

        return Scored(Votes(self.score, self.n, self.model or None), self.threshold)


class Grouped:
    """A number of `needed` votes of its own for each type of action (`by: tool`) or goal (`by: category`).

    `needed` maps types to votes, `default` holds for all others; more than n sends such steps to the teacher. A goal's
    type is the `category` that the episode was given.
    """

    name = "grouped"

    def __init__(
        self, needed: Mapping[str, int], default: int, n: int = 3, by: Literal["tool", "category"] = "tool"
    ) -> None:
        if by not in ("tool", "category"):
            raise ConfigError(f"router.by is '{by}': {did_you_mean(by, ('tool', 'category'))}")
        if not isinstance(n, int) or n < 1:
            raise ConfigError(f"router.n is {n!r}: it is a number of samples, at least 1")
        for group, votes in {**needed, "default": default}.items():
            if not isinstance(votes, int) or votes < 1:
                raise ConfigError(f"router.needed.{group} is {votes!r}: it is a number of votes, at least 1")
        self.needed: dict[str, int] = dict(needed)
        self.default: int = default
        self.n: int = n
        self.by = by

    def samples(self, situation: Situation) -> int:
        return self.n if self.by == "tool" or self._votes(situation, "") <= self.n else 0

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        if remaining:
            return None
        if tally.top is None or tally.top[1] < self._votes(situation, tally.top[0]):
            return Verdict.DEFER
        return Verdict.ACCEPT

    def as_rule(self) -> Rule:
        from agentcascade.routers.tuning import rules

        return rules.Grouped(self.by, self.n, self.needed, self.default)

    def _votes(self, situation: Situation, action: str) -> int:
        group = action_type(action) if self.by == "tool" else situation.category
        return self.needed.get(group, self.default)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
