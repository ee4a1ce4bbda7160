"""Mode ``shadow``: what would the student have done? Asked behind the answer that the teacher has given already.

A shadow never delays or breaks the agent's step. Every sample is logged, for tuning (`agentcascade tune`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agentcascade._util.stable_draw import chosen, drawn
from agentcascade.actions import voting
from agentcascade.protocols import LearningRouter, Verdict
from agentcascade.step.background import Behind
from agentcascade.step.model_calls import Request
from agentcascade.step.record import StepRecord
from agentcascade.types import Decision, LoggedSample, Sample, Shadow, Situation, Tally

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade

SAMPLES = 3
"""Of a shadow, where neither configuration nor router names a number: the paper's."""


class Shadows(Behind):
    """The shadows of one cascade that are under way, at most `shadow.max_pending`."""

    def start(self, situation: Situation, request: Request, decision: Decision) -> None:
        """Sample the student for this step in the background, if the step is among `shadow.rate` of all."""
        settings = self._cascade.config.shadow
        if not chosen(f"{situation.episode}:{situation.step}", settings.rate, "shadow"):
            return
        asked = self._asked(situation, request)
        self._begin("a shadow", settings.max_pending, lambda: self._run(situation, asked, decision))

    def _asked(self, situation: Situation, request: Request) -> Request:
        """The request at one of the settings that the log is to hold."""
        settings, what = self._cascade.config.shadow, f"{situation.episode}:{situation.step}"
        asked = Request(request.messages, request.tools, request.seed, request.options, accounts=request.accounts)
        asked.temperature = drawn(what, settings.temperatures, "temperature") if settings.temperatures else None
        asked.k = drawn(what, settings.ks, "k") if settings.ks else None
        return asked

    async def _run(self, situation: Situation, request: Request, decision: Decision) -> None:
        cascade = self._cascade
        record = StepRecord(situation, "shadow", cascade=cascade.name)
        samples: list[Sample] = []
        try:
            async with asyncio.timeout(cascade.config.shadow.timeout_seconds):
                await cascade.side.demonstrate(situation, "shadow", request, record)
                n = samples_of(cascade, situation)
                samples, _ = await cascade.side.vote(_All(n), situation, n, request, record, "shadow")
        except Exception as error:
            record.failed("shadow", error)
        except asyncio.CancelledError as error:
            record.failed("shadow", error)
            self._log(record, samples, decision, request)
            raise
        self._log(record, samples, decision, request)

    def _log(self, record: StepRecord, samples: list[Sample], decision: Decision, request: Request) -> None:
        cascade, situation = self._cascade, record.situation
        if cascade.recorder is None:
            return
        router, config = cascade.router, cascade.config
        n = router.samples(situation)
        votes = voting.tally(samples[:n], record.similarity)
        k = 0 if cascade.bank is None else config.retrieval.k if request.k is None else request.k
        taught = not k or len(record.demonstrations) >= config.prompt.min_demonstrations
        if isinstance(router, LearningRouter) and samples:
            router.checked(situation, voting.tally(samples[: n or len(samples)]), decision.action)
        accepted = taught and 0 < n <= len(samples) and router.judge(situation, votes, 0) is Verdict.ACCEPT
        cascade.recorder.shadowed(
            Shadow(
                decision=decision.id,
                episode=situation.episode,
                namespace=situation.namespace,
                step=situation.step,
                goal=situation.goal,
                category=situation.category,
                observation=situation.observation,
                temperature=temperature_of(cascade, request),
                k=k,
                similarity=record.similarity,
                propensity=config.shadow.rate,
                teacher_action=decision.action,
                samples=tuple(logged(s) for s in samples),
                accepted=accepted,
                agreement=votes.agreement if samples else None,
                demonstrations=record.demonstrations,
                calls=record.calls,
                failures=record.failures,
                seconds=record.seconds,
            )
        )


def samples_of(cascade: Cascade, situation: Situation) -> int:
    """How many samples a shadow takes: as configured, else what the router would draw if the student had its turn.

    Routers that send this step to the teacher want 0; those that learn need shadows of such steps as well.
    """
    router = cascade.router
    wanted = cascade.config.shadow.samples or router.samples(situation) or getattr(router, "n", 0)
    return wanted if isinstance(wanted, int) and wanted > 0 else SAMPLES


def temperature_of(cascade: Cascade, request: Request) -> float | None:
    """What the student is sampled at; None: the provider's own."""
    own, student = cascade.config.sampling.temperature, cascade.config.student
    if request.temperature is not None:
        return request.temperature
    return own if own is not None or student is None else student.temperature


def logged(sample: Sample) -> LoggedSample:
    """A sample as the log keeps it."""
    from agentcascade.messages import text_of

    action = sample.action
    return LoggedSample(
        action=action.key if action else None,
        text=action.text if action else text_of(sample.message),
        invalid=sample.invalid,
        logprob=sample.logprob,
        tokens=sample.tokens,
    )


class _All:
    """Wants every sample; has no opinion."""

    name = "shadow"

    def __init__(self, n: int) -> None:
        self._n = n

    def samples(self, situation: Situation) -> int:
        return self._n

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        return None if remaining else Verdict.DEFER
