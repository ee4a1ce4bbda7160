"""Latch (`router.latch`): the teacher goes on with an episode while its prompt cache is warm, where that costs less.

After a deferral the teacher holds the history in its cache, and the student would have to read all of it, too, to be
not accepted again. The teacher takes the next step as well where

    teacher, warm  <  student + P(deferred again) × teacher, warm + P(accepted) × P(back too late) × (cold − warm)

What the student costs is its last bill in the episode, by the prompt's length; the probabilities are learnt from the
cascade's own steps: how often a step so soon after a deferral is deferred again, whether a deferral comes back at all,
and how far apart steps are. Nothing is latched before `ENOUGH` such steps were seen; a share of those that would be is
left to the student all the same, and after `MOST` in a row it is asked: so it is known when it would act again.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from agentcascade._util import forking
from agentcascade._util.lru_cache import LRUCache
from agentcascade._util.stable_draw import included
from agentcascade.models.prompt_cache import CacheTerms
from agentcascade.step.caching import teacher_terms
from agentcascade.step.context import StepContext
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.types import Situation, Usage, total

EPISODES = 5_000
"""Remembered at once."""
MOST = 5
"""Steps in a row that the teacher takes by the latch."""
ENOUGH = 10
"""Steps so soon after a deferral that were left to the student, before any is not."""
ASKED = 0.1
"""Share of the steps in which the student is asked though the latch would hold."""
SOON = 4
"""Steps after a deferral that are told apart; later ones are as one."""
FORGET = 0.99
"""Weight of what was seen before, each time."""
GAP_SECONDS = 3600.0
"""Between steps; longer pauses say nothing of how fast an agent works."""


class EpisodeCosts(NamedTuple):
    """What an episode's last steps cost, and when."""

    teacher_at: float
    teacher_tokens: int
    """Of the prompt that the teacher was sent last."""
    teacher_output: int
    student_dollars: float | None
    student_tokens: int
    """Of the prompt that the student was asked with last."""
    since: int
    """Steps since the student was last not accepted, whoever took them."""
    latched: int
    """Steps in a row that the latch gave to the teacher."""
    at: float


class Latch:
    """Learns when a cascade's student is deferred again, and says when not to ask it. Thread-safe."""

    def __init__(self) -> None:
        self._episodes: LRUCache[tuple[str, str], EpisodeCosts] = LRUCache(EPISODES)
        self._lock = forking.lock()
        self._deferred = [[1.0, 2.0] for _ in range(SOON + 1)]
        """By steps since a deferral: (deferred, asked), forgetting."""
        self._seen = [0] * (SOON + 1)
        self._back = [1.0, 2.0]
        """(deferrals that were not an episode's first, deferrals)"""
        self._gap = 5.0
        """Seconds between steps."""

    def reason(self, context: StepContext, situation: Situation, request: Request) -> str | None:
        """Why the teacher is to take this step without the student being asked; None where it is to be asked."""
        costs = self._episodes.get((situation.namespace, situation.episode))
        if context.config.router.latch == "never" or costs is None or context.teacher is None:
            return None
        terms = teacher_terms(context, request)
        if terms.never or costs.latched >= MOST or context.clock() - costs.teacher_at > terms.seconds:
            return None
        since = min(costs.since + 1, SOON)
        if self._seen[since] < ENOUGH or included(f"{situation.episode}:{situation.step}", ASKED, "latch"):
            return None
        tokens = _prompt_tokens(context, request)
        warm, cold = (
            context.teacher.dollars(terms.usage(tokens, shared, output=costs.teacher_output))
            for shared in (min(costs.teacher_tokens, tokens), 0)
        )
        if warm is None or cold is None or costs.student_dollars is None or not terms.read(costs.teacher_tokens):
            return None
        again = self.deferred_again(since)
        student = costs.student_dollars * tokens / max(1, costs.student_tokens)
        late = self._late(terms) * float(cold - warm)
        if float(warm) >= student + again * float(warm) + (1 - again) * late:
            return None
        return f"latched: the teacher's prompt cache is warm, and {again:.0%} of such steps are deferred"

    def deferred_again(self, since: int) -> float:
        """Probability that a step is deferred, so many steps after a deferral."""
        deferred, asked = self._deferred[min(since, SOON)]
        return deferred / asked

    def _late(self, terms: CacheTerms) -> float:
        """Probability that an episode that is left to the student comes back, and after the cache has expired."""
        back, deferrals = self._back
        steps = terms.seconds / max(0.001, self._gap)
        return float(back / deferrals * (1 - self.deferred_again(SOON)) ** min(steps, 10_000))

    def add(self, context: StepContext, request: Request, record: StepRecord) -> None:
        """A step in mode ``cascade`` was taken."""
        if context.config.router.latch == "never" or record.mode != "cascade":
            return
        key, now = (record.situation.namespace, record.situation.episode), context.clock()
        before = self._episodes.get(key)
        tokens = _prompt_tokens(context, request)
        bought = [c for c in record.calls if not c.cached_response]  # the others warm no provider's cache
        asked = [c for c in bought if c.role == "student" and c.purpose == "sample"]
        acts = [c for c in record.acts if not c.cached_response]
        deferred = bool(asked) and record.answered_by == "teacher"
        with self._lock:
            if before is not None and 0 <= now - before.at <= GAP_SECONDS:
                self._gap = FORGET * self._gap + (1 - FORGET) * (now - before.at)
            if before is not None and asked and before.teacher_at > 0:
                since = min(before.since + 1, SOON)
                self._seen[since] += 1
                _learn(self._deferred[since], deferred)
            if deferred:
                _learn(self._back, before is not None and before.teacher_at > 0)
        last = before or EpisodeCosts(0.0, 0, 0, None, 0, 0, 0, now)
        if asked:
            dollars = total(asked)
            last = last._replace(
                student_dollars=None if dollars is None else float(dollars), student_tokens=tokens, latched=0
            )
        elif acts:
            last = last._replace(latched=last.latched + 1)
        if acts:
            output = sum((c.usage for c in acts), Usage()).completion
            last = last._replace(teacher_at=now, teacher_tokens=tokens, teacher_output=output)
        self._episodes.put(key, last._replace(since=0 if deferred else last.since + 1, at=now))


def _learn(counts: list[float], happened: bool) -> None:
    """What is forgotten falls back to the prior, so that no probability stays at 0 or 1."""
    counts[0] = FORGET * counts[0] + (1 - FORGET) * 1.0 + happened
    counts[1] = FORGET * counts[1] + (1 - FORGET) * 2.0 + 1


def _prompt_tokens(context: StepContext, request: Request) -> int:
    tools = context.count(json.dumps(request.tools, default=str)) if request.tools else 0
    return request.tokens(context.count) + tools
