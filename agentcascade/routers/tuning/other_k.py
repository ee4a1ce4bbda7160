"""Dollars at a number of demonstrations that a log does not hold: reckoned from its tokens, at the same agreement.

How often a student that is shown fewer demonstrations agrees, and is right, no such log can say: a figure of this
module is of cost alone, and is no certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agentcascade.errors import InvalidRequest
from agentcascade.routers.tuning.columns import Arm, arm_of, columns, failed
from agentcascade.routers.tuning.costs import Bill, known
from agentcascade.routers.tuning.replay import replay
from agentcascade.routers.tuning.rules import Rule
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import Usage


class OtherK(NamedTuple):
    """What a rule would cost at another number of demonstrations, were its student as often accepted.

    Attributes:
        k: Demonstrations.
        cost: Dollars of a step.
        saving: Share of the teacher's dollars that is not spent.
        acceptance: Share of the steps that the student takes, as at the logged k.
        episodes: That a log at this k needs to be as long as this one.
        log_dollars: What sampling the student for it costs, about.
    """

    k: int
    cost: float
    saving: float
    acceptance: float
    episodes: int
    log_dollars: float


def single_k(steps: Sequence[LoggedStep]) -> int | None:
    """The number of demonstrations, above 0, that all of a log's samples were drawn with; None where there are more."""
    found = {step.student.k for step in steps if step.students and not failed(step.student)}
    return k if len(found) == 1 and (k := found.pop()) else None


def at_other_k(steps: Sequence[LoggedStep], arm: Arm, rule: Rule, bill: Bill, k: int) -> OtherK:
    """The dollars of `rule` on the steps of `arm`, had its student been shown `k` demonstrations.

    Raises:
        InvalidRequest: The log does not know what its demonstrations took: it needs usage of both models, and prices.
    """
    asked = [s for s in steps if s.students and not failed(s.student) and arm_of(s, s.student) == arm]
    changed = [step for one in asked if (step := _shown(one, k)) is not None]
    if not changed:
        raise InvalidRequest(
            "the log does not tell what its demonstrations cost: it needs the samples' and the teacher's usage, and "
            "the demonstrations shown"
        )
    log = columns(changed)
    if not known(log):
        raise InvalidRequest("the log knows no dollars: it needs usage and prices of both models")
    replayed = replay(log, rule, (bill,))
    samples = np.array([max(1, step.student.n or len(step.student.samples)) for step in changed], float)
    sampling = float(np.nansum(log.dollars["prompt"] + np.nan_to_num(log.dollars["sample"]) * samples.mean()))
    return OtherK(k, replayed.cost, replayed.saving.value, replayed.acceptance, replayed.episodes, sampling)


def _shown(step: LoggedStep, k: int) -> LoggedStep | None:
    """The step with the prompt of `k` demonstrations: those shown are what it has beyond the teacher's."""
    student, taught = step.student, step.teacher_usage
    if student.prompt is None or taught is None or not taught.prompt or not student.demonstrations:
        return None
    extra = max(0, student.prompt.prompt - taught.prompt)
    more = round(extra * (k / len(student.demonstrations) - 1))
    return step.model_copy(update={"students": (_with_prompt(student, more), *step.students[1:])})


def _with_prompt(student: StudentSamples, more: int) -> StudentSamples:
    """With so many tokens more or fewer: fresh ones first, as far as there are, then those of the cache."""
    prompt = student.prompt or Usage()
    tokens = {name: getattr(prompt, name) for name in ("input", "cached_input", "cache_write", "cache_write_1h")}
    for name in ("input", "cache_write", "cache_write_1h", "cached_input"):
        change = max(-tokens[name], more)
        tokens[name] += change
        more -= change
    return student.model_copy(update={"prompt": Usage(**tokens)})
