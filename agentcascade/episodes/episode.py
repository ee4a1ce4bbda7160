"""Episode: one run of an agent on one task, the steps so far, and what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentcascade import conversation
from agentcascade.billing.door import Tab
from agentcascade.episodes import drafting, judge
from agentcascade.episodes.banking import why_not_banked, without_failed
from agentcascade.episodes.keywords import checked_use, request, takes
from agentcascade.episodes.preparation import Prepared, prepare
from agentcascade.episodes.turns import AT_ONCE, Turn
from agentcascade.errors import BudgetExceeded, ConfigError, EpisodeClosed, InvalidRequest
from agentcascade.prompts import planning
from agentcascade.step.engine import Engine, StepOutcome
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.types import (
    Account,
    CacheUse,
    Call,
    Decision,
    Delta,
    Draft,
    EpisodeEnd,
    Message,
    Mode,
    Situation,
    Step,
    Tool,
    Trajectory,
    new_id,
    now,
)

if TYPE_CHECKING:
    from agentcascade.episodes.responses import CascadeCompletion
    from agentcascade.episodes.stream import Answer, StepStream
    from agentcascade.storage.drafts import UnfinishedEpisode

log = logging.getLogger("agentcascade.episodes")


class Episode:
    """Episode of an agent: answers the model calls of one run on one task; `finish` closes it.

    Make one with `Cascade.episode`. One call at a time: the steps of an agent are a sequence. In mode ``collect`` a
    successful episode is banked by `finish`.

    Args:
        engine: Takes the steps.
        goal: The task in words; default: the first user message.
        plan: How the agent means to reach the goal; default: none, or the teacher's (`collect.plan`).
        category: Kind of task, for routers that treat kinds differently.
        id: Names the episode in all records; default: a random one.
        namespace: Whose demonstrations, budgets and histories; default: `bank.namespace`.
        mode: Default: `mode` of the configuration, as `rollout` shares it out.
        seed: Of all sampling in the episode; default: `seed` of the configuration.
        accounts: Budgets that its calls must fit into, beside the configured ones.
        cache_use: What its calls say of the response cache, where one does not (``response_cache=…``).
        stateless: Read the steps so far off the messages at every call. In mode ``collect`` each step is then kept in
            the database, where `agentcascade.episodes.stateless.finish` finds it.

    Attributes:
        steps: The steps taken so far.
        decisions: What the cascade decided at each of them, with its bill.
        not_banked: After `finish`, why the bank did not grow; empty where it did.
        metadata: Of the trajectory that is banked, beside the episode's id.
        why: Why the teacher takes its steps, where the mode alone does not say it.

    Raises:
        ConfigError: `mode` needs a model that the cascade lacks.

    >>> import asyncio
    >>> from agentcascade import ScriptedModel, build
    >>> async def play():
    ...     async with build(teacher=ScriptedModel(["look"]), mode="teacher") as cascade:
    ...         episode = cascade.episode(goal="find the mug")
    ...         answer = await episode.complete([{"role": "user", "content": "You are in a kitchen."}])
    ...         await episode.finish(success=True)
    ...         return answer.choices[0].message.content, answer.agentcascade.answered_by
    >>> asyncio.run(play())
    ('look', 'teacher')
    """

    def __init__(
        self,
        engine: Engine,
        *,
        goal: str = "",
        plan: str = "",
        category: str = "",
        id: str | None = None,
        namespace: str | None = None,
        mode: Mode | None = None,
        seed: int | None = None,
        accounts: Sequence[Account] = (),
        cache_use: CacheUse = "auto",
        stateless: bool = False,
    ) -> None:
        self._engine = engine
        self._context = engine.context
        self.id: str = id or new_id("ep")
        self.goal: str = goal
        self.plan: str = plan
        self.category: str = category
        self.namespace: str = namespace or engine.context.config.bank.namespace
        self.mode: Mode = mode or engine.mode_for(self.id)
        self.seed: int = engine.context.config.seed if seed is None else seed
        self.steps: list[Step] = []
        self.decisions: list[Decision] = []
        self._preparation: list[Call] = []
        self._thought = ""
        self._history = conversation.History(self._context.actions)
        self._model = ""
        self._closed = False
        self.not_banked: str = ""
        self.metadata: dict[str, str] = {}
        self.why: str = ""
        self._collecting: tuple[Account, ...] = ()
        self._may_collect = mode is None and self.mode == "cascade" and self._context.collection is not None
        self._started = now()
        self._last_decision, self._taken = "", 0
        self._turn: Turn = AT_ONCE
        self.accounts: tuple[Account, ...] = tuple(accounts)
        self._stateless, self._cache_use = stateless, cache_use
        engine.check_mode(self.mode)

    def _repr_html_(self) -> str:
        """In a notebook: its steps, with who took each and why."""
        from agentcascade.episodes.notebook import html_of_episode

        return html_of_episode(f"Episode {self.id}, mode {self.mode}: {self.goal}", self.steps, self.decisions)

    @classmethod
    def restored(
        cls, engine: Engine, unfinished: UnfinishedEpisode, accounts: Sequence[Account] = (), turn: Turn = AT_ONCE
    ) -> Episode:
        """Restore an `unfinished` episode from the database, to be finished by `engine` within `accounts`.

        What `finish` asks of the database takes a `turn`, the judge, a model, does not.
        """
        episode = cls(
            engine,
            goal=unfinished.goal,
            plan=unfinished.plan,
            id=unfinished.episode,
            namespace=unfinished.namespace,
            mode=unfinished.mode,
            accounts=accounts,
        )
        episode.steps = list(unfinished.steps)
        episode._model = unfinished.model
        episode._last_decision = unfinished.decision
        episode._taken = unfinished.taken
        episode._started = unfinished.started or episode._started
        episode._turn = turn
        return episode

    @takes(request)
    async def complete(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] | None = None, **options: Any
    ) -> CascadeCompletion:
        """The next assistant message, as an OpenAI `ChatCompletion` with the `Decision` in its `agentcascade` field.

        Args:
            messages: The whole conversation, as for any chat API.
            tools: Definitions of tools that may be called, in OpenAI's shape.
            options: ``temperature``, ``max_tokens``, ``stop`` and so on: `agentcascade.episodes.keywords.request` lists
                them. What it does not list goes to the teacher's provider as it is.

        Returns:
            The answer, with the tokens of the model that gave it; the bill of the whole step is in ``agentcascade``.

        Raises:
            EpisodeClosed: After `finish`, or when the cascade was closed.
            InvalidRequest: Messages or options cannot be used. To stream, use `stream`.
            BudgetExceeded: A call could cost more than is left.
            TimeoutError: Past `deadline_seconds`.
            Exception: The provider's own error, when the teacher fails.
        """
        from agentcascade.episodes.responses import chat_completion

        if options.pop("stream", None):
            raise InvalidRequest("stream=True: use episode.stream(messages, ...) and read its chunks with `async for`")
        answer = await self.answer(messages, tools=tools, options=options)
        return chat_completion(*answer)

    @takes(request)
    def stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        render_decision: Callable[[Decision], Any] | None = None,
        **options: Any,
    ) -> StepStream:
        """Stream the next assistant message as chunks; it starts a task, so a loop must be running.

        Nothing is shown before the verdict; a deferral streams live from the teacher. Closing the stream cancels the
        step.

        Args:
            messages: The whole conversation, as for `complete`.
            tools: Definitions of tools that may be called, in OpenAI's shape.
            render_decision: Makes the field ``agentcascade`` of the last chunk; default: the decision itself.
            options: As for `complete`.

        Returns:
            Chunks in OpenAI's shape, as plain data (`responses.chunk` makes its objects of them); the last one has
            ``usage`` and, in ``agentcascade``, the decision. Reading them raises what `complete` raises.
        """
        from agentcascade.episodes.stream import StepStream

        apart = bool((options.pop("stream_options", None) or {}).get("include_usage"))
        options.pop("stream", None)
        teacher = self._context.teacher
        return StepStream(
            lambda on_delta: self.answer(messages, tools=tools, options=options, on_delta=on_delta),
            teacher=teacher.name if teacher else "",
            usage_apart=apart,
            render_decision=render_decision or (lambda decision: decision),
        )

    async def answer(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        options: Mapping[str, Any] | None = None,
        on_delta: Callable[[Delta], None] | None = None,
    ) -> Answer:
        """The next step as (completion, messages for the agent, decision).

        Args:
            messages: The whole conversation, as for `complete`.
            tools: Definitions of tools that may be called, in OpenAI's shape.
            options: Those of `complete`, by name.
            on_delta: Gets the parts of a teacher's answer as they come; of a student's it gets nothing.

        Returns:
            The model's completion, the messages that the agent is to see, and the decision.

        Raises:
            Exception: As `complete` does.
        """
        if self._closed:
            raise EpisodeClosed(f"episode {self.id} was finished: start a new one with cascade.episode()")
        self._engine.check_open()
        asked = dict(options or {})
        n = asked.pop("n", None)
        n = 1 if n is None else n
        if not isinstance(n, int) or n < 1:
            raise InvalidRequest(f"n is {n!r}: it is a number of answers, at least 1")
        asked.pop("stream_options", None)
        said = asked.pop("response_cache", None)
        cache_use = self._cache_use if said is None else checked_use(said, "response_cache")
        messages = list(messages)
        situation = await self._situation(messages)
        if self._may_collect:
            await self._consider(situation)
        if self._is_drafted and self.steps and self._context.config.collect.plan:
            await self._remember_plan()
            situation = situation.model_copy(update={"plan": self.plan})
        if not self.steps and self.mode == "collect":
            await self._prepare(messages, situation, cache_use)
            situation = situation.model_copy(update={"plan": self.plan})
        sent = planning.with_plan(messages, self.plan, self._context.prompts) if self.plan else messages
        opening = self._thought if not self.steps else ""
        if opening:
            sent = planning.opening_with(sent, opening, self._context.prompts)
        request = Request(
            sent,
            tools,
            self.seed + 1000 * len(self.steps),
            asked,
            n,
            on_delta=None if opening else on_delta,
            accounts=self.accounts,
            cache_use=cache_use,
            why=self.why,
            known=self._history.known,
        )
        outcome = await self._step(situation, request)
        completion, decision = outcome.completion, outcome.decision
        answers = list(completion.messages)
        reasoning, action = outcome.reasoning, outcome.action
        if opening:
            answers[0] = planning.opened(answers[0], opening)
            reasoning, action = await conversation.split_off_loop(answers[0], self._context.actions)
        await self._took(
            Step(observation=situation.observation, reasoning=reasoning, action=action), situation, outcome
        )
        from agentcascade.episodes.stream import Answer

        return Answer(completion, answers, decision)

    async def _consider(self, situation: Situation) -> None:
        """Ask once whether this episode is wanted as a demonstration: then the teacher plays it, in mode collect."""
        self._may_collect = False
        assert self._context.collection is not None
        wanted = await self._context.collection.consider(situation)
        if wanted is not None:
            self.mode, self.why = "collect", wanted.why
            self.accounts, self._collecting = (*self.accounts, *wanted.accounts), wanted.accounts

    async def _step(self, situation: Situation, request: Request) -> StepOutcome:
        """The engine's step; where the budget of collection is used up, the episode goes on as any other."""
        try:
            return await self._engine.step(situation, request, self.mode, self._take_preparation())
        except BudgetExceeded as error:
            if not self._collecting or error.scope != "collection":
                raise
            log.info("episode %s is no demonstration any more: %s", self.id, error)
            self.accounts = tuple(account for account in self.accounts if account not in self._collecting)
            self.mode, self.why, self._collecting = "cascade", "", ()
            if self._context.collection is not None:
                self._context.collection.give_up(situation)
            return await self._engine.step(situation, replace(request, accounts=self.accounts, why=""), self.mode)

    async def _situation(self, messages: Sequence[Message]) -> Situation:
        given = {"goal": self.goal, "plan": self.plan, "namespace": self.namespace, "episode": self.id}
        if self._stateless:
            conversation.check(messages)
            situation = await conversation.read_off_loop(messages, self._context.actions, **given)
        else:
            situation = await self._history.read(messages, **given)
        if self._stateless:
            self.steps = list(situation.history)
        return situation.model_copy(update={"category": self.category}) if self.category else situation

    async def _took(self, step: Step, situation: Situation, outcome: StepOutcome) -> None:
        self.goal = self.goal or situation.goal
        self.steps.append(step)
        self.decisions.append(outcome.decision)
        self._last_decision = outcome.decision.id
        self._model = model = outcome.completion.model
        if self._is_drafted and self._context.recorder is not None:
            draft = Draft(
                namespace=self.namespace,
                episode=self.id,
                position=len(self.steps) - 1,
                goal=self.goal,
                plan=self.plan,
                mode=self.mode,
                model=model,
                cascade=self._context.name,
                **step.model_dump(),
            )
            await drafting.keep(self._context.recorder, draft)

    @property
    def _is_drafted(self) -> bool:
        """Whether its steps are kept for whoever is asked next, or told how it ended: another replica, perhaps."""
        return self._stateless and self.mode == "collect"

    async def _prepare(self, messages: Sequence[Message], situation: Situation, cache_use: CacheUse) -> None:
        """The plan and the first thought, where the configuration asks for them: on the bill of the first step."""
        known = Prepared(self.plan, self._thought)
        request = Request(messages, seed=self.seed, accounts=self._accounts(situation), cache_use=cache_use)
        record = StepRecord(situation, self.mode, self._take_preparation(), self._context.name)
        try:
            await prepare(self._context, known, request, record)
        finally:
            self.plan, self._thought = known.plan, known.thought
        self._preparation = list(record.calls)

    async def _remember_plan(self) -> None:
        from agentcascade.storage.drafts import read_plan

        if not self.plan and self._context.database is not None:
            self.plan = await read_plan(self._context.database, self.namespace, self.id)

    def _accounts(self, situation: Situation) -> tuple[Account, ...]:
        return (*self._context.config.budgets.accounts(situation), *self.accounts)

    def _take_preparation(self) -> list[Call]:
        taken, self._preparation = self._preparation, []
        return taken

    def trajectory(self, success: bool) -> Trajectory:
        """The trajectory so far, without the steps that `collect.drop_observations` rules out.

        Args:
            success: Whether it reached its goal.
        """
        return Trajectory(
            namespace=self.namespace,
            goal=self.goal,
            plan=self.plan,
            category=self.category,
            steps=without_failed(self.steps, self._context.config.collect.drop_observations),
            success=success,
            model=self._model,
            metadata={**self.metadata, "episode": self.id},
        )

    async def finish(self, success: bool | None = None) -> bool:
        """Close the episode; in mode ``collect`` a success is banked.

        When judge or banking fails, the episode stays open and `finish` can be called again.

        Args:
            success: Whether it reached its goal; default: what the cascade's judge says.

        Returns:
            Whether the bank grew; `not_banked` says why it did not.

        Raises:
            EpisodeClosed: It was finished already.
            CascadeClosed: A judge is to be asked, and the cascade was closed.
            InvalidRequest: Neither `success` nor a judge says how it ended.
            StorageError: The bank cannot be written.
        """
        if self._closed:
            raise EpisodeClosed(f"episode {self.id} was finished already")
        judged: tuple[Call, ...] = ()
        if success is None:
            success, judged = await self._judged()
        async with self._turn:
            return await self._finish(success, judged)

    async def _finish(self, success: bool, judged: tuple[Call, ...]) -> bool:
        banked = False
        if self.mode == "collect" and success and self.steps:
            if self._context.bank is None:
                raise ConfigError(
                    "mode 'collect' needs a bank to put demonstrations into: make the cascade with build()"
                )
            banked = await self._context.bank.add(self.trajectory(success))
        self._closed = True
        self.not_banked = why_not_banked(banked=banked, success=success, mode=self.mode, steps=len(self.steps))
        if success and not banked:
            log.info("episode %s is not banked: %s", self.id, self.not_banked)
        if self._context.failures is not None:
            situation = Situation(
                goal=self.goal,
                category=self.category,
                namespace=self.namespace,
                episode=self.id,
                history=tuple(self.steps),
            )
            await self._context.failures.note_end(situation, success)
        if self._context.recorder is not None:
            self._context.recorder.record_end(self._end(success, judged))
        return banked

    async def _judged(self) -> tuple[bool, tuple[Call, ...]]:
        """The judge's word and its bill; where it fails, what it did cost is recorded all the same."""
        context = self._context
        if context.judge is None:
            raise InvalidRequest("finish needs success=True or False: no judge is configured (judge.model)")
        self._engine.check_open()
        situation = Situation(goal=self.goal, namespace=self.namespace, episode=self.id)
        tab, accounts, seconds = Tab(), self._accounts(situation), context.config.deadline_seconds
        try:
            verdict = await judge.ask(
                context.judge, self.trajectory(False), context.door, accounts, tab, seconds, self._cache_use
            )
        except BaseException:
            if tab.calls and context.recorder is not None:
                context.recorder.record_end(self._end(None, tuple(tab.calls)))
            raise
        return verdict.success, verdict.calls

    def _end(self, success: bool | None, judged: tuple[Call, ...]) -> EpisodeEnd:
        return EpisodeEnd(
            episode=self.id,
            namespace=self.namespace,
            goal=self.goal,
            plan=self.plan,
            mode=self.mode,
            success=success,
            steps=self._taken or len(self.steps),
            started_at=self._started,
            decision=self._last_decision,
            calls=judged,
        )
