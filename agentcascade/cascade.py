"""The cascade: the public face of the middleware, which starts episodes and is closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentcascade import conversation
from agentcascade._util.threads import apart, dismiss
from agentcascade.episodes.episode import Episode
from agentcascade.lifetime import close_models
from agentcascade.protocols import ChatModel
from agentcascade.step.context import StepContext
from agentcascade.step.engine import Engine, EngineState
from agentcascade.step.request import Request
from agentcascade.types import Account, Call, Completion, Decision, Delta, Message, Mode, Situation, Tool, new_id

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank
    from agentcascade.config.load import CascadeConfig
    from agentcascade.episodes.sync import SyncEpisode


class Cascade:
    """The middleware: models, bank, router and recorder, put together. Make one with `agentcascade.build(config)`.

    `router` takes the step in mode ``cascade``; ``student`` needs no teacher, ``teacher`` and ``collect`` no student.

    Args:
        context: Everything that its steps are made with; nothing is set afterwards.
        state: What it shares with the cascade that it is a twin of (`twin`).
    """

    def __init__(self, context: StepContext, state: EngineState | None = None) -> None:
        self._engine = Engine(context, state)

    @property
    def engine(self) -> Engine:
        """What takes its steps."""
        return self._engine

    @property
    def context(self) -> StepContext:
        """What its steps are made with."""
        return self._engine.context

    @property
    def config(self) -> CascadeConfig:
        return self.context.config

    @property
    def name(self) -> str:
        return self.context.name

    @property
    def bank(self) -> Bank | None:
        return self.context.bank

    def episode(self, goal: str = "", **options: Any) -> Episode:
        """Start an episode; see `Episode` for the options (id, namespace, mode, plan)."""
        return Episode(self._engine, goal=goal, **options)

    def sync_episode(self, goal: str = "", **options: Any) -> SyncEpisode:
        """The same for programs without an event loop."""
        from agentcascade.episodes.sync import SyncEpisode

        return SyncEpisode(self._engine, goal=goal, **options)

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

    def twin(self, **parts: Any) -> Cascade:
        """The same cascade with other `parts` of its context (``teacher=…``), closed with this one.

        Raises `TypeError` for what is no field of `StepContext`.
        """
        engine = self._engine.twin(**parts)
        return Cascade(engine.context, engine.state)

    async def settle(self) -> None:
        """Wait for shadows and audits under way."""
        await self._engine.wait()

    def on_close(self, closer: Callable[[], object]) -> None:
        """Call `closer()` when the cascade is closed; last in, first out."""
        self._engine.state.life.add(closer)

    def close_with(self, models: Sequence[ChatModel]) -> None:
        """Close the connections of these models when the cascade is closed."""
        self._engine.state.life.models.extend(models)

    def close(self) -> None:
        """Wait for shadows and audits under way, flush the records, release database, connections and threads.

        Shadows have `shadow.timeout_seconds` to end; those of a loop that no longer runs, or of the very loop that this
        is called in, are not waited for. A second call does nothing. Steps raise `CascadeClosed` from then on.
        """
        self._engine.state.life.close()

    async def aclose(self) -> None:
        """The same without blocking the running loop, whose shadows are waited for as well."""
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
