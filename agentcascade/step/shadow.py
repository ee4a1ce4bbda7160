"""Shadows (mode ``shadow``): what the student would have done, asked behind the answer that the teacher gave.

A shadow never delays or breaks the agent's step. Every sample is logged, for tuning (`agentcascade tune`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agentcascade._util.stable_draw import included, pick
from agentcascade.actions import voting
from agentcascade.messages import text_with_calls
from agentcascade.protocols import can_learn
from agentcascade.step.background import BackgroundTasks
from agentcascade.step.context import StepContext
from agentcascade.step.feedback import asked_again
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.step.stuck import find_stuck
from agentcascade.step.student import Shown, StudentPolicy
from agentcascade.step.verifying import score_for_log, would_accept
from agentcascade.types import Decision, LoggedSample, Sample, Shadow, Situation

SAMPLES = 3
"""Of a shadow, where neither configuration nor router names a number: the paper's."""


class Drawn:
    """Samples of one student of a shadow, `complete` when all that were wanted came; and those that were fed back."""

    def __init__(self, policy: StudentPolicy) -> None:
        self.policy: StudentPolicy = policy
        self.complete: bool = False
        self.samples: list[Sample] = []
        self.fed_back: list[Sample] = []


class Shadows:
    """The shadows of a cascade's students that are under way among `tasks`, at most `shadow.max_pending`.

    Of a ladder every rung below the teacher is sampled, so that the log holds what each would have done.
    """

    def __init__(self, policies: Sequence[StudentPolicy], context: StepContext, tasks: BackgroundTasks) -> None:
        self._policies = policies
        self._context = context
        self._tasks = tasks

    def start(self, situation: Situation, request: Request, decision: Decision) -> None:
        """Sample the student for this step in the background, if the step is among `shadow.rate` of all.

        The request is made at one of the settings that the log is to hold.
        """
        settings, step = self._context.config.shadow, f"{situation.episode}:{situation.step}"
        if not included(step, settings.rate, "shadow"):
            return
        shadowed = request.behind(
            temperature=pick(step, settings.temperatures, "temperature") if settings.temperatures else None,
            k=pick(step, settings.ks, "k") if settings.ks else None,
            window=pick(step, settings.windows, "window") if settings.windows else None,
        )
        self._tasks.start("a shadow", settings.max_pending, lambda: self._run(situation, shadowed, decision))

    async def _run(self, situation: Situation, request: Request, decision: Decision) -> None:
        record = StepRecord(situation, "shadow", cascade=self._context.name)
        drawn: list[Drawn] = []
        until = asyncio.get_running_loop().time() + self._context.config.shadow.timeout_seconds
        try:
            below: list[Shown] = []
            for policy in self._policies:
                drawn.append(Drawn(policy))
                if shown := await self._draw(drawn[-1], situation, request, record, until, below):
                    below.append(shown)
        except asyncio.CancelledError as error:
            record.add_failure("shadow", error)
            self._log(record, drawn, decision, request)
            raise
        self._log(record, drawn, decision, request)

    async def _draw(
        self,
        drawn: Drawn,
        situation: Situation,
        request: Request,
        record: StepRecord,
        until: float,
        below: Sequence[Shown],
    ) -> Shown | None:
        """The samples of one student, and what it was shown; what fails is recorded."""
        policy, shown = drawn.policy, None
        member = policy.name if len(self._policies) > 1 else ""
        try:
            async with asyncio.timeout_at(until):
                shown = await policy.shown_as_below(below, situation, "shadow", request, record) or request
            n = samples_of(policy.context, situation)
            await policy.sample_all(n, situation, shown, record, "shadow", samples=drawn.samples, until=until)
            again = asked_again(policy, shown, record, drawn.samples)
            if again is not None:
                drawn.fed_back, drawn.samples = drawn.samples, []
                await policy.sample_all(n, situation, again, record, "shadow", samples=drawn.samples, until=until)
            drawn.complete = True
            async with asyncio.timeout_at(until):
                await score_for_log(policy, policy.context.router, situation, drawn.samples, shown, record)
        except Exception as error:
            record.add_failure("shadow", error, member)
        finally:
            if member:
                for samples in (drawn.fed_back, drawn.samples):
                    samples[:] = [sample.model_copy(update={"member": member}) for sample in samples]
        return None if shown is None else Shown(policy.name, shown, policy.models)

    def _log(self, record: StepRecord, drawn: Sequence[Drawn], decision: Decision, request: Request) -> None:
        """Every sample that came; of a student whose samples were cut short its router learns nothing."""
        context, situation = self._context, record.situation
        if context.recorder is None:
            return
        config = context.config
        k = 0 if context.bank is None else config.retrieval.k if request.k is None else request.k
        taught = not k or len(record.demonstrations) >= config.prompt.min_demonstrations
        stuck = config.router.stuck is not None and find_stuck(config.router.stuck, situation) is not None
        accepted, agreement = False, None
        for one in drawn:
            policy, own = one.policy, one.samples
            router = policy.context.router
            n = router.samples(situation)
            votes = voting.tally(policy.samples_voted_on(own, n), record.similarity)
            if can_learn(router) and own and one.complete:
                known = policy.samples_voted_on(own, n or voting.tally(own).total)
                router.update(situation, voting.tally(known), decision.action)
            if not accepted:
                enough = taught and not stuck and 0 < n <= votes.total
                accepted = enough and would_accept(policy, router, situation, votes, own)
                agreement = votes.agreement if own else agreement
        context.recorder.record_shadow(
            Shadow(
                decision=decision.id,
                episode=situation.episode,
                namespace=situation.namespace,
                step=situation.step,
                goal=situation.goal,
                category=situation.category,
                observation=situation.observation,
                temperature=temperature_of(context, request),
                k=k,
                window=window_of(context, request) if k else None,
                vary=config.sampling.vary if record.prompts > 1 else None,
                history=config.history.setting if config.history is not None else None,
                similarity=record.similarity,
                propensity=config.shadow.rate,
                teacher_action=decision.action,
                samples=tuple(sample for one in drawn for sample in logged_rounds(one.fed_back, one.samples)),
                accepted=accepted,
                agreement=agreement,
                demonstrations=record.demonstrations,
                calls=record.calls,
                failures=record.failures,
                seconds=record.seconds,
            )
        )


def samples_of(context: StepContext, situation: Situation) -> int:
    """How many samples a shadow takes: as configured, else what the router would draw if the student had its turn.

    Routers that send this step to the teacher want 0; those that learn need shadows of such steps as well.
    """
    router = context.router
    wanted = context.config.shadow.samples or router.samples(situation) or getattr(router, "n", 0)
    return wanted if isinstance(wanted, int) and wanted > 0 else SAMPLES


def window_of(context: StepContext, request: Request) -> str:
    """Steps before and after the one that matches in each demonstration, as the log says it."""
    retrieval = context.config.retrieval
    before, after = request.window or (retrieval.window_before, retrieval.window_after)
    return f"{before}/{after}"


def temperature_of(context: StepContext, request: Request) -> float | None:
    """What the student is sampled at; None: the provider's own."""
    own, student = context.config.sampling.temperature, context.config.student
    if request.temperature is not None:
        return request.temperature
    return own if own is not None or student is None else student.temperature


def logged_rounds(fed_back: Sequence[Sample], samples: Sequence[Sample]) -> tuple[LoggedSample, ...]:
    """The samples as the log keeps them, behind those whose fault was fed back, where there are any."""
    if not fed_back:
        return tuple(map(logged, samples))
    return (*map(logged, fed_back), *(logged(sample).model_copy(update={"retry": True}) for sample in samples))


def logged(sample: Sample) -> LoggedSample:
    """A sample as the log keeps it."""
    action = sample.action
    return LoggedSample(
        action=action.key if action else None,
        text=action.text if action else text_with_calls(sample.message),
        invalid=sample.invalid,
        logprob=sample.logprob,
        tokens=sample.tokens,
        score=sample.score,
        member=sample.member,
        weight=sample.weight,
    )
