"""Control of a wrapped OpenAI client: the episode that a call belongs to, the teacher that it names, its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from agentcascade._util import known_secrets
from agentcascade._util.recent_cache import RecentCache
from agentcascade.assembly.components import OWN
from agentcascade.episodes import identity, stateless
from agentcascade.episodes.responses_api import Shelf
from agentcascade.episodes.sync import loop_of
from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.models.endpoint import EndpointQuirks
from agentcascade.models.openai_client import ClientModel
from agentcascade.models.pricing import PriceTable
from agentcascade.step.effort_ceiling import split_ceiling
from agentcascade.storage.responses import ResponseStore

if TYPE_CHECKING:
    from anthropic import (
        Anthropic,
        AnthropicBedrock,
        AnthropicVertex,
        AsyncAnthropic,
        AsyncAnthropicBedrock,
        AsyncAnthropicVertex,
    )
    from openai import AsyncOpenAI, OpenAI

    from agentcascade.cascade import Cascade
    from agentcascade.episodes.episode import Episode
    from agentcascade.protocols import ChatModel
    from agentcascade.step.engine import Engine
    from agentcascade.types import Message

    Client: TypeAlias = (
        OpenAI
        | AsyncOpenAI
        | Anthropic
        | AsyncAnthropic
        | AnthropicBedrock
        | AsyncAnthropicBedrock
        | AnthropicVertex
        | AsyncAnthropicVertex
    )

TRANSPORT = ("extra_headers", "extra_query", "extra_body", "timeout")
"""Arguments that only the teacher's own call takes."""
TEACHERS = 32
"""Models, each with its client and fixed arguments, that a wrapped client keeps ready: most programs name one."""
SAMPLING = ("temperature", "seed")
"""Arguments that the teacher gets from the program alone; the cascade has its own for the student."""


class Running:
    """Episode that calls belong to inside ``with client.agentcascade.episode(…)``; `id` is set at the first of them."""

    def __init__(self, id: str | None, goal: str) -> None:
        self.id: str | None = id
        self.goal: str = goal
        self.not_banked = ""
        """After `Wrapped.finish`: why the bank did not grow."""


class Wrapped:
    """Control of a wrapped client, its attribute ``agentcascade``: names and finishes episodes, closes the cascade.

    Args:
        cascade: Answers the client's chat completions.
    """

    @classmethod
    def of(cls, client: Client) -> Wrapped:
        """The control of a client that `wrap` gave: ``client.agentcascade``, as type checkers read it.

        Raises:
            ConfigError: The client was not wrapped.
        """
        control = getattr(client, "agentcascade", None)
        if not isinstance(control, cls):
            raise ConfigError("this client was not wrapped: use what agentcascade.wrap(client, …) returned")
        return control

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self._teachers: RecentCache[tuple[Any, ...], ClientModel] = RecentCache(TEACHERS)
        self._twins: Callable[[Any, Any], Engine] = lru_cache(maxsize=TEACHERS)(
            lambda engine, teacher: engine.twin(teacher=teacher)
        )
        self._endpoints = lru_cache(maxsize=256)(lambda base_url, model: EndpointQuirks())
        self._running: ContextVar[Running | None] = ContextVar("agentcascade_episode", default=None)

    @contextmanager
    def episode(self, id: str | None = None, goal: str = "") -> Iterator[Running]:
        """Name the episode that every call inside belongs to; after the first one, `.id` says which it is.

        Args:
            id: Names the episode in all records; default: read off the conversation.
            goal: The task in words; default: the first user message.
        """
        running = Running(id, goal)
        token = self._running.set(running)
        try:
            yield running
        finally:
            self._running.reset(token)

    def finish(self, episode: str | Running, success: bool | None = None) -> bool:
        """Finish an episode; in mode ``collect`` a success is banked.

        Args:
            episode: Its id, or what `episode` gave.
            success: Whether it reached its goal; default: what the cascade's judge says.

        Returns:
            Whether the bank grew. Why it did not is in `not_banked` of what `episode` gave, and in the log (at level
            INFO, ``agentcascade.episodes``).

        Raises:
            UnknownEpisode: No call was made in it.
            InvalidRequest: It names no episode, or neither `success` nor a judge says how it ended.
            ConfigError: The cascade has no database.
        """
        return loop_of(self.cascade.engine.state.life).run(self.afinish(episode, success))

    async def afinish(self, episode: str | Running, success: bool | None = None) -> bool:
        """`finish` without blocking the running loop."""
        cascade = self.cascade
        name = episode.id if isinstance(episode, Running) else episode
        if not isinstance(name, str):
            raise InvalidRequest(
                "finish needs an episode that made a call: its id, or what client.agentcascade.episode() gave"
            )
        if cascade.context.database is None:
            raise ConfigError("episodes are finished in the database: this cascade has none")
        unfinished = await stateless.find_recorded(cascade.engine, cascade.config.bank.namespace, name)
        reason = await stateless.finish_or_say(cascade.engine, unfinished, success)
        if isinstance(episode, Running):
            episode.not_banked = reason
        return not reason

    def close(self) -> None:
        """Flush the records and release the database. The client itself stays open."""
        self.cascade.close()

    async def aclose(self) -> None:
        """`close` without blocking the running loop."""
        await self.cascade.aclose()

    def __enter__(self) -> Wrapped:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(
        self, client: Any, create: Callable[..., Any], arguments: dict[str, Any]
    ) -> tuple[Episode, dict[str, Any]]:
        """Begin a call of ``chat.completions.create``: its episode, and the request to make of it."""
        options = {k: v for k, v in arguments.items() if not is_omitted(v)}
        if missing := [k for k in ("messages", "model") if options.get(k) is None]:
            raise TypeError(f"create: missing required argument{'s' * (len(missing) > 1)}: {' and '.join(missing)}")
        messages = [plain_message(m) for m in options.pop("messages")]
        model, metadata = plain_name(options.pop("model")), options.pop("metadata", None)
        fixed, ceiling = split_ceiling({k: options.pop(k) for k in TRANSPORT if k in options})
        options |= ceiling
        fixed |= {k: options[k] for k in SAMPLING if k in options}
        if provider_metadata := identity.provider_metadata(metadata):
            fixed["metadata"] = provider_metadata
        episode = self.episode_of(self._teacher(client, create, model, fixed), messages, metadata, fixed)
        stream = bool(options.pop("stream", False))
        return episode, {**options, "messages": messages, "stream": stream}

    def _teacher(self, client: Any, create: Callable[..., Any], model: Any, fixed: Mapping[str, Any]) -> ClientModel:
        """The model that a call names; the same object for calls that ask for it in the same way."""
        asked = tuple((k, type(v), v) for k, v in fixed.items())
        own = getattr(client, "api_key", None)
        key = type(create), create, model, own, str(client.base_url), asked  # wrapt's wrappers equal what they wrap
        try:
            teacher = self._teachers.get(key)
        except TypeError:  # headers and the like have no hash
            return self._make_teacher(client, create, model, fixed)
        if teacher is None:
            teacher = self._make_teacher(client, create, model, fixed)
            self._teachers.put(key, teacher)
        known_secrets.register(own if isinstance(own, str) else None)  # again: others may have taken its place
        return teacher

    def _make_teacher(
        self, client: Any, create: Callable[..., Any], model: Any, fixed: Mapping[str, Any]
    ) -> ClientModel:
        endpoint = self.endpoint(client, str(model))
        return ClientModel(client, model, prices=self.prices, fixed=fixed, exact=True, endpoint=endpoint, create=create)

    def endpoint(self, client: Any, model: str) -> EndpointQuirks:
        """What is known of a model at the client's server."""
        return self._endpoints(str(client.base_url), model)

    def episode_of(
        self,
        teacher: ChatModel,
        messages: Sequence[Message],
        metadata: Mapping[str, Any] | None,
        fixed: Mapping[str, Any],
        *,
        continues: str = "",
    ) -> Episode:
        """The episode of a call: named by the program, the one that it `continues`, or read off the messages."""
        if continues:
            metadata = {identity.EPISODE: continues, **(metadata or {})}
        running = self._running.get()
        headers = {k.lower(): v for k, v in (fixed.get("extra_headers") or {}).items()}
        if running is not None:  # it is the program's own word, and wins over headers
            names = {identity.EPISODE: running.id, identity.GOAL: running.goal}
            metadata = {**(metadata or {}), **{k: v for k, v in names.items() if v}}
            overruled = {identity.EPISODE_HEADER: running.id, identity.GOAL_HEADER: running.goal}
            headers = {k: v for k, v in headers.items() if not overruled.get(k)}
        engine = self._twins(self.cascade.engine, teacher)
        episode = identity.episode_of(engine, messages, metadata=metadata, headers=headers)
        if running is not None:
            running.id = episode.id
        return episode

    @staticmethod
    def provider_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """What the provider is to keep with a request; None where that is nothing."""
        return identity.provider_metadata(metadata)

    @cached_property
    def shelf(self) -> Shelf:
        """Where responses are kept that go on by their id."""
        database = self.cascade.context.database
        namespace = self.cascade.config.bank.namespace
        keeps = database is not None and self.cascade.config.server.store_responses
        return Shelf(ResponseStore(database) if database is not None and keeps else None, namespace)

    @cached_property
    def prices(self) -> PriceTable:
        """The prices that the configuration gives of teachers: `teacher.price`, then `server.prices`."""
        config = self.cascade.config
        teacher = config.teacher
        own = {teacher.name.removeprefix(OWN): dict(teacher.price)} if teacher and teacher.price else {}
        return PriceTable({**config.server.prices, **own})


def is_omitted(value: Any) -> bool:
    """Whether an argument is the SDK's own word for one that was left out."""
    return type(value).__name__ in ("Omit", "NotGiven")


def plain_name(model: Any) -> Any:
    """Name of a model without its class: a program's enum of names is written as its members are called."""
    return str.__str__(model) if isinstance(model, str) else model


def plain_message(message: Any) -> dict[str, Any]:
    """Message as plain data: programs append the SDK's own message objects to their conversations."""
    if isinstance(message, Mapping):
        return dict(message)
    plain: dict[str, Any] = message.model_dump(mode="json", exclude_unset=True)  # as the SDK itself sends them
    plain.pop("parsed", None)
    return plain
