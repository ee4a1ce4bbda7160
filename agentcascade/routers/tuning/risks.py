"""What may go wrong, counted: from a rule's outcome to one loss and one base for each episode.

Risks:
    wrong                 the action taken is not the right one (`gold`)
    teacher-disagreement  the student's action is taken and is not what the teacher did
    episode-loss          an episode in which an action was taken that is not right, or, where that is not known, not
                          the teacher's. As long as every action is the teacher's the episode is the teacher's: so
                          this bounds how often the cascade loses an episode that the teacher wins.

Counts:
    marginal   among all steps: accepted and wrong. The teacher's own mistakes do not count.
    selective  among accepted steps.
    total      among all steps, with the teacher's own mistakes where it takes the step (risk `wrong` alone).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.routers.tuning.columns import Columns
from agentcascade.routers.tuning.rules import Outcome

if TYPE_CHECKING:
    from agentcascade.routers.tuning.columns import Bools, Floats

Kind = Literal["wrong", "teacher-disagreement", "episode-loss"]
Count = Literal["marginal", "selective", "total"]
Weigh = Literal["episodes", "steps"]
KINDS: tuple[Kind, ...] = ("wrong", "teacher-disagreement", "episode-loss")
COUNTS: tuple[Count, ...] = ("marginal", "selective", "total")


@dataclass(frozen=True)
class Risk:
    """Which risk, and of what it is a share.

    Each step counts alike (`steps`: a test then has to know how long an episode can be, and long ones make it need
    more of them), or each episode does (`episodes`: the mean over episodes of the share of their steps). The two
    differ where long episodes go wrong more often than short ones, as episodes that are lost in a loop do.
    """

    kind: Kind = "wrong"
    count: Count = "marginal"
    weigh: Weigh = "steps"
    longest: int | None = None
    """Most steps that an episode can have; default: as many as the longest of the log has"""

    def __post_init__(self) -> None:
        for name, value, known in (("risk", self.kind, KINDS), ("count", self.count, COUNTS)):
            if value not in known:
                raise InvalidRequest(f"{name} '{value}' is unknown: {did_you_mean(value, known)}")
        if self.weigh not in ("episodes", "steps"):
            raise InvalidRequest(f"weigh '{self.weigh}' is unknown: {did_you_mean(self.weigh, ('episodes', 'steps'))}")
        if self.longest is not None and self.longest < 1:
            raise InvalidRequest(f"longest is {self.longest}: an episode has at least 1 step")
        if self.count == "total" and self.kind != "wrong":
            raise InvalidRequest(f"count 'total' is of risk 'wrong' alone, not of '{self.kind}'")

    def __str__(self) -> str:
        what = {
            "wrong": "steps that the student takes and gets wrong",
            "teacher-disagreement": "steps that the student takes and does not do what the teacher does",
            "episode-loss": "episodes that an action of the student may lose",
        }[self.kind]
        if self.count == "total":
            what = "steps that go wrong, whoever takes them"
        unit = "episodes" if self.kind == "episode-loss" else "steps"
        among = f"the {unit} that the student takes" if self.count == "selective" else f"all {unit}"
        if self.by_episode:
            own = "those of its steps that the student takes" if self.count == "selective" else "an episode's steps"
            return f"{what}, as a share of {own}, averaged over episodes"
        return f"{what}, as a share of {among}"

    @property
    def by_episode(self) -> bool:
        """Whether steps of a long episode count less than those of a short one."""
        return self.weigh == "episodes" and self.kind != "episode-loss"


@dataclass(frozen=True, eq=False)
class Losses:
    """By cluster, each at most 1: exact averages over draws, and those of the draw that was made."""

    loss: Floats
    base: Floats
    drawn_loss: Floats
    drawn_base: Floats

    @property
    def risk(self) -> float:
        """The exact average's; 0 where nothing is accepted."""
        return float(self.loss.sum() / self.base.sum()) if self.base.sum() > 0 else 0.0


def labelled(log: Columns, kind: Kind) -> Bools:
    """(N,), the steps whose loss is known."""
    if kind == "wrong":
        return log.gold >= 0
    if kind == "teacher-disagreement":
        return log.teacher >= 0
    return (log.gold >= 0) | (log.teacher >= 0)


def losses(log: Columns, outcome: Outcome, risk: Risk) -> Losses:
    """Of steps that all are labelled; see `labelled`."""
    if risk.kind == "wrong":
        right, fine = outcome.right["gold"], outcome.fine["gold"]
    elif risk.kind == "teacher-disagreement":
        right, fine = outcome.right["teacher"], outcome.fine["teacher"]
    else:
        right = np.where(log.gold >= 0, outcome.right["gold"], outcome.right["teacher"])
        fine = np.where(log.gold >= 0, outcome.fine["gold"], outcome.fine["teacher"])
    bad, drawn_bad = np.clip(outcome.accept - right, 0, 1), (outcome.taken & ~fine).astype(float)
    if risk.kind == "episode-loss":
        return _episodes(log, outcome, bad, drawn_bad, risk)
    if risk.count == "total":
        missed = (log.teacher_right != 1).astype(float)
        bad, drawn_bad = bad + (1 - outcome.accept) * missed, drawn_bad + ~outcome.taken * missed
    ones = np.ones(len(log))
    base, drawn_base = (outcome.accept, outcome.taken.astype(float)) if risk.count == "selective" else (ones, ones)
    steps = log.by_cluster(ones)
    if risk.longest is not None and steps.max() > risk.longest:
        raise InvalidRequest(f"the log has an episode of {steps.max():.0f} steps, longer than longest {risk.longest}")
    most = steps if risk.by_episode else 1 if log.singletons else risk.longest or steps.max()
    weight = log.weight / log.weight.max()
    return Losses(*(log.by_cluster(values * weight) / most for values in (bad, base, drawn_bad, drawn_base)))


def _episodes(log: Columns, outcome: Outcome, bad: Floats, drawn_bad: Floats, risk: Risk) -> Losses:
    """Lost when any accepted action was bad; an episode that the teacher lost is not lost by the cascade."""
    won = np.maximum.reduceat((log.success != 0).astype(float), log.starts)
    lost = (1 - np.exp(log.by_cluster(np.log1p(-np.minimum(bad, 1 - 1e-15))))) * won
    drawn_lost = (log.by_cluster(drawn_bad) > 0).astype(float) * won
    ones = np.ones(log.clusters)
    if risk.count == "marginal":
        return Losses(lost, ones, drawn_lost, ones)
    any_taken = 1 - np.exp(log.by_cluster(np.log1p(-np.minimum(outcome.accept, 1 - 1e-15))))
    return Losses(lost, any_taken, drawn_lost, (log.by_cluster(outcome.taken.astype(float)) > 0).astype(float))
