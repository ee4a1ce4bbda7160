"""Audits: of the steps that the student took, a small random share is sent to the teacher too, behind the answer.

They say whether the risk that was certified still holds. An audit never delays or breaks the agent's step; it is billed
as purpose ``audit`` and kept with the shadows, of which it is the mirror image.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from agentcascade._util.stable_draw import included
from agentcascade._util.threads import apart
from agentcascade.actions import voting
from agentcascade.errors import describe
from agentcascade.protocols import can_learn
from agentcascade.step.audit_rounds import AuditRounds, RoundEntry
from agentcascade.step.audit_together import AuditQuestion, AuditSharing, SharedCompletion
from agentcascade.step.background import BackgroundTasks
from agentcascade.step.context import StepContext
from agentcascade.step.model_calls import ModelCalls
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.step.shadow import logged_rounds, temperature_of, window_of
from agentcascade.step.student import parse
from agentcascade.types import Completion, Decision, Shadow, Situation, Tally, Tool, now

if TYPE_CHECKING:
    from agentcascade.storage.audit_rounds import StoredAudit

log = logging.getLogger("agentcascade.audit")


class AuditFailures:
    """The share of audits that fail, and as large a share of the steps that need none left out.

    An audit of a teacher's own step cannot fail. If they all counted while others are lost, a teacher that fails would
    make the marginal risk look smaller than it is.
    """

    def __init__(self) -> None:
        self._answered = self._failed = 0
        self._owed = 0.0

    def add(self, answered: bool) -> None:
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


class _Audited(NamedTuple):
    """What a teacher's answer is compared with.

    Args:
        shadow: Makes the record, but for what the teacher says.
        request: By which the answer is parsed.
        action: The student's action key.
        votes: Makes the tally of its samples, for a router that learns.
        redact: Makes of the teacher's action key what is compared, where `action` was stored.
    """

    shadow: Callable[[], Shadow]
    request: Request
    action: str | None
    votes: Callable[[], Tally] | None
    redact: Callable[[str], Awaitable[str]] | None = None


class Audits:
    """The audits of one cascade that are under way among `tasks`, at most `audit.max_pending`, or in `rounds`."""

    def __init__(
        self, context: StepContext, tasks: BackgroundTasks, failures: AuditFailures, rounds: AuditRounds | None = None
    ) -> None:
        self._context = context
        self._tasks = tasks
        self._failures = failures
        self._rounds = rounds
        if rounds is not None:
            rounds.begin(self.restored)
        settings = context.config.audit
        self._sharing: AuditSharing | None = None
        if settings.together > 1 and rounds is None:
            self._sharing = AuditSharing(lambda: context.door, settings, context.prompts, settings.timeout_seconds)

    def flush(self) -> None:
        """Let no audit wait any longer for others to share a call with."""
        if self._sharing is not None:
            self._sharing.flush()

    def start(self, situation: Situation, request: Request, step: StepRecord, decision: Decision) -> None:
        """Audit this step in the background, if it is among `audit.rate` of all: drawn before it is known who takes it.

        A chosen step that the teacher took is a loss of 0 for the marginal risk, and nothing for the selective.
        """
        context, settings = self._context, self._context.config.audit
        if context.teacher is None or not included(f"{situation.episode}:{situation.step}", settings.rate, "audit"):
            return
        if self._rounds is not None:
            self._wait(self._rounds, situation, request, step, decision)
        elif decision.answered_by == "student":
            self._tasks.start("an audit", settings.max_pending, lambda: self._run(situation, request, step, decision))
        elif self._is_watched() and not self._failures.leave_out():
            self._tasks.start("an audit", settings.max_pending, lambda: self._judge(0.0))

    def _is_watched(self) -> bool:
        """Whether a step that the teacher took is one without a loss to the guard."""
        guard = self._context.guard
        return self._context.config.audit.count == "marginal" and guard is not None and not guard.alarmed

    def _wait(
        self, rounds: AuditRounds, situation: Situation, request: Request, step: StepRecord, decision: Decision
    ) -> None:
        """Let the audit wait for the next batch."""
        from agentcascade.storage.audit_rounds import DrawnAudit

        rounds.begin(self.restored)
        if decision.answered_by != "student":
            if self._is_watched():
                rounds.add(RoundEntry(None, DrawnAudit(), _unasked, self._judge_unasked))
            return
        request = replace(request, on_delta=None)
        audited = request.behind()
        record = StepRecord(situation, "cascade", cascade=self._context.name)
        audit = self._audited(request, step, decision)

        async def read(answer: Completion | Exception) -> float | None:
            """The loss; what the answer cost is on the batch's bill, and not on the shadow's."""
            return await self._loss(_given(answer), record, audit)

        try:
            model, messages, options = ModelCalls(self._context, audited, record).teacher_request(request.messages)
        except Exception as error:
            self._lose(error, record, audit)
            return
        options = {name: value for name, value in options.items() if name != "timeout"}
        question = AuditQuestion(model, messages, options, situation.namespace, audited.accounts)
        drawn = DrawnAudit(
            shadow=self._shadow(situation, request, step, decision),
            is_asked=True,
            action=decision.action or "",
            tools=_names(request.tools),
            wants_json=request.options.get("response_format") is not None,
        )
        rounds.add(RoundEntry(question, drawn, read, self._judge))

    def restored(self, stored: StoredAudit) -> RoundEntry:
        """An audit that another process drew: judged by what is stored of it. Routers learn nothing of it."""
        drawn = stored.drawn
        if not drawn.is_asked:
            return RoundEntry(None, drawn, _unasked, self._judge_unasked)
        if drawn.shadow is None:
            return RoundEntry(None, drawn, _unasked, self._judge_failed)
        shadow = drawn.shadow
        situation = Situation(
            goal=shadow.goal, observation=shadow.observation, category=shadow.category,
            namespace=shadow.namespace, episode=shadow.episode,
        )  # fmt: skip
        tools = [{"type": "function", "function": {"name": name}} for name in drawn.tools]
        options = {"response_format": {"type": "json_object"}} if drawn.wants_json else {}
        request = Request((), tools=tools or None, options=options)
        record = StepRecord(situation, "cascade", cascade=self._context.name)
        audit = _Audited(lambda: shadow, request, drawn.action, None, self._redacted)

        async def read(answer: Completion | Exception) -> float | None:
            return await self._loss(_given(answer), record, audit)

        return RoundEntry(None, drawn, read, self._judge)

    async def _redacted(self, action: str) -> str:
        kept = self._context.audit_rounds
        return action if kept is None else await apart(kept.redacted, action)

    async def _judge_failed(self, loss: float) -> None:
        """An audit without an answer that is known, nor a record."""
        self._failures.add(False)

    async def _judge_unasked(self, loss: float) -> None:
        if self._is_watched() and not self._failures.leave_out():
            await self._judge(loss)

    async def _run(self, situation: Situation, request: Request, step: StepRecord, decision: Decision) -> None:
        record = StepRecord(situation, "cascade", cascade=self._context.name)
        audit = self._audited(request, step, decision)
        loss = await self._loss(self._ask(request.behind(), request, record), record, audit)
        if loss is not None:  # a teacher that could not be asked says nothing of the student
            await self._judge(loss)

    def _audited(self, request: Request, step: StepRecord, decision: Decision) -> _Audited:
        shadow = lambda: self._shadow(step.situation, request, step, decision)  # noqa: E731
        return _Audited(shadow, request.behind(), decision.action, lambda: voting.tally(step.samples))

    async def _loss(self, answer: Awaitable[Completion], record: StepRecord, audit: _Audited) -> float | None:
        """The loss by the teacher's answer, logged; None where there is no answer. The router is told of it.

        An answer that holds no action is a disagreement.
        """
        try:
            completion = await answer
            sample = await parse(self._context, completion.messages[0], record.situation, audit.request)
        except asyncio.CancelledError as error:
            if self._rounds is None:  # else it is read by the process that comes next
                self._lose(error, record, audit)
            raise
        except Exception as error:
            self._lose(error, record, audit)
            return None
        taught = sample.action.key if sample.action else None
        if taught is not None and audit.redact is not None:
            taught = await audit.redact(taught)
        together = completion.situations if isinstance(completion, SharedCompletion) else None
        self._log(record, audit, taught, together)
        self._failures.add(True)
        if audit.votes is not None and can_learn(self._context.router):
            self._context.router.update(record.situation, audit.votes(), taught)
        return float(taught != audit.action)

    def _lose(self, error: BaseException, record: StepRecord, audit: _Audited) -> None:
        """Log an audit that has no answer; one that was cancelled is not the teacher's failure."""
        record.add_failure("audit", error)
        self._log(record, audit, None)
        if isinstance(error, Exception):
            self._failures.add(False)

    async def _ask(self, audited: Request, request: Request, record: StepRecord) -> Completion:
        """The teacher's answer, from a call that audits share where they may."""
        calls, seconds = ModelCalls(self._context, audited, record), self._context.config.audit.timeout_seconds
        if self._sharing is not None:
            model, messages, options = calls.teacher_request(request.messages)
            namespace = record.situation.namespace
            question = AuditQuestion(
                model, messages, options, namespace, audited.accounts, record, cache_use=audited.cache_use
            )
            if (shared := await self._sharing.ask(question)) is not None:
                return shared
        async with asyncio.timeout(seconds):
            return await calls.ask_teacher(request.messages, "audit")

    async def _judge(self, loss: float) -> None:
        """Hand the loss to the guard; what fails there is logged."""
        context = self._context
        alarmed, evidence = False, None
        if context.guard is not None:
            try:
                alarmed = await apart(context.guard.observe, loss)
                evidence = context.guard.evidence
            except Exception as error:
                log.warning("an audit is lost to the drift watch: %s", describe(error))
        context.observer.on_audit(context.name, loss, evidence, alarmed)

    def _log(self, record: StepRecord, audit: _Audited, taught: str | None, together: int | None = None) -> None:
        if self._context.recorder is None:
            return
        self._context.recorder.record_shadow(
            audit.shadow().model_copy(
                update={
                    "asked_together": together,
                    "teacher_action": taught,
                    "calls": record.calls,
                    "failures": record.failures,
                    "seconds": record.seconds,
                    "created_at": now(),
                }
            )
        )

    def _shadow(self, situation: Situation, request: Request, step: StepRecord, decision: Decision) -> Shadow:
        """The record of an audit, but for what the teacher says."""
        context = self._context
        return Shadow(
            decision=decision.id,
            kind="audit",
            episode=situation.episode,
            namespace=situation.namespace,
            step=situation.step,
            goal=situation.goal,
            category=situation.category,
            observation=situation.observation,
            temperature=temperature_of(context, request),
            k=context.config.retrieval.k if context.bank is not None else 0,
            window=window_of(context, request) if context.bank is not None else None,
            vary=context.config.sampling.vary if step.prompts > 1 else None,
            history=context.config.history.setting if context.config.history is not None else None,
            similarity=step.similarity,
            propensity=context.config.audit.rate,
            samples=logged_rounds(step.fed_back, step.samples),
            accepted=True,
            agreement=decision.agreement,
            demonstrations=decision.demonstrations,
        )


async def _given(answer: Completion | Exception) -> Completion:
    if isinstance(answer, Exception):
        raise answer
    return answer


async def _unasked(answer: Completion | Exception) -> float:
    return 0.0


def _names(tools: Sequence[Tool] | None) -> tuple[str, ...]:
    """Names of the functions among the tools."""
    functions = [tool.get("function") for tool in tools or () if isinstance(tool, Mapping)]
    names = [function.get("name") for function in functions if isinstance(function, Mapping)]
    return tuple(name for name in names if isinstance(name, str))
