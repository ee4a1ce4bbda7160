"""A rule that puts the candidates of split votes, or of accepted ones, to the soft verifier (`verifier`).

"When Reasoning Beats Scale" (arXiv 2505.03786), section 3: a small reasoning model's probability of "yes". On a log the
scores are those that its shadows recorded; where none was, the vote alone decides, as live.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from agentcascade.config.verifier import VerifierConfig
from agentcascade.errors import InvalidRequest
from agentcascade.routers.tuning.columns import Columns
from agentcascade.routers.tuning.rules import Asked, Outcome, Threshold

if TYPE_CHECKING:
    from agentcascade.routers.tuning.columns import Bools

DECIDES = ("ask", "agreement", "accept", "reject", "worth")
"""Fields of the section `verifier` that say who takes a step."""
GRID = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
"""Quantiles of the logged scores that are tried as thresholds: of the scores alone, so that no label is seen."""


@dataclass(frozen=True)
class Verified:
    """`rule` where the verifier is not asked, or gives no score; else by its score.

    The candidate is the majority of the samples as they were drawn: a router with a verifier does not defer before all
    of them are.
    """

    rule: Threshold
    settings: VerifierConfig
    side_effects: frozenset[str] = field(default_factory=frozenset)
    logprobs: ClassVar[bool] = False

    @property
    def name(self) -> str:
        own, (low, _) = self.settings, self.settings.agreement
        parts = []
        if {"split", "always"} & {*own.ask} and low * self.rule.n < self.rule.needed - 1e-6:
            parts.append(f"or at least {np.ceil(low * self.rule.n - 1e-6):.0f} with score {own.accept:.3g}")
        if {"stakes", "always"} & {*own.ask}:
            parts.append(f"{'of stakes ' if 'always' not in own.ask else ''}only with score {own.reject:.3g}")
        return f"{self.rule.name}, {', '.join(parts)}"

    @property
    def samples(self) -> tuple[int, ...]:
        return self.rule.samples

    @property
    def router(self) -> Mapping[str, Any]:
        return self.rule.router

    @property
    def section(self) -> dict[str, Any]:
        """The section `verifier` that acts by this rule, but for the model."""
        decides = self.settings.model_dump(mode="json", include={*DECIDES})
        return {key: list(value) if isinstance(value, tuple) else value for key, value in decides.items()}

    def on(self, log: Columns) -> Outcome:
        draw, own = log.draw(self.rule.n), self.settings
        accepted = draw.votes >= self.rule.needed
        share = draw.votes / self.rule.n
        asked = self._asked(log, accepted, share, draw.top)
        score = np.where(draw.top >= 0, log.scores[np.arange(len(log)), np.maximum(draw.top, 0)], np.nan)
        known = asked & ~np.isnan(score)
        taken = np.where(known, score >= np.where(accepted, own.reject, own.accept), accepted) & (draw.top >= 0)
        fine = {"gold": taken & log.is_right(draw.top), "teacher": taken & (draw.top == log.teacher)}
        labels = {"gold": log.gold, "teacher": log.teacher}
        return Outcome(
            accept=taken.astype(float),
            right={name: np.where(labels[name] < 0, np.nan, fine[name].astype(float)) for name in fine},
            taken=taken,
            fine=fine,
            asked=(Asked(1.0, self.rule.n),),
            verified=asked.astype(float),
        )

    def _asked(self, log: Columns, accepted: Bools, share: Any, top: Any) -> Bools:
        own = self.settings
        low, high = own.agreement
        always = "always" in own.ask
        inside = (share >= low - 1e-9) & (share <= high + 1e-9)
        asked = inside & ~accepted & (top >= 0) & (always or "split" in own.ask)
        asked |= accepted & (top >= 0) & always
        if always or "stakes" in own.ask:
            stakes = np.array([name in self.side_effects for name in log.names["tool"]] + [False])
            kind = np.where(top < 0, -1, log.tool[np.arange(len(log)), np.maximum(top, 0)])
            asked |= accepted & stakes[kind] & (top >= 0)
        return np.asarray(asked, bool)


def verified(log: Columns, sizes: Sequence[int]) -> list[list[Verified | Threshold]]:
    """For each n a chain of nested rules: every number of votes, each reached by lowering the score that it needs.

    From unanimity with the highest score (where accepted votes were scored, too) down to a majority, whatever its
    score. Raises `InvalidRequest` for a log without scores.
    """
    if np.isnan(log.scores).all():
        raise InvalidRequest(
            "the log has no score of a verifier: log shadows with `verifier` set, or leave --rules verified out"
        )
    return [chain for n in sizes if (chain := _chain(log, n))]


def _chain(log: Columns, n: int) -> list[Verified | Threshold]:
    draw = log.draw(n)
    score = np.where(draw.top >= 0, log.scores[np.arange(len(log)), np.maximum(draw.top, 0)], np.nan)

    def cuts(votes: int) -> list[float]:
        own = score[(draw.votes == votes) & ~np.isnan(score)]
        found = np.quantile(own, GRID) if len(own) else []
        return sorted({round(float(np.floor(cut * 1e6) / 1e6), 6) for cut in found}, reverse=True)

    def rule(needed: int, **settings: Any) -> Verified:
        return Verified(
            Threshold(n, needed), VerifierConfig(name=log.verifier or "verifier", worth="always", **settings)
        )

    found: list[Verified | Threshold] = []
    found += [rule(n, ask=("always",), agreement=(1.0, 1.0), reject=cut) for cut in cuts(n)]
    for needed in range(n, 0, -1):
        found.append(Threshold(n, needed))
        if needed == 1:
            break
        below = np.floor((needed - 1) / n * 1e6) / 1e6
        found += [rule(needed, ask=("split",), agreement=(below, 1.0), accept=cut) for cut in cuts(needed - 1)]
    return found
