"""Audits: of the steps that the student took, a small random share is sent to the teacher too, behind the answer.

They say whether the risk that was certified still holds. An audit never delays or breaks the agent's step; it is billed
as purpose ``audit`` and kept with the shadows, of which it is the mirror image.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from agentcascade._util.stable_draw import chosen
from agentcascade._util.threads import apart
from agentcascade.actions import voting
from agentcascade.errors import describe
from agentcascade.protocols import LearningRouter
from agentcascade.step.background import Behind
from agentcascade.step.model_calls import Caller, Request
from agentcascade.step.record import StepRecord
from agentcascade.step.shadow import logged, temperature_of
from agentcascade.types import Decision, Shadow, Situation

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade

log = logging.getLogger("agentcascade.audit")


class Asked:
    """The share of audits that fail, and as large a share of the steps that need none left out.

    An audit of a teacher's own step cannot fail. If they all counted while others are lost, a teacher that fails would
    make the marginal risk look smaller than it is.
    """

    def __init__(self) -> None:
        self._answered = self._failed = 0
        self._owed = 0.0

    def told(self, answered: bool) -> None:
        if answered:
            self._answered += 1
        else:
            self._failed += 1

    def leave_out(self) -> bool:
        """Whether the next step without an audit is to be left out."""
        if self._failed:
            self._owed += self._failed / (self._failed + self._answered)
        if self._owed < 1.0:
            return False
        self._owed -= 1.0
        return True


class Audits(Behind):
    """The audits of one cascade that are under way, at most `audit.max_pending`."""

    def __init__(self, cascade: Cascade) -> None:
        super().__init__(cascade)
        self._asked = Asked()

    def of(self, cascade: Cascade) -> Audits:
        twin = super().of(cascade)
        twin._asked = self._asked
        return twin

    def start(self, situation: Situation, request: Request, step: StepRecord, decision: Decision) -> None:
        """Audit this step in the background, if it is among `audit.rate` of all: drawn before it is known who takes it.

        A chosen step that the teacher took is a loss of 0 for the marginal risk, and nothing for the selective.
        """
        cascade, settings = self._cascade, self._cascade.config.audit
        if cascade.teacher is None or not chosen(f"{situation.episode}:{situation.step}", settings.rate, "audit"):
            return
        if decision.answered_by == "student":
            self._begin("an audit", settings.max_pending, lambda: self._run(situation, request, step, decision))
        elif (
            settings.count == "marginal"
            and cascade.guard is not None
            and not cascade.guard.alarmed
            and not self._asked.leave_out()
        ):
            self._begin("an audit", settings.max_pending, lambda: self._judge(0.0))

    async def _run(self, situation: Situation, request: Request, step: StepRecord, decision: Decision) -> None:
        cascade = self._cascade
        record = StepRecord(situation, "cascade", cascade=cascade.name)
        asked = Request(request.messages, request.tools, request.seed, request.options, accounts=request.accounts)
        taught: str | None = None
        answered = False
        try:
            async with asyncio.timeout(cascade.config.audit.timeout_seconds):
                completion = await Caller(cascade, asked, record).answer(request.messages, "audit")
            answered = True
            sample = await cascade.side.parse(completion.messages[0], situation, asked)
            taught = sample.action.key if sample.action else None
        except (Exception, asyncio.CancelledError) as error:
            record.failed("audit", error)
            if isinstance(error, asyncio.CancelledError):
                self._log(record, step, decision, request, taught)
                raise
        self._log(record, step, decision, request, taught)
        self._asked.told(answered)
        if answered:  # a teacher that could not be asked says nothing of the student
            if isinstance(cascade.router, LearningRouter):
                cascade.router.checked(situation, voting.tally(step.samples), taught)
            await self._judge(float(taught != decision.action))

    async def _judge(self, loss: float) -> None:
        """Hand the loss to the guard; what fails there is logged."""
        cascade = self._cascade
        alarmed, evidence = False, None
        if cascade.guard is not None:
            try:
                alarmed = await apart(cascade.guard.observe, loss)
                evidence = cascade.guard.evidence
            except Exception as error:
                log.warning("an audit is lost to the drift watch: %s", describe(error))
        cascade.observer.audited(cascade.name, loss, evidence, alarmed)

    def _log(
        self, record: StepRecord, step: StepRecord, decision: Decision, request: Request, taught: str | None
    ) -> None:
        cascade, situation = self._cascade, record.situation
        if cascade.recorder is None:
            return
        cascade.recorder.shadowed(
            Shadow(
                decision=decision.id,
                kind="audit",
                episode=situation.episode,
                namespace=situation.namespace,
                step=situation.step,
                goal=situation.goal,
                category=situation.category,
                observation=situation.observation,
                temperature=temperature_of(cascade, request),
                k=cascade.config.retrieval.k if cascade.bank is not None else 0,
                similarity=step.similarity,
                propensity=cascade.config.audit.rate,
                teacher_action=taught,
                samples=tuple(logged(s) for s in step.samples),
                accepted=True,
                agreement=decision.agreement,
                demonstrations=decision.demonstrations,
                calls=record.calls,
                failures=record.failures,
                seconds=record.seconds,
            )
        )
