"""Chat completions of a wrapped OpenAI client: `create`, streamed or not, and `parse`, answered by episodes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import httpx
from openai import NOT_GIVEN, AsyncOpenAI, AsyncStream, OpenAI, Stream
from openai.resources.chat import AsyncChat, Chat
from openai.resources.chat.completions import AsyncCompletions, Completions

from agentcascade.episodes.responses import CascadeCompletion, chat_completion, chunk
from agentcascade.episodes.sync import loop_of
from agentcascade.event_loop import LoopThread
from agentcascade.integrations.openai_control import Wrapped, is_omitted
from agentcascade.types import Decision

if TYPE_CHECKING:
    from agentcascade.episodes.episode import Episode
    from agentcascade.episodes.stream import StepStream

log = logging.getLogger("agentcascade.integrations")

RAW = "X-Stainless-Raw-Response"


class CascadeChat(Chat):
    """`client.chat` of a wrapped client."""

    def __init__(self, client: OpenAI, wrapped: Wrapped) -> None:
        super().__init__(client)
        self._wrapped = wrapped

    @cached_property
    def completions(self) -> Completions:
        return _Completions(self._client, self._wrapped)


class AsyncCascadeChat(AsyncChat):
    """`client.chat` of a wrapped asynchronous client."""

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
        if is_raw(arguments):
            return super().create(**arguments)
        episode, request = self._wrapped.begin(self._client, super().create, arguments)
        loop = loop_of(self._wrapped.cascade.engine.state.life)
        if request.pop("stream"):
            return CascadeStream(loop, loop.run(_open(episode, request)))
        return loop.run(_answer(episode, request))

    def parse(self, *, response_format: Any = NOT_GIVEN, **arguments: Any) -> Any:
        arguments, parse = _typed(response_format, arguments)
        return parse(self.create(**arguments))


class _AsyncCompletions(AsyncCompletions):
    def __init__(self, client: AsyncOpenAI, wrapped: Wrapped) -> None:
        super().__init__(client)
        self._wrapped = wrapped

    async def create(self, **arguments: Any) -> Any:
        if is_raw(arguments):
            return await super().create(**arguments)
        episode, request = self._wrapped.begin(self._client, super().create, arguments)
        if request.pop("stream"):
            return AsyncCascadeStream(await _open(episode, request))
        return await _answer(episode, request)

    async def parse(self, *, response_format: Any = NOT_GIVEN, **arguments: Any) -> Any:
        arguments, parse = _typed(response_format, arguments)
        return parse(await self.create(**arguments))


async def _answer(episode: Episode, request: dict[str, Any]) -> CascadeCompletion:
    messages, tools = request.pop("messages"), request.pop("tools", None)
    return chat_completion(*await episode.answer(messages, tools=tools, options=request))


async def _open(episode: Episode, request: dict[str, Any]) -> StepStream:
    """Open a stream and fetch its first chunk, so that what goes wrong before it is raised by `create`."""
    messages, tools = request.pop("messages"), request.pop("tools", None)
    stream = episode.stream(messages, tools=tools, **request)
    await stream.begin()
    return stream


class CascadeStream(Stream[Any]):
    """Stream of the chunks of one step. Closing it, or leaving its ``with``, cancels what is under way."""

    def __init__(self, loop: LoopThread, stream: StepStream) -> None:
        self._loop, self._stream = loop, stream
        self._iterator = iter(self)
        self.response: httpx.Response = httpx.Response(200)
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
    """Asynchronous stream of the chunks of one step. Closing it, or leaving its ``async with``, cancels the step."""

    def __init__(self, stream: StepStream) -> None:
        self._stream = stream
        self._iterator = self.__aiter__()
        self.response: httpx.Response = httpx.Response(200)
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
    """Arguments of `parse` with the type's schema, as the SDK sends it, and what reads the type off the answer."""
    from openai.lib._parsing import parse_chat_completion, type_to_response_format_param, validate_input_tools

    tools = arguments.get("tools")
    input_tools = validate_input_tools(tools) if tools is not None and not is_omitted(tools) else []
    typed = {**arguments, "response_format": type_to_response_format_param(response_format)}

    def parse(raw: CascadeCompletion) -> Any:
        parsed: Any = parse_chat_completion(
            response_format=response_format, chat_completion=raw, input_tools=input_tools
        )  # fmt: skip
        parsed.agentcascade, parsed._request_id = raw.agentcascade, raw._request_id
        return parsed

    return typed, parse


def is_raw(arguments: Mapping[str, Any]) -> bool:
    """Whether a call wants the raw HTTP response, which cannot be made up: it goes to the teacher as it is."""
    headers = arguments.get("extra_headers")
    raw = isinstance(headers, Mapping) and RAW in headers
    if raw:
        log.warning("with_raw_response and with_streaming_response bypass the cascade")
    return raw
