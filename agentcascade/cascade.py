"""Cascade: the public face of the middleware, which starts episodes and is closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from agentcascade import conversation
from agentcascade._util.threads import apart, dismiss
from agentcascade.episodes.episode import Episode
from agentcascade.lifetime import close_models
from agentcascade.protocols import ChatModel
from agentcascade.step.context import ContextParts, StepContext
from agentcascade.step.engine import Engine, EngineState
from agentcascade.step.request import Request
from agentcascade.types import Account, Call, Completion, Decision, Delta, Message, Mode, Situation, Tool, new_id

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank
    from agentcascade.config.load import CascadeConfig
    from agentcascade.episodes.keywords import EpisodeKeywords
    from agentcascade.episodes.sync import SyncEpisode

__all__ = ["Cascade"]


class Cascade:
    """The middleware: models, bank, router and recorder, put together. Make one with `agentcascade.build(config)`.

    The mode of an episode says who takes its steps: ``cascade``, where the samples of the student agree the student,
    else the teacher; ``shadow`` the teacher, with the student behind it; ``collect`` the teacher, whose successes are
    banked; ``teacher`` and ``student`` that one alone.

    Args:
        context: Everything that its steps are made with; nothing is set afterwards.
        state: What it shares with the cascade that it is a twin of (`twin`).

    >>> from agentcascade import ScriptedModel, build
    >>> teacher, student = ScriptedModel(["look"]), ScriptedModel(["look"], name="cheap")
    >>> with build(teacher=teacher, student=student, retrieval={"k": 0}) as cascade:
    ...     episode = cascade.sync_episode(goal="find the mug")
    ...     answer = episode.complete([{"role": "user", "content": "You are in a kitchen."}])
    >>> answer.choices[0].message.content, answer.agentcascade.answered_by, answer.agentcascade.agreement
    ('look', 'student', 1.0)
    """

    def __init__(self, context: StepContext, state: EngineState | None = None) -> None:
        self._engine = Engine(context, state)

    @property
    def engine(self) -> Engine:
        """The engine that takes its steps."""
        return self._engine

    @property
    def context(self) -> StepContext:
        """The context that its steps are made with."""
        return self._engine.context

    @property
    def config(self) -> CascadeConfig:
        """The configuration."""
        return self.context.config

    @property
    def name(self) -> str:
        """Its name among `cascades` of the configuration, else ``default``."""
        return self.context.name

    @property
    def bank(self) -> Bank | None:
        """The bank of demonstrations; None where nothing is retrieved or collected."""
        return self.context.bank

    def episode(self, goal: str = "", **keywords: Unpack[EpisodeKeywords]) -> Episode:
        """Start an episode.

        Args:
            goal: The task in words; default: the first user message.
            keywords: ``plan``, ``category``, ``id``, ``namespace``, ``mode``, ``seed``, ``accounts``, ``stateless``:
                see `Episode`.

        Raises:
            ConfigError: `mode` needs a model that the cascade lacks.
        """
        return Episode(self._engine, goal=goal, **keywords)

    def sync_episode(self, goal: str = "", **keywords: Unpack[EpisodeKeywords]) -> SyncEpisode:
        """Start a blocking episode, for programs without an event loop.

        Args:
            goal: The task in words; default: the first user message.
            keywords: Those of `episode`.

        Raises:
            ConfigError: `mode` needs a model that the cascade lacks.
            CascadeClosed: It was closed.
        """
        from agentcascade.episodes.sync import SyncEpisode

        return SyncEpisode(self._engine, goal=goal, **keywords)

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
        """Answer one model call of an agent. An `Episode` does so with its goal, plan and id.

        Args:
            messages: The whole conversation, in OpenAI's shape.
            situation: What the step is decided on; default: read off the messages.
            mode: Default: the configured one.
            tools: Definitions of tools that may be called, in OpenAI's shape.
            seed: Of the student's samples; default: the configured one.
            options: Keywords of `Episode.complete`, by name.
            before: Calls made for this step already, which its bill includes.
            n: Answers, from 1. Several are not one action: they all come from the teacher.
            on_delta: Gets the parts of a teacher's answer as they come; of a student's it gets nothing.
            accounts: Budgets that the step's calls must fit into, beside the configured ones.

        Returns:
            The chosen message, as a completion that holds all tokens of the model that answered, and the decision.

        Raises:
            InvalidRequest: Messages or options cannot be used.
            BudgetExceeded: A call could cost more than is left.
            CascadeClosed: The cascade was closed.
            TimeoutError: Past `deadline_seconds`.
            Exception: The provider's own error, when the teacher fails.
        """
        context = self.context
        conversation.check(messages)
        if situation is None:
            situation = await conversation.read_off_loop(
                messages, context.actions, namespace=context.config.bank.namespace
            )
        if not situation.episode:
            situation = situation.model_copy(update={"episode": new_id("ep")})
        seed = context.config.seed if seed is None else seed
        request = Request(messages, tools, seed, dict(options or {}), n, on_delta, tuple(accounts))
        outcome = await self._engine.step(situation, request, mode or context.config.mode, before)
        return outcome.completion, outcome.decision

    def twin(self, **parts: Unpack[ContextParts]) -> Cascade:
        """The same cascade with other parts of its context; it is closed with this one.

        Args:
            parts: Fields of `StepContext`, such as ``teacher``, ``student``, ``router`` or ``observer``.

        Raises:
            TypeError: A part is no field of `StepContext`.

        >>> from agentcascade import ScriptedModel, build
        >>> with build(teacher=ScriptedModel(["look"]), mode="teacher") as cascade:
        ...     cascade.twin(teacher=ScriptedModel(["wait"], name="another")).context.teacher.name
        'another'
        """
        engine = self._engine.twin(**parts)
        return Cascade(engine.context, engine.state)

    async def settle(self, *, batches: bool = False) -> None:
        """Wait for the shadows and audits under way.

        Args:
            batches: Send the audits that wait for a batch (``audit.batch``) too, and wait for their answers, which may
                take a day. Closing gives them up.
        """
        await self._engine.wait()
        if batches and self._engine.state.rounds is not None:
            await self._engine.state.rounds.wait()

    def on_close(self, closer: Callable[[], object]) -> None:
        """Call a function when the cascade is closed; last in, first out.

        Args:
            closer: Takes nothing; what it returns is passed over.
        """
        self._engine.state.life.add(closer)

    def close_with(self, models: Sequence[ChatModel]) -> None:
        """Close the connections of models when the cascade is closed.

        Args:
            models: Those that it opened itself.
        """
        self._engine.state.life.models.extend(models)

    def close(self) -> None:
        """Wait for shadows and audits under way, flush the records, release database, connections and threads.

        Shadows have `shadow.timeout_seconds` to end; those of a loop that no longer runs, or of the very loop that this
        is called in, are not waited for. A second call does nothing. Steps raise `CascadeClosed` from then on.
        """
        self._engine.state.life.close()

    async def aclose(self) -> None:
        """`close` without blocking the running loop, whose shadows and audits are waited for as well."""
        life = self._engine.state.life
        await self.settle()
        await close_models(life.models)
        await apart(life.close)
        dismiss()

    def __enter__(self) -> Cascade:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Cascade:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
