"""One step of an agent: retrieve, sample, agree, accept or defer, record.

The student is shown what the teacher did in similar situations and sampled a few times. Where the samples agree on
the action, it is taken; where they do not, the teacher takes this one step and the next one starts with the student
again (Sarukkai et al. 2025, section "self-consistency cascades").

Nothing on the student's side can fail the step: whatever breaks there is recorded and the teacher answers.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentcascade import conversation
from agentcascade._util.stable_draw import chosen
from agentcascade._util.threads import apart, dismiss
from agentcascade.actions import voting
from agentcascade.actions.base import ActionFormat, AutoActions, Validator
from agentcascade.billing.door import Door, NullObserver
from agentcascade.errors import (
    BudgetExceeded,
    CascadeClosed,
    ConfigError,
    EmptyCompletion,
    InvalidRequest,
    UnknownPrice,
)
from agentcascade.lifetime import Lifetime, close_models
from agentcascade.models import structured_output, tool_call_ids
from agentcascade.prompts.quoting import quoting_of
from agentcascade.protocols import (
    Budgets,
    ChatModel,
    Guard,
    Merger,
    Observer,
    Recorder,
    Router,
    Switch,
    TokenCounter,
    Verdict,
)
from agentcascade.step.audit import Audits
from agentcascade.step.model_calls import NOTHING, Caller, Request
from agentcascade.step.record import StepRecord
from agentcascade.step.shadow import Shadows
from agentcascade.step.student import FIRST_SAMPLE, StudentSide
from agentcascade.step.student_health import Standing
from agentcascade.types import (
    Account,
    Call,
    Completion,
    Decision,
    Delta,
    Message,
    Mode,
    Situation,
    Tool,
    new_id,
)

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank
    from agentcascade.config.load import CascadeConfig
    from agentcascade.episodes.episode import Episode
    from agentcascade.episodes.judge import Judge
    from agentcascade.episodes.sync import SyncEpisode
    from agentcascade.step.recall import Remembering
    from agentcascade.storage import Database

PLAIN = ("teacher", "collect")
"""Modes that the kill switch leaves alone."""


class Cascade:
    """The middleware: models, bank, router and recorder, put together. Make one with `agentcascade.build(config)`.

    `router` takes the step in mode ``cascade``; ``student`` needs no teacher, ``teacher`` and ``collect`` no student.
    """

    def __init__(
        self,
        config: CascadeConfig,
        *,
        router: Router,
        count: TokenCounter,
        teacher: ChatModel | None = None,
        student: ChatModel | None = None,
        bank: Bank | None = None,
        actions: ActionFormat | None = None,
        validators: Sequence[Validator] = (),
        recorder: Recorder | None = None,
        name: str = "",
    ) -> None:
        self.config, self.router, self.count = config, router, count
        self.teacher, self.student, self.bank, self.recorder = teacher, student, bank, recorder
        self.actions = actions or AutoActions()
        self.validators = tuple(validators)
        self.mergers: tuple[Merger, ...] = ()
        self.choices: structured_output.Choices | None = None
        self.name = name
        self.database: Database | None = None
        self.budgets: Budgets | None = None
        self.switch: Switch | None = None
        self.observer: Observer = NullObserver()
        self.judge: Judge | None = None
        self.remembering: Remembering | None = None
        self.ids = tool_call_ids.ToolCallIds()
        self.side = StudentSide(self)
        self.standing = Standing()
        self.quoting = quoting_of(config.prompt.quoting)
        self.shadows, self.audits = Shadows(self), Audits(self)
        self.guard: Guard | None = None
        self.further: tuple[Cascade, ...] = ()
        self.life = Lifetime()
        for behind in (self.shadows, self.audits):
            self.life.waits_for(behind.pending)

    @property
    def door(self) -> Door:
        """Where every model of this cascade is called."""
        return Door(budgets=self.budgets, observer=self.observer, count=self.count, settings=self.config.budgets)

    def check_mode(self, mode: Mode) -> None:
        """Raises `ConfigError` when the mode lacks a model that it needs."""
        if mode in ("teacher", "collect", "shadow", "cascade") and self.teacher is None:
            raise ConfigError(f"mode '{mode}' needs a teacher: set teacher.name, e.g. 'anthropic/claude-sonnet-4-5'")
        if mode in ("shadow", "cascade", "student") and self.student is None:
            raise ConfigError(f"mode '{mode}' needs a student: set student.name, e.g. 'openai/gpt-4.1-mini'")

    def episode(self, goal: str = "", **options: Any) -> Episode:
        """Start an episode; see `Episode` for the options (id, namespace, mode, plan)."""
        from agentcascade.episodes.episode import Episode

        return Episode(self, goal=goal, **options)

    def sync_episode(self, goal: str = "", **options: Any) -> SyncEpisode:
        """The same for programs without an event loop."""
        from agentcascade.episodes.sync import SyncEpisode

        return SyncEpisode(self, goal=goal, **options)

    def mode_for(self, episode: str) -> Mode:
        """The configured mode, or, for the share of episodes that `rollout` holds back, the other one. Sticky by id."""
        rollout = self.config.rollout
        return self.config.mode if chosen(episode, rollout.share) else rollout.otherwise

    def with_teacher(self, teacher: ChatModel) -> Cascade:
        """The same cascade with another teacher. It shares everything else, and is closed with this one."""
        twin = self._twin()
        twin.teacher = teacher
        twin.side = self.side.of(twin)
        twin.further = tuple(link.with_teacher(teacher) for link in self.further)
        return twin

    def with_student(self, student: ChatModel, router: Router) -> Cascade:
        """The same cascade with another student, which is asked when the ones before it were not accepted."""
        twin = self._twin()
        twin.student, twin.router, twin.further = student, router, ()
        twin.side = StudentSide(twin)
        return twin

    def _twin(self) -> Cascade:
        """A copy whose shadows, audits and memory ask the copy's own models, and are waited for with this one's."""
        twin = copy.copy(self)
        twin.shadows, twin.audits = self.shadows.of(twin), self.audits.of(twin)
        twin.remembering = self.remembering.of(twin) if self.remembering is not None else None
        return twin

    async def step(
        self,
        messages: Sequence[Message],
        *,
        situation: Situation | None = None,
        mode: Mode | None = None,
        tools: Sequence[Tool] | None = None,
        seed: int | None = None,
        options: Mapping[str, Any] | None = None,
        before: Sequence[Call] = (),
        n: int = 1,
        on_delta: Callable[[Delta], None] | None = None,
        accounts: Sequence[Account] = (),
    ) -> tuple[Completion, Decision]:
        """Answer one model call of an agent.

        Returns the message that was chosen (as a `Completion` that holds all tokens of the model that answered) and
        the `Decision`, whose bill includes the calls made `before`. `n` > 1 asks for as many answers, which are not
        one action: they all come from the teacher. `on_delta` gets the parts of a teacher's answer as they come; of a
        student's it gets nothing. `accounts` must have the money left that a call may cost.

        Raises `InvalidRequest` for unusable messages, `BudgetExceeded`, `TimeoutError` past the deadline, and the
        provider's own error when the teacher fails.
        """
        if self.life.closed:
            raise CascadeClosed(f"cascade '{self.name}' was closed, and would record nothing: build another one")
        conversation.check(messages)
        mode = mode or self.config.mode
        self.check_mode(mode)
        if n > 1 and self.teacher is None:
            raise InvalidRequest(
                f"n is {n}: several answers come from the teacher, and there is none: ask {n} times, or name one"
            )
        if situation is None:
            situation = await conversation.read_off_loop(messages, self.actions, namespace=self.config.bank.namespace)
        if not situation.episode:
            situation = situation.model_copy(update={"episode": new_id("ep")})
        if self.switch is not None and self.switch.on and self.teacher is not None and mode not in PLAIN:
            mode = "teacher"
        accounts = (*self.config.budgets.accounts(situation), *accounts)
        record = StepRecord(situation, mode, before, self.name)
        seed = self.config.seed if seed is None else seed
        asked = structured_output.with_choices(
            options or {}, self.config.sampling, self.choices, situation, record.failed
        )
        request = Request(messages, tools, seed, asked, n=n, on_delta=on_delta, accounts=accounts)
        with self.observer.step(situation, mode) as decided:
            try:
                async with asyncio.timeout(self.config.deadline_seconds):
                    if self.remembering is not None:
                        await self.remembering.before(situation, request, record)
                    completion = await self._answer(situation, mode, request, record)
                    if self.remembering is not None:
                        await self.remembering.after(situation, completion.messages[0], record)
            except BaseException as error:
                record.raised(error)
                raise
            finally:
                decision = record.close(self.teacher)
                decided(decision)
                if self.recorder is not None:
                    self.recorder.record(decision)
        if mode == "shadow":
            self.shadows.start(situation, request, decision)
        elif mode == "cascade" and self.config.audit.rate:
            self.audits.start(situation, request, record, decision)
        return completion, decision

    async def _answer(self, situation: Situation, mode: Mode, request: Request, record: StepRecord) -> Completion:
        if mode not in ("cascade", "student") or (request.n > 1 and self.teacher is not None):
            return await self._teacher(request, record, f"mode {mode}" if request.n == 1 else f"n={request.n} answers")
        for link in (self, *(self.further if mode == "cascade" else ())):
            try:
                async with asyncio.timeout(self.config.sampling.timeout_seconds):
                    found = await link._student(situation, mode, request, record)
            except InvalidRequest:
                raise
            except Exception as error:
                if self.teacher is None:
                    raise
                record.failed("student", error)
                if link.student is not None and not isinstance(error, (BudgetExceeded, UnknownPrice)):
                    link.standing.failed(link.student.name, error)
                found = None
            if found is not None:
                return found
        if self.teacher is None:
            raise EmptyCompletion(
                f"the student gave no usable action ({record.reason}) and there is no teacher to defer to: "
                "set teacher.name, or look at actions.format"
            )
        return await self._teacher(request, record, record.reason)

    async def _student(
        self, situation: Situation, mode: Mode, request: Request, record: StepRecord
    ) -> Completion | None:
        """The student's accepted answer, or None to defer; `record.reason` says why."""
        router: Router = self.router if mode == "cascade" else FIRST_SAMPLE
        if mode == "cascade" and self.config.tools.keep_model:
            owner = tool_call_ids.open_exchange_owner(request.messages)
            if owner == "teacher":
                record.reason = "the teacher's tool exchange"
                return None
            router = FIRST_SAMPLE if owner == "student" else router
        if mode == "cascade" and self.guard is not None and self.guard.alarmed:
            stricter = self.guard.instead(router)
            if stricter is None:
                record.reason = "drift alarm: see `agentcascade audit`"
                return None
            router = stricter
        n = router.samples(situation)
        if n == 0:
            record.reason = f"router '{router.name}' chose the teacher"
            return None
        if not await self.side.demonstrate(situation, mode, request, record):
            return None
        samples, verdict = await self.side.vote(router, situation, n, request, record)
        votes = voting.tally(samples)
        record.voted(votes, samples)
        chosen = voting.winner(samples, votes)
        if chosen is None and self.teacher is None:
            chosen = next((s for s in samples if s.message != NOTHING), None)
            if chosen is not None:
                record.accepted(chosen, f"no valid action and no teacher: {chosen.invalid}")
                return record.completion([chosen.message])
        if verdict is not Verdict.ACCEPT or chosen is None or chosen.action is None:
            record.reason = f"agreement {votes.top[1] if votes.top else 0}/{votes.total}"
            return None
        if mode == "cascade" and not await self.side.may_act(chosen, samples, situation, request, record):
            return None
        record.accepted(chosen, record.agreed(chosen))
        return record.completion([chosen.message])

    async def _teacher(self, request: Request, record: StepRecord, reason: str) -> Completion:
        record.deferred(reason)
        shown = self.config.prompt.teacher_sees_demonstrations
        plain = request.remembered if self.config.memory.teacher_sees_memory else request.messages
        try:
            completion = await Caller(self, request, record).answer(request.prompt if shown else plain)
        except BudgetExceeded as error:
            if self.student is None or self.config.budgets.when_exceeded == "error":
                raise
            return await self._without_teacher(request, record, error)
        record.acted(await self.side.parse(completion.messages[0], record.situation, request), shown)
        return record.completion(completion.messages, completion)

    async def _without_teacher(self, request: Request, record: StepRecord, error: BudgetExceeded) -> Completion:
        """The teacher is over budget: the student's best sample, drawn now if there is none yet."""
        record.failed("teacher", error)
        samples = list(record.samples)
        if not any(s.action for s in samples):
            await self.side.demonstrate(record.situation, "student", request, record)
            samples, _ = await self.side.vote(FIRST_SAMPLE, record.situation, 1, request, record)
        votes = voting.tally(samples)
        record.voted(votes, samples)
        best = voting.winner(samples, votes)
        if best is None:
            raise error
        record.accepted(best, "the teacher is over budget")
        return record.completion([best.message])

    def on_close(self, closer: Callable[[], object]) -> None:
        """Call `closer()` when the cascade is closed; last in, first out."""
        self.life.add(closer)

    def close(self) -> None:
        """Wait for shadows and audits under way, flush the records, release database, connections and threads.

        Shadows have `shadow.timeout_seconds` to end; those of a loop that no longer runs, or of the very loop that this
        is called in, are not waited for. A second call does nothing. Steps raise `CascadeClosed` from then on.
        """
        self.life.close()

    async def aclose(self) -> None:
        """The same without blocking the running loop, whose shadows are waited for as well."""
        await self.shadows.settle()
        await self.audits.settle()
        await close_models(self.life.models)
        await apart(self.life.close)
        dismiss()

    def __enter__(self) -> Cascade:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Cascade:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
