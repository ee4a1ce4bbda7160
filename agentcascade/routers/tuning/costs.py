"""What a rule costs at each step: exact expected dollars from recorded usage, under one way of billing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from agentcascade.errors import InvalidRequest
from agentcascade.prompts.drafts import DRAFT_FRAME, DRAFT_HEADING
from agentcascade.routers.tuning.columns import Columns
from agentcascade.routers.tuning.rules import Asked, Outcome

if TYPE_CHECKING:
    from agentcascade.routers.tuning.columns import Floats

Sampling = Literal["one-call", "staged", "separate"]
SAMPLINGS: tuple[Sampling, ...] = ("one-call", "staged", "separate")
"""One request with n, which pays the prompt once; in stages, no more than could settle the vote; n requests at once."""


@dataclass(frozen=True)
class Bill:
    """Dollars where the log knows them, else teacher answers: `unit` says which.

    `sample_cost` is what one sample, or a verification, is assumed to cost, as a share of a teacher's answer, where
    dollars are not known.
    `discounts`: with prompt caches as they were recorded, and at deferred steps as the rule would have left the
    teacher's; or all prompt tokens at the full price.
    """

    sampling: Sampling = "one-call"
    discounts: bool = True
    sample_cost: float = 0.02
    student_price: float = 1.0
    """Factor on the student's dollars, to see what hangs on prices"""
    draft_tokens: int = 0
    """Most tokens of a student's drafts in a deferred step's prompt (`prompt.teacher_sees_drafts`); 0: it sees none"""

    def unit(self, log: Columns) -> str:
        return "dollars" if known(log) else "teacher answers"

    def steps(self, log: Columns, outcome: Outcome) -> Floats:
        """(N,), expected cost of each step."""
        spent = (1 - outcome.accept) * self.deferred(log, outcome) + self._drafts(log, outcome)
        for asked, student in zip(outcome.asked, log.students):
            if not asked.n:
                continue
            reach = asked.reach if asked.staged is None or self.sampling != "staged" else asked.staged
            spent = spent + reach * self._student(student, asked, known(log)) * self.student_price
        if np.any(outcome.verified):
            spent = spent + outcome.verified * self._verification(log)
        return spent

    def _verification(self, log: Columns) -> Floats:
        """(N,), one verification; where it is not known what the others cost on average."""
        if not known(log):
            return np.full(len(log), self.sample_cost)
        dollars = log.dollars.get("verify", np.full(len(log), np.nan))
        if np.isnan(dollars).all():
            raise InvalidRequest(
                "the log knows the dollars of its models, and not of its verifier: give it a price "
                "(verifier.price) and log again, or leave --rules verified out"
            )
        return np.where(np.isnan(dollars), np.nanmean(dollars), dollars)

    def teacher(self, log: Columns) -> Floats:
        """(N,), the teacher alone."""
        if not known(log):
            return np.ones(len(log))
        return log.dollars["teacher" if self.discounts else "plain_teacher"]

    def deferred(self, log: Columns, outcome: Outcome) -> Floats:
        """(N,), the teacher at a deferred step: its prompt cache holds what it was sent at its own last one."""
        teacher = self.teacher(log)
        if not self.discounts or log.cache is None or not known(log):
            return teacher
        return teacher + log.cache.cold_dollars(outcome.accept, log.starts)

    def _drafts(self, log: Columns, outcome: Outcome) -> Floats | float:
        """(N,), of the student that is asked last: what its distinct samples add to the prompts of deferred steps."""
        asked = [(one, student) for one, student in zip(outcome.asked, log.students) if one.n]
        if not self.draft_tokens or not asked or not known(log):
            return 0.0
        last, student = (log.most, log) if log.members else (asked[-1][0].n, asked[-1][1])
        distinct = (student.draw(last).counts > 0).sum(axis=1)
        token, most = log.dollars["teacher_token"], float(self.draft_tokens)
        tokens = DRAFT_FRAME + distinct * (student.dollars["sample_tokens"] + DRAFT_HEADING)
        tokens = np.where(np.isnan(tokens), most, np.minimum(tokens, most)) * (distinct > 0)
        added: Floats = np.maximum(0.0, asked[0][0].reach - outcome.accept) * tokens * token
        return added

    def _student(self, log: Columns, asked: Asked, priced: bool) -> Floats:
        n: Floats | float = asked.n
        requests: Floats | float = 1.0 if self.sampling == "one-call" else float(asked.n)
        if self.sampling == "staged" and asked.votes is not None:
            n, requests = asked.votes.waves(log)
        elif self.sampling == "staged":
            requests = 1.0
        if log.arm.vary:  # each sample has a prompt of its own
            requests = n
        if not priced:
            return np.full(len(log), self.sample_cost) * n
        dollars = log.dollars
        first, sample = dollars["prompt" if self.discounts else "plain_prompt"], dollars["sample"]
        repeated = self.sampling == "staged" and not log.arm.vary
        again = dollars["again"] if self.discounts and repeated else dollars["plain_prompt"]
        return first + again * (requests - 1) + sample * n


def known(log: Columns) -> bool:
    """Whether the log has dollars for all that was asked, of most of its steps; the others are left out of means."""
    needed = [log.dollars.get("teacher"), *(s.dollars.get(k) for s in log.students for k in ("prompt", "sample"))]
    return all(values is not None and np.isnan(values).mean() < 0.5 for values in needed)


def check(sample_cost: float) -> None:
    """Raises `InvalidRequest`."""
    if not 0 <= sample_cost <= 10:
        raise InvalidRequest(
            f"sample_cost is {sample_cost}: it is the share of a teacher's answer that one sample costs, 0 to 10"
        )
