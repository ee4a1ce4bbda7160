"""Engine of a step: retrieve, sample, vote, accept or defer, record.

The student is shown what the teacher did in similar situations and sampled a few times. Where the samples agree on
the action, it is taken; where they do not, the teacher takes this one step and the next one starts with the student
again (Sarukkai et al. 2025, section "self-consistency cascades").

Nothing on the student's side can fail the step: whatever breaks there is recorded and the teacher answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Unpack

from agentcascade import conversation
from agentcascade._util.stable_draw import included as included
from agentcascade.actions import voting
from agentcascade.errors import (
    BudgetExceeded,
    CascadeClosed,
    ConfigError,
    EmptyCompletion,
    InvalidRequest,
    UnknownPrice,
    describe,
)
from agentcascade.lifetime import Lifetime
from agentcascade.models import structured_output, tool_call_ids
from agentcascade.prompts.additions import without
from agentcascade.protocols import ChatModel, Router, Verdict
from agentcascade.step import drafts, feedback, history
from agentcascade.step.answer_options import teachers_alone
from agentcascade.step.audit import AuditFailures, Audits
from agentcascade.step.audit_rounds import NEEDS_CONFIGURED, AuditRounds
from agentcascade.step.background import BackgroundTasks
from agentcascade.step.committee import Committee
from agentcascade.step.context import ContextParts, StepContext, check_models
from agentcascade.step.effort_ceiling import capped, is_above, is_one_model, read_ceiling
from agentcascade.step.kept_rounds import KeptRounds
from agentcascade.step.latch import Latch
from agentcascade.step.model_calls import NOTHING, ModelCalls
from agentcascade.step.recall import StepMemory
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.step.shadow import Shadows
from agentcascade.step.stuck import find_stuck_off_loop
from agentcascade.step.student import FIRST_SAMPLE, Learned, Shown, StudentPolicy, new_learned, parse
from agentcascade.step.teacher_alone import Alone, TeacherAlone
from agentcascade.step.verifying import Verifying, verifying_seconds
from agentcascade.types import Call, Completion, Decision, Mode, Sample, Situation

log = logging.getLogger("agentcascade.engine")

PLAIN = ("teacher", "collect")
"""Modes that the kill switch leaves alone."""


class StepOutcome(NamedTuple):
    """What a step gave: the answer, the decision, and the answer's reasoning and action as they were parsed once."""

    completion: Completion
    decision: Decision
    reasoning: str
    action: str


@dataclass(frozen=True)
class EngineState:
    """What engines of one cascade share, whichever teacher they have: tasks under way, and what was learnt."""

    life: Lifetime
    shadows: BackgroundTasks
    audits: BackgroundTasks
    audit_failures: AuditFailures
    learned: tuple[Learned, ...]
    """Of each student, in the order in which they are asked."""
    alone: TeacherAlone
    latch: Latch
    rounds: AuditRounds | None
    """Of audits that go by batches."""


class Engine:
    """Takes the steps of a cascade.

    Args:
        context: What they are made with.
        state: Of another engine of the same cascade (`twin`), else a new one.
    """

    def __init__(self, context: StepContext, state: EngineState | None = None) -> None:
        self.context = context
        contexts = [context, *(replace(context, student=s.model, router=s.router) for s in context.students)]
        if state is None:
            life, learned = Lifetime(), tuple(new_learned() for _ in contexts)
            tasks = BackgroundTasks(life), BackgroundTasks(life)
            rounds = None
            if context.batches is not None:
                store = context.audit_rounds
                kept = KeptRounds(store, context.name, context.teacher) if store is not None else None
                rounds = AuditRounds(
                    context.batches,
                    context.config.audit,
                    context.name,
                    context.prompts,
                    kept=kept,
                )
                life.add(rounds.close)
            state = EngineState(life, *tasks, AuditFailures(), learned, TeacherAlone(), Latch(), rounds)
        self.state = state
        self._students = [StudentPolicy(*of_one) for of_one in zip(contexts, state.learned)]
        committee = context.config.sampling.across == "students" and len(self._students) > 1
        self._policies: Sequence[StudentPolicy] = self._students
        if committee:
            self._policies = [Committee(context, self._students)]
        self._shadows = Shadows(self._policies, context, self.state.shadows)
        self._audits = Audits(context, self.state.audits, self.state.audit_failures, self.state.rounds)
        self._memory = StepMemory(context, context.memory) if context.memory is not None else None

    def twin(self, **parts: Unpack[ContextParts]) -> Engine:
        """An engine of the same cascade with other `parts` of its context (``teacher=…``).

        What is under way, and what was learnt of students that stay, is shared.

        Raises:
            ConfigError: Its audits go by batches, and the teacher is another one.
        """
        if "teacher" in parts and self.context.batches is not None:
            raise ConfigError(NEEDS_CONFIGURED)
        context = replace(self.context, **parts)
        if "student" in parts or "students" in parts:
            return Engine(context, replace(self.state, learned=self._learned_of(context)))
        return Engine(context, self.state)

    def _learned_of(self, context: StepContext) -> tuple[Learned, ...]:
        known = {id(policy.context.student): policy.learned for policy in self._students}
        students = (context.student, *(further.model for further in context.students))
        return tuple(known.get(id(student)) or new_learned() for student in students)

    def check_open(self) -> None:
        """Raises `CascadeClosed` when the cascade was closed: what is bought from then on would be on no bill."""
        if self.state.life.closed:
            name = self.context.name
            raise CascadeClosed(f"cascade '{name}' was closed, and would record nothing: build another one")

    def check_mode(self, mode: Mode) -> None:
        """Raises `ConfigError` when the mode lacks a model that it needs."""
        check_models(mode, self.context.teacher, self.context.student)

    def mode_for(self, episode: str) -> Mode:
        """The configured mode, or, for the share of episodes that `rollout` holds back, the other one. Sticky by id."""
        config = self.context.config
        return config.mode if included(episode, config.rollout.share) else config.rollout.otherwise

    async def step(
        self, situation: Situation, request: Request, mode: Mode, before: Sequence[Call] = ()
    ) -> StepOutcome:
        """Answer one model call of an agent; its messages were checked (`conversation.check`).

        The decision's bill includes the calls made `before`. See `Cascade.step` for the errors.
        """
        context = self.context
        self.check_open()
        self.check_mode(mode)
        if request.n > 1 and context.teacher is None:
            raise InvalidRequest(
                f"n is {request.n}: several answers come from the teacher, and there is none: "
                f"ask {request.n} times, or name one"
            )
        if context.teacher is None and (option := teachers_alone(request.options)):
            raise InvalidRequest(f"{option}: only a teacher's answer can have it, and there is none: leave it out")
        if context.switch is not None and context.switch.on and context.teacher is not None and mode not in PLAIN:
            mode = "teacher"
        asked, ceiling = read_ceiling(request.options)
        record = StepRecord(situation, mode, before, context.name)
        options = structured_output.with_choices(
            asked, context.config.sampling, context.choices, situation, record.add_failure
        )
        accounts = (*context.config.budgets.accounts(situation), *request.accounts)
        request = request.for_step(options, accounts, ceiling)
        parsed: tuple[str, str] | None = None
        with context.observer.step(situation, mode) as decided:
            try:
                async with asyncio.timeout(context.config.deadline_seconds):
                    if context.failures is not None:
                        await context.failures.note(situation)
                    if self._memory is not None:
                        request = await self._memory.inject(situation, request, record)
                    completion = await self._answer(situation, mode, request, record)
                    if self._memory is not None:
                        parsed = await self._parsed(completion, request, record)
                        await self._memory.store(situation, *parsed, record)
            except BaseException as error:
                record.end_in(error)
                raise
            finally:
                decision = record.close(*self._alone(request, record))
                decided(decision)
                if context.recorder is not None:
                    context.recorder.record(decision)
        if mode == "shadow":
            self._shadows.start(situation, request, decision)
        elif mode == "cascade" and context.config.audit.rate:
            self._audits.start(situation, request, record, decision)
        return StepOutcome(completion, decision, *(parsed or await self._parsed(completion, request, record)))

    def _alone(self, request: Request, record: StepRecord) -> Alone:
        """The teacher alone; an estimate that cannot be made is none, and never the end of a step."""
        try:
            self.state.latch.add(self.context, request, record)
            return self.state.alone.estimate(self.context, request, record)
        except Exception as error:
            log.warning("what the teacher alone would have cost is not known: %s", describe(error))
            return Alone(None, None)

    async def _parsed(self, completion: Completion, request: Request, record: StepRecord) -> tuple[str, str]:
        """Reasoning and action of the answer, as a history keeps them: the vote has parsed it, in most cases."""
        action = record.action
        if action is None or request.options.get("response_format") is not None:
            return await conversation.split_off_loop(completion.messages[0], self.context.actions)
        return action.reasoning, action.text

    async def _answer(self, situation: Situation, mode: Mode, request: Request, record: StepRecord) -> Completion:
        context = self.context
        if mode not in ("cascade", "student") or (request.n > 1 and context.teacher is not None):
            alone = request.why or f"mode {mode}"
            return await self._teacher(request, record, alone if request.n == 1 else f"n={request.n} answers")
        if option := teachers_alone(request.options):
            return await self._teacher(request, record, f"{option}: the teacher's alone")
        latched = await self._latched(situation, mode, request)
        if latched is not None:
            return await self._teacher(request, record, latched)
        policies = self._climbed(request) if mode == "cascade" else self._policies[:1]
        if not policies:
            record.reason = f"no student is asked under max_effort {request.ceiling}"
        below: list[Shown] = []
        for policy in policies:
            with record.rung(policy.name, "student", self._is_ladder):
                completion, shown = await self._ask(policy, situation, mode, request, record, below)
            if shown is not None:
                below.append(Shown(policy.name, shown, policy.models))
            if completion is not None:
                return completion
        if context.teacher is None:
            raise EmptyCompletion(
                f"the student gave no usable action ({record.reason}) and there is no teacher to defer to: "
                "set teacher.name, or look at actions.format"
            )
        own = [rung for rung in below if is_one_model(context.teacher, rung.asked)]
        last = next(reversed(own or below), None)
        if last is None:
            return await self._teacher(request, record, record.reason)
        return await self._teacher(last.request, record, record.reason, last.asked)

    async def _ask(
        self,
        policy: StudentPolicy,
        situation: Situation,
        mode: Mode,
        request: Request,
        record: StepRecord,
        below: Sequence[Shown],
    ) -> tuple[Completion | None, Request | None]:
        """A student's accepted answer, else None: `record.reason` says why; and the request as it was shown to it."""
        context, shown = self.context, None
        try:
            async with asyncio.timeout(policy.seconds + verifying_seconds(context.verifier)):
                router = self._router(policy, mode, request, record)
                n = router.samples(situation) if router is not None else 0
                if router is None or n == 0:
                    if router is not None:
                        record.reason = f"router '{router.name}' chose the teacher"
                    return None, None
                shown = await policy.shown_as_below(below, situation, mode, request, record)
                if shown is None:
                    return None, None
                return await self._student(policy, router, n, situation, mode, shown, record), shown
        except InvalidRequest:
            raise
        except Exception as error:
            if context.teacher is None:
                raise
            record.add_failure("student", error)
            student = policy.context.student
            if student is not None and not isinstance(error, (BudgetExceeded, UnknownPrice)):
                context.health.add_failure(student.name, error)
            return None, shown

    @property
    def _is_ladder(self) -> bool:
        """Whether several students are asked in turn."""
        return len(self._policies) > 1

    def _climbed(self, request: Request) -> Sequence[StudentPolicy]:
        """The students that are asked in turn: none above the request's ceiling, nor what the teacher then is."""
        policies, teacher = self._asked(request), self.context.teacher
        if request.ceiling is None or teacher is None:
            return policies
        top = capped(teacher, request.ceiling).name
        return [
            policy
            for policy in policies
            if not any(is_above(model, request.ceiling) for model in policy.models)
            and any(model.name != top for model in policy.models)
        ]

    def _asked(self, request: Request) -> Sequence[StudentPolicy]:
        """Who is asked in turn. A tool exchange that is kept is that student's alone which made the call."""
        if not self.context.config.tools.keep_model or not self.context.students:
            return self._policies
        if tool_call_ids.open_exchange_owner(request.messages) != "student":
            return self._policies
        maker = tool_call_ids.open_exchange_model(request.messages, self.context.ids)
        return [kept for policy in self._policies if (kept := policy.kept_for(maker)) is not None] or self._policies

    async def _latched(self, situation: Situation, mode: Mode, request: Request) -> str | None:
        """Why the teacher takes this step though the student was not asked; None where it is to be asked."""
        config = self.context.config
        if mode != "cascade" or (config.router.latch == "never" and config.router.stuck is None):
            return None
        if config.tools.keep_model and tool_call_ids.open_exchange_owner(request.messages) == "student":
            return None
        if config.router.stuck is not None and (found := await find_stuck_off_loop(config.router.stuck, situation)):
            return str(found)
        return self.state.latch.reason(self.context, situation, request)

    def _router(self, policy: StudentPolicy, mode: Mode, request: Request, record: StepRecord) -> Router | None:
        """What judges the student's samples at this step; None to defer, and `record.reason` says why."""
        if mode != "cascade":
            return FIRST_SAMPLE
        router = policy.context.router
        if self.context.config.tools.keep_model:
            owner = tool_call_ids.open_exchange_owner(request.messages)
            if owner == "teacher":
                record.reason = "the teacher's tool exchange"
                return None
            if owner == "student" and policy.keeps_exchanges:
                router = FIRST_SAMPLE
        guard = self.context.guard
        if guard is not None and guard.alarmed:
            stricter = guard.instead(router)
            if stricter is None:
                record.reason = "drift alarm: see `agentcascade audit`"
            return stricter
        return router

    async def _student(
        self,
        policy: StudentPolicy,
        router: Router,
        n: int,
        situation: Situation,
        mode: Mode,
        request: Request,
        record: StepRecord,
    ) -> Completion | None:
        """The student's accepted answer, or None to defer; `record.reason` says why."""
        samples: list[Sample] = []
        verifying = Verifying.of(policy, router, mode, request, record)
        router = router if verifying is None else verifying.patient(router)
        try:
            verdict = await feedback.vote(policy, router, situation, n, request, record, samples)
        except BaseException:
            if samples:  # they were paid for: the record has them, and may be answered from
                record.add_votes(voting.tally(samples), samples)
            raise
        votes = voting.tally(samples)
        record.add_votes(votes, samples)
        chosen = voting.winner(samples, votes)
        if chosen is None and self.context.teacher is None:
            return _first_answer(samples, record)
        accepted = verdict is Verdict.ACCEPT
        if chosen is not None and not accepted and verifying is not None:
            accepted = await verifying.take_split(chosen, votes, samples)
        if not accepted or chosen is None or chosen.action is None:
            said = verifying.words if verifying is not None else ""
            record.reason = f"agreement {votes.top[1] if votes.top else 0}/{votes.total}{said}"
            return None
        if mode == "cascade" and not await policy.allow_side_effects(chosen, samples, situation, request, record):
            return None
        if verifying is not None and not await verifying.keep(chosen, votes, samples):
            record.reason = record.agreement_on(chosen) + verifying.words
            return None
        rung = f", rung {policy.name}" if self._is_ladder and mode == "cascade" else ""
        said = verifying.words if verifying is not None else ""
        record.accept(chosen, record.agreement_on(chosen) + said + rung)
        return record.completion([chosen.message])

    async def _teacher(
        self, request: Request, record: StepRecord, reason: str, asked: Sequence[ChatModel] = ()
    ) -> Completion:
        """The teacher's answer; `asked` are the models that were asked with the request's prompt."""
        context = self.context
        record.defer(reason)
        # The same model at a higher effort reads what it was sent below: the cache holds it.
        shown = context.config.prompt.teacher_sees_demonstrations or is_one_model(context.teacher, asked)
        settings = context.config.history
        is_bounded = settings is not None and settings.teacher
        if is_bounded:
            request = await history.bound(context, request, record)
        sent = history.for_teacher(context, request, shown)
        if request.memory_tokens and not context.config.memory.teacher_sees_memory:
            sent = [without(message, "memory") for message in sent[: len(request.messages)]]
        drafted = drafts.behind(context, sent, record.samples)
        try:
            top = capped(context.teacher, request.ceiling).name if context.teacher else ""
            with record.rung(top, "teacher", record.has_rungs):
                completion = await ModelCalls(context, request, record).ask_teacher(drafted.messages)
        except BudgetExceeded as error:
            if context.student is None or context.config.budgets.when_exceeded == "error":
                raise
            return await self._without_teacher(request, record, error)
        sample = await parse(context, completion.messages[0], record.situation, request)
        tokens = (request.demonstration_tokens if shown else 0) + drafted.tokens
        record.add_teacher_action(sample, tokens, drafted.shown, bounded=is_bounded)
        return record.completion(completion.messages, completion)

    async def _without_teacher(self, request: Request, record: StepRecord, error: BudgetExceeded) -> Completion:
        """The teacher is over budget: the student's best sample, drawn now if there is none yet."""
        record.add_failure("teacher", error)
        samples = list(record.samples)
        if not any(s.action for s in samples):
            policy, situation = self._policies[0], record.situation
            request = await policy.add_demonstrations(situation, "student", request, record) or request
            drawn: list[Sample] = []
            await policy.sample_and_vote(FIRST_SAMPLE, situation, 1, request, record, samples=drawn)
            samples += drawn
        votes = voting.tally(samples)
        record.add_votes(votes, samples)
        best = voting.winner(samples, votes)
        if best is None:
            raise error
        record.accept(best, "the teacher is over budget")
        return record.completion([best.message])

    async def wait(self) -> None:
        """Wait for shadows and audits under way."""
        await asyncio.sleep(0)  # those that were just started wait for others to share a call with, too
        self._audits.flush()
        await self.state.shadows.wait()
        await self.state.audits.wait()


def _first_answer(samples: Sequence[Sample], record: StepRecord) -> Completion | None:
    """Where there is no teacher: the first that the student said at all, though no valid action is in it."""
    chosen = next((s for s in samples if s.message != NOTHING), None)
    if chosen is None:
        return None
    record.accept(chosen, f"no valid action and no teacher: {chosen.invalid}")
    return record.completion([chosen.message])
