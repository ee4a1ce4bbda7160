"""One step of an agent: retrieve, sample, agree, accept or defer, record.

The student is shown what the teacher did in similar situations and sampled a few times. Where the samples agree on
the action, it is taken; where they do not, the teacher takes this one step and the next one starts with the student
again (Sarukkai et al. 2025, section "self-consistency cascades").

Nothing on the student's side can fail the step: whatever breaks there is recorded and the teacher answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentcascade import agreement, conversation, prompts
from agentcascade.actions import ActionFormat, AutoActions, Validator
from agentcascade.errors import ConfigError, EmptyCompletion, InvalidAction, InvalidRequest
from agentcascade.protocols import ChatModel, Recorder, Router, TokenCounter, Verdict
from agentcascade.record import StepRecord
from agentcascade.types import Call, Completion, Decision, Message, Mode, Sample, Situation, Tally, Tool, new_id

if TYPE_CHECKING:
    from agentcascade.bank import Bank
    from agentcascade.config import CascadeConfig
    from agentcascade.episode import Episode
    from agentcascade.sync import SyncEpisode


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
    ) -> None:
        self.config, self.router, self.count = config, router, count
        self.teacher, self.student, self.bank, self.recorder = teacher, student, bank, recorder
        self.actions = actions or AutoActions()
        self.validators = tuple(validators)
        self._closers: list[Callable[[], object]] = []

    def check_mode(self, mode: Mode) -> None:
        """Raises `ConfigError` when the mode lacks a model that it needs."""
        if mode in ("teacher", "collect", "cascade") and self.teacher is None:
            raise ConfigError(f"mode '{mode}' needs a teacher: set teacher.name, e.g. 'anthropic/claude-sonnet-4-5'")
        if mode in ("cascade", "student") and self.student is None:
            raise ConfigError(f"mode '{mode}' needs a student: set student.name, e.g. 'openai/gpt-4.1-mini'")

    def episode(self, goal: str = "", **options: Any) -> Episode:
        """Start an episode; see `Episode` for the options (id, namespace, mode, plan)."""
        from agentcascade.episode import Episode

        return Episode(self, goal=goal, **options)

    def sync_episode(self, goal: str = "", **options: Any) -> SyncEpisode:
        """The same for programs without an event loop."""
        from agentcascade.sync import SyncEpisode

        return SyncEpisode(self, goal=goal, **options)

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
    ) -> tuple[Completion, Decision]:
        """Answer one model call of an agent.

        Returns the one message that was chosen (as a `Completion` that holds all tokens of the model that answered)
        and the `Decision`, whose bill includes the calls made `before`. Raises `InvalidRequest` for unusable
        messages, `TimeoutError` past the deadline, and the provider's own error when the teacher fails.
        """
        conversation.check(messages)
        mode = mode or self.config.mode
        self.check_mode(mode)
        if situation is None:
            situation = conversation.read(messages, self.actions, namespace=self.config.bank.namespace)
        if not situation.episode:
            situation = situation.model_copy(update={"episode": new_id("ep")})
        record = StepRecord(situation, mode, before)
        request = Request(messages, tools, self.config.seed if seed is None else seed, dict(options or {}))
        try:
            async with asyncio.timeout(self.config.deadline_seconds):
                completion = await self._answer(situation, mode, request, record)
        except BaseException as error:
            record.raised(error)
            raise
        finally:
            decision = record.close(self.teacher)
            if self.recorder is not None:
                self.recorder.record(decision)
        return completion, decision

    async def _answer(self, situation: Situation, mode: Mode, request: Request, record: StepRecord) -> Completion:
        if mode in ("teacher", "collect"):
            return await self._teacher(request, record, f"mode {mode}")
        try:
            async with asyncio.timeout(self.config.sampling.timeout_seconds):
                chosen = await self._student(situation, mode, request, record)
        except InvalidRequest:
            raise
        except Exception as error:
            if self.teacher is None:
                raise
            record.failed("student", error)
            chosen = None
        if chosen is not None:
            return chosen
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
        router: Router = self.router if mode == "cascade" else _FIRST_SAMPLE
        n = router.samples(situation)
        if n == 0:
            record.reason = f"router '{router.name}' chose the teacher"
            return None
        if not await self._demonstrate(situation, mode, request, record):
            return None
        samples, verdict = await self._vote(router, situation, n, request, record)
        votes = agreement.tally(samples)
        record.voted(votes, samples)
        chosen = agreement.winner(samples, votes)
        if chosen is None and self.teacher is None:
            chosen = next((s for s in samples if s.message != _NOTHING), None)
            if chosen is not None:
                record.accepted(chosen, f"no valid action and no teacher: {chosen.invalid}")
                return record.completion([chosen.message])
        if verdict is not Verdict.ACCEPT or chosen is None or chosen.action is None:
            record.reason = f"agreement {votes.top[1] if votes.top else 0}/{votes.total}"
            return None
        record.accepted(chosen, f"agreement {votes.counts[chosen.action.key]}/{votes.total}")
        return record.completion([chosen.message])

    async def _demonstrate(self, situation: Situation, mode: Mode, request: Request, record: StepRecord) -> bool:
        """Retrieve and put the demonstrations into the prompt; False to defer for want of them."""
        if self.bank is None or self.config.retrieval.k == 0:
            return True
        settings = self.config.prompt
        found = await self.bank.retrieve(situation, self.config.retrieval.k)
        record.embedded(found.embedding_seconds)
        prompt = prompts.build(request.messages, found.demonstrations, budget=settings.token_budget, count=self.count)
        record.demonstrated(prompt)
        if len(prompt.shown) < settings.min_demonstrations and mode == "cascade":
            record.reason = f"{len(prompt.shown)} demonstrations, {settings.min_demonstrations} needed"
            if prompt.dropped:
                record.reason += f" ({prompt.dropped} over prompt.token_budget {settings.token_budget})"
            return False
        request.prompt = prompt.messages
        return True

    async def _vote(
        self, router: Router, situation: Situation, n: int, request: Request, record: StepRecord
    ) -> tuple[list[Sample], Verdict]:
        """Sample until the router has a verdict: all at once, or no more at a time than could settle it."""
        assert self.student is not None
        choice = self.config.sampling.staged
        staged = choice == "always" or (choice == "auto" and not self.student.supports_n)
        samples: list[Sample] = []
        while True:
            votes, remaining = agreement.tally(samples), n - len(samples)
            verdict = router.judge(situation, votes, remaining) if samples else None
            if verdict is not None:
                return samples, verdict
            wave = agreement.next_wave(router, situation, votes, remaining) if staged else remaining
            for message in await self._sample(wave, len(samples), request, record):
                samples.append(self._parse(message, situation, request.tools))

    async def _sample(self, size: int, drawn: int, request: Request, record: StepRecord) -> list[Message]:
        """`size` student messages. Those that the model failed to give are empty: they vote for nothing."""
        assert self.student is not None
        settings = self.config.sampling
        with record.model_time():
            try:
                completion = await self.student.complete(
                    request.prompt,
                    n=size,
                    temperature=settings.temperature,
                    seed=request.seed + drawn,
                    tools=request.tools,
                    timeout=settings.timeout_seconds,
                    **request.options,
                )
            except EmptyCompletion as error:
                record.spent_by("student", "sample", error.completion)
                record.failed("student", error)
                return [_NOTHING] * size
        record.spent_by("student", "sample", completion)
        return [*completion.messages, *[_NOTHING] * size][:size]

    def _parse(self, message: Message, situation: Situation, tools: Sequence[Tool] | None) -> Sample:
        try:
            action = self.actions.parse(message, tools)
        except InvalidAction as error:
            return Sample(message=message, invalid=str(error))
        complaint = next((c for v in self.validators if (c := v(action, situation))), None)
        return Sample(message=message, action=None if complaint else action, invalid=complaint)

    async def _teacher(self, request: Request, record: StepRecord, reason: str) -> Completion:
        assert self.teacher is not None
        record.deferred(reason)
        shown = self.config.prompt.teacher_sees_demonstrations
        with record.model_time():
            try:
                completion = await self.teacher.complete(
                    request.prompt if shown else request.messages,
                    seed=request.seed,
                    tools=request.tools,
                    timeout=self.config.deadline_seconds,
                    **request.options,
                )
            except EmptyCompletion as error:
                record.spent_by("teacher", "act", error.completion)
                raise
        record.spent_by("teacher", "act", completion)
        record.acted(self._parse(completion.messages[0], record.situation, request.tools), shown)
        return record.completion([completion.messages[0]], completion.finish_reasons[:1])

    def on_close(self, closer: Callable[[], object]) -> None:
        """Call `closer()` when the cascade is closed; last in, first out."""
        self._closers.append(closer)

    def close(self) -> None:
        """Flush the records and release database and threads. A second call does nothing."""
        while self._closers:
            self._closers.pop()()

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Cascade:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Cascade:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Request:
    """What one step asks of a model: the caller's messages, and the same with demonstrations once there are some."""

    def __init__(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None, seed: int, options: dict[str, Any]
    ) -> None:
        self.messages, self.tools, self.seed, self.options = messages, tools, seed, options
        self.prompt = messages


class _FirstSample:
    """Mode ``student``: whatever it says is taken."""

    name = "student"

    def samples(self, situation: Situation) -> int:
        return 1

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        if remaining:
            return None
        return Verdict.ACCEPT if tally.counts else Verdict.DEFER


_FIRST_SAMPLE = _FirstSample()
_NOTHING: Message = {"role": "assistant", "content": ""}
