"""`wrap(client)`: an OpenAI client whose chat completions go through a cascade.

The teacher is the model that the program asks for, through the program's own client; everything else about the client
stays as it is. What a caller may rely on: the class, `create` with all its arguments, streams, `parse`, `with_options`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

import httpx
from openai import NOT_GIVEN, AsyncOpenAI, AsyncStream, OpenAI, Stream
from openai.resources.chat import AsyncChat, Chat
from openai.resources.chat.completions import AsyncCompletions, Completions

from agentcascade.assembly.components import OWN
from agentcascade.config.sections import ModelConfig
from agentcascade.episodes import identity, stateless
from agentcascade.episodes.responses import CascadeCompletion, chat_completion, chunk
from agentcascade.episodes.sync import loop_of
from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.event_loop import LoopThread
from agentcascade.models import http_limits
from agentcascade.models.endpoint import EndpointQuirks
from agentcascade.models.openai_client import ClientModel, provider
from agentcascade.models.pricing import PriceTable
from agentcascade.types import Decision

if TYPE_CHECKING:
    from pathlib import Path

    from agentcascade.actions.base import Validator
    from agentcascade.cascade import Cascade
    from agentcascade.config.keywords import BuildKeywords, JudgeKeywords, LinkKeywords, ModelKeywords, StudentKeywords
    from agentcascade.config.load import CascadeConfig
    from agentcascade.config.sections import JudgeConfig, LinkConfig
    from agentcascade.episodes.episode import Episode
    from agentcascade.episodes.stream import StepStream
    from agentcascade.models.structured_output import Choices
    from agentcascade.protocols import ChatModel, Judge, Merger, Observer, Recorder, TokenCounter

C = TypeVar("C", bound=OpenAI | AsyncOpenAI)
T = TypeVar("T")
log = logging.getLogger("agentcascade.integrations")

TRANSPORT = ("extra_headers", "extra_query", "extra_body", "timeout")
SAMPLING = ("temperature", "seed")
"""What the teacher gets from the program alone; the cascade has its own for the student."""
RAW = "X-Stainless-Raw-Response"


class Running:
    """The episode that calls belong to inside ``with client.agentcascade.episode(…)``."""

    def __init__(self, id: str | None, goal: str) -> None:
        self.id, self.goal = id, goal


class Wrapped:
    """Control of a wrapped client, its attribute ``agentcascade``: names and finishes episodes, closes the cascade.

    Args:
        cascade: Answers the client's chat completions.
    """

    @classmethod
    def of(cls, client: OpenAI | AsyncOpenAI) -> Wrapped:
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
            Whether the bank grew.

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
        found = await stateless.settled(cascade.engine, cascade.config.bank.namespace, name)
        return await stateless.finish(cascade.engine, found, success)

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
        """The episode of one call, and what to ask of it."""
        own = {k: v for k, v in arguments.items() if not _omitted(v)}
        if missing := [k for k in ("messages", "model") if own.get(k) is None]:
            raise TypeError(f"create: missing required argument{'s' * (len(missing) > 1)}: {' and '.join(missing)}")
        messages = [_plain(m) for m in own.pop("messages")]
        model, metadata = own.pop("model"), own.pop("metadata", None)
        fixed = {k: own.pop(k) for k in TRANSPORT if k in own}
        fixed |= {k: own[k] for k in SAMPLING if k in own}
        if metadata := identity.upstream(given := metadata):
            fixed["metadata"] = metadata
        endpoint = self._endpoints(str(client.base_url), str(model))
        teacher = ClientModel(
            client, model, prices=self._prices, fixed=fixed, exact=True, endpoint=endpoint, create=create
        )
        running = self._running.get()
        headers = {k.lower(): v for k, v in (fixed.get("extra_headers") or {}).items()}
        if running is not None:  # it is the program's own word, and wins over headers
            known = {identity.EPISODE: running.id, identity.GOAL: running.goal}
            given = {**(given or {}), **{k: v for k, v in known.items() if v}}
            named = {identity.EPISODE_HEADER: running.id, identity.GOAL_HEADER: running.goal}
            headers = {k: v for k, v in headers.items() if not named.get(k)}
        episode = identity.episode_of(
            self.cascade.engine.twin(teacher=teacher),
            messages,
            metadata=given,
            headers=headers,
        )
        if running is not None:
            running.id = episode.id
        stream = bool(own.pop("stream", False))
        return episode, {**own, "messages": messages, "stream": stream}

    @cached_property
    def _prices(self) -> PriceTable:
        teacher = self.cascade.config.teacher
        return PriceTable({teacher.name.removeprefix(OWN): dict(teacher.price)} if teacher and teacher.price else {})


def wrap(
    client: C,
    config: CascadeConfig | str | Path | None = None,
    *,
    cascade: str | None = None,
    teacher: ModelConfig | ModelKeywords | str | None = None,
    student: ChatModel | ModelConfig | StudentKeywords | str | None = None,
    students: Sequence[ChatModel | LinkConfig | LinkKeywords | str] = (),
    validators: Sequence[Validator] = (),
    mergers: Sequence[Merger] = (),
    choices: Choices | None = None,
    recorder: Recorder | None = None,
    judge: Judge | JudgeConfig | JudgeKeywords | None = None,
    observer: Observer | None = None,
    **keywords: Unpack[BuildKeywords],
) -> C:
    """Wrap an OpenAI client: chat completions go through a cascade, everything else about the client stays as it is.

    The teacher is the model that each call names. Answers are OpenAI's own objects with the `Decision` in a field
    ``agentcascade``. ``client.agentcascade``, to type checkers ``Wrapped.of(client)``, names and finishes episodes and
    closes the cascade.

    Args:
        client: An `openai.OpenAI` or `AsyncOpenAI`, or of a subclass; it is not changed.
        config: As for `agentcascade.build`; models named ``client/MODEL`` are reached through the client.
        cascade: Name of one of the configuration's `cascades`.
        teacher: Gives the price of the model that it names: ``{"name": …, "price": …}``.
        student: A model's name, its section, or a model of your own.
        students: Further ones, each likewise.
        validators: As for `build`, and so are the others.
        mergers: Say which actions are the same though their keys differ.
        choices: Lists a situation's admissible actions.
        recorder: Keeps decisions, in place of the database.
        judge: Says whether an episode succeeded where `finish` is not told.
        observer: Watches steps and model calls.
        keywords: Sections and fields of `CascadeConfig`, such as ``mode="shadow"`` or ``retrieval={"k": 4}``.

    Returns:
        A client of the same class that shares the connections of `client`.

    Raises:
        ConfigError, MissingExtra, StorageError: As `build`.

    >>> import openai
    >>> from agentcascade import ScriptedModel, wrap
    >>> client = wrap(openai.OpenAI(api_key="none"), student=ScriptedModel(["look"]), retrieval={"k": 0})
    >>> with client.agentcascade:
    ...     answer = client.chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": "Go."}])
    >>> type(client).__name__, answer.choices[0].message.content, answer.agentcascade.answered_by
    ('OpenAI', 'look', 'student')
    """
    from agentcascade.assembly.cascade import build
    from agentcascade.assembly.components import make_model

    if not isinstance(client, (OpenAI, AsyncOpenAI)):
        raise ConfigError(
            f"wrap takes a client, openai.OpenAI(…) or openai.AsyncOpenAI(…) or a subclass: got {type(client).__name__}"
        )

    def make(model: ModelConfig, count: TokenCounter) -> ChatModel:
        return _through(client, model) if model.name.startswith(OWN) else make_model(model, count)

    placeholder = ClientModel(client, "(the model that a call names)")
    if teacher and not isinstance(teacher, (str, Mapping, ModelConfig)):
        raise ConfigError(
            "wrap: the teacher is the model that each call names, so teacher cannot be a model of your own: leave it "
            "out, give {'name': …, 'price': …} for a price, or use agentcascade.build(teacher=…)"
        )
    built = build(
        config,
        cascade=cascade,
        teacher=teacher or placeholder,
        student=student,
        students=students,
        validators=validators,
        mergers=mergers,
        choices=choices,
        recorder=recorder,
        judge=judge,
        observer=observer,
        models=make,
        **keywords,
    )
    return cast("C", _attached(client.copy(), Wrapped(built)))


def _through(client: OpenAI | AsyncOpenAI, model: ModelConfig) -> ClientModel:
    """A model of the configuration that is reached through the program's own client."""
    if model.api_base is not None or model.api_key is not None:
        raise ConfigError(
            f"model '{model.name}' is reached through the wrapped client, which has an address and a key of its own: "
            "leave api_base and api_key out, or name a provider in place of 'client/'"
        )
    name = model.name.removeprefix(OWN)
    fixed = {**model.options, **({} if model.max_tokens is None else {"max_tokens": model.max_tokens})}
    return ClientModel(client, name, prices=PriceTable({name: dict(model.price)}) if model.price else None, fixed=fixed)


def _attached(client: Any, wrapped: Wrapped) -> OpenAI | AsyncOpenAI:
    """The client, a copy that is ours to change, with its chat completions cascaded."""
    kind: Any = type(client)
    chat: Any = _AsyncChat if isinstance(client, AsyncOpenAI) else _Chat

    def copy(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _attached(kind.copy(self, *args, **kwargs), wrapped)

    own_chat = cached_property(lambda self: chat(self, wrapped))
    own_chat.__set_name__(kind, "chat")
    body = {
        "agentcascade": wrapped,
        "chat": own_chat,
        "copy": copy,
        "with_options": copy,
        "__module__": kind.__module__,
    }
    client.__dict__.pop("chat", None)
    client._client = http_limits.limited_twin(client._client)  # the program's own client keeps its own
    client.__class__ = type(kind.__name__, (kind,), body)
    return cast("OpenAI | AsyncOpenAI", client)


class _Chat(Chat):
    def __init__(self, client: OpenAI, wrapped: Wrapped) -> None:
        super().__init__(client)
        self._wrapped = wrapped

    @cached_property
    def completions(self) -> Completions:
        return _Completions(self._client, self._wrapped)


class _AsyncChat(AsyncChat):
    def __init__(self, client: AsyncOpenAI, wrapped: Wrapped) -> None:
        super().__init__(client)
        self._wrapped = wrapped

    @cached_property
    def completions(self) -> AsyncCompletions:
        return _AsyncCompletions(self._client, self._wrapped)


class _Completions(Completions):
    def __init__(self, client: OpenAI, wrapped: Wrapped) -> None:
        super().__init__(client)
        self._wrapped = wrapped

    def create(self, **arguments: Any) -> Any:
        if _raw(arguments):
            return super().create(**arguments)
        episode, asked = self._wrapped.begin(self._client, super().create, arguments)
        loop = loop_of(self._wrapped.cascade.engine.state.life)
        if asked.pop("stream"):
            return CascadeStream(loop, loop.run(_open(episode, asked)))
        return loop.run(_answer(episode, asked))

    def parse(self, *, response_format: Any = NOT_GIVEN, **arguments: Any) -> Any:
        asked, finish = _typed(response_format, arguments)
        return finish(self.create(**asked))


class _AsyncCompletions(AsyncCompletions):
    def __init__(self, client: AsyncOpenAI, wrapped: Wrapped) -> None:
        super().__init__(client)
        self._wrapped = wrapped

    async def create(self, **arguments: Any) -> Any:
        if _raw(arguments):
            return await super().create(**arguments)
        episode, asked = self._wrapped.begin(self._client, super().create, arguments)
        if asked.pop("stream"):
            return AsyncCascadeStream(await _open(episode, asked))
        return await _answer(episode, asked)

    async def parse(self, *, response_format: Any = NOT_GIVEN, **arguments: Any) -> Any:
        asked, finish = _typed(response_format, arguments)
        return finish(await self.create(**asked))


async def _answer(episode: Episode, asked: dict[str, Any]) -> CascadeCompletion:
    messages, tools = asked.pop("messages"), asked.pop("tools", None)
    return chat_completion(*await episode.answer(messages, tools=tools, options=asked))


async def _open(episode: Episode, asked: dict[str, Any]) -> StepStream:
    """The stream with its first chunk fetched, so that what goes wrong before it is raised by `create`."""
    messages, tools = asked.pop("messages"), asked.pop("tools", None)
    stream = episode.stream(messages, tools=tools, **asked)
    await stream.begin()
    return stream


class CascadeStream(Stream[Any]):
    """The chunks of one step. Closing it, or leaving its ``with``, cancels what is under way."""

    def __init__(self, loop: LoopThread, stream: StepStream) -> None:
        self._loop, self._stream = loop, stream
        self._iterator = iter(self)
        self.response = httpx.Response(200)
        self.response.close = self.close  # type: ignore[method-assign]  # what the SDK's own helpers call

    def __next__(self) -> Any:
        try:
            return chunk(self._loop.run(_next(self._stream)))
        except StopAsyncIteration:
            raise StopIteration from None

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                yield self.__next__()
            except StopIteration:
                return

    @property
    def agentcascade(self) -> Decision | None:
        """The decision, once the stream was read to its end."""
        return self._stream.answer.decision if self._stream.answer else None

    def close(self) -> None:
        self._loop.run(self._stream.aclose())


class AsyncCascadeStream(AsyncStream[Any]):
    """The same for programs with an event loop."""

    def __init__(self, stream: StepStream) -> None:
        self._stream = stream
        self._iterator = self.__aiter__()
        self.response = httpx.Response(200)
        self.response.aclose = self.close  # type: ignore[method-assign]  # what the SDK's own helpers call

    async def __anext__(self) -> Any:
        return chunk(await self._stream.__anext__())

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for data in self._stream:
            yield chunk(data)

    @property
    def agentcascade(self) -> Decision | None:
        """The decision, once the stream was read to its end."""
        return self._stream.answer.decision if self._stream.answer else None

    async def close(self) -> None:
        await self._stream.aclose()


def _next(stream: StepStream) -> Coroutine[Any, Any, dict[str, Any]]:
    return stream.__anext__()


def _typed(response_format: Any, arguments: dict[str, Any]) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """`parse` as the SDK does it: the type's schema goes out, its parsed value comes back."""
    from openai.lib._parsing import parse_chat_completion, type_to_response_format_param, validate_input_tools

    tools = arguments.get("tools")
    kept = validate_input_tools(tools) if tools is not None and not _omitted(tools) else []
    asked = {**arguments, "response_format": type_to_response_format_param(response_format)}

    def finish(raw: CascadeCompletion) -> Any:
        parsed: Any = parse_chat_completion(
            response_format=response_format, chat_completion=raw, input_tools=kept
        )  # fmt: skip
        parsed.agentcascade = raw.agentcascade
        return parsed

    return asked, finish


def _raw(arguments: Mapping[str, Any]) -> bool:
    """Raw HTTP responses cannot be made up: such calls go to the teacher as they are, and are not recorded."""
    headers = arguments.get("extra_headers")
    raw = isinstance(headers, Mapping) and RAW in headers
    if raw:
        log.warning("with_raw_response and with_streaming_response bypass the cascade")
    return raw


def _omitted(value: Any) -> bool:
    return type(value).__name__ in ("Omit", "NotGiven")


def _plain(message: Any) -> dict[str, Any]:
    """Programs append the SDK's own message objects to their conversations."""
    if isinstance(message, Mapping):
        return dict(message)
    found: dict[str, Any] = message.model_dump(mode="json", exclude_unset=True)  # as the SDK itself sends them
    found.pop("parsed", None)
    return found


__all__ = ["AsyncCascadeStream", "CascadeStream", "Running", "Wrapped", "provider", "wrap"]
