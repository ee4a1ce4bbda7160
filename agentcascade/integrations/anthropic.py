"""`wrap` of an Anthropic client: its Messages go through a cascade, streamed, parsed, in beta and by tool runners.

All of them are requests to ``/v1/messages`` by the client's own ``post``: that is where the cascade stands, so that
whatever helper the SDK has keeps its behaviour.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from anthropic import AsyncStream, DefaultHttpxClient, Stream
from anthropic._base_client import AsyncAPIClient, SyncAPIClient
from anthropic._streaming import extract_stream_chunk_type

from agentcascade.assembly.components import NAMED, OWN
from agentcascade.episodes import identity
from agentcascade.episodes.sync import loop_of
from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.integrations.anthropic_client import PATH, AnthropicClientModel
from agentcascade.integrations.openai_control import Wrapped, is_omitted
from agentcascade.models import http_limits
from agentcascade.models.anthropic_quirks import MessagesQuirks
from agentcascade.models.pricing import PriceTable
from agentcascade.step.effort_ceiling import split_ceiling
from agentcascade.types import Decision, new_id
from agentcascade.wire.anthropic_answer import write_answer
from agentcascade.wire.anthropic_blocks import DETAILS
from agentcascade.wire.anthropic_events import EventWriter
from agentcascade.wire.anthropic_request import read_request

if TYPE_CHECKING:
    from agentcascade.config.sections import ModelConfig
    from agentcascade.episodes.episode import Episode
    from agentcascade.episodes.stream import Answer, StepStream
    from agentcascade.event_loop import LoopThread

log = logging.getLogger("agentcascade.integrations")
RAW = "x-stainless-raw-response"
BYPASSES = ("/v1/messages/batches", "/v1/complete", "/v1/sessions", "/v1/agents", "/v1/threads", "/v1/deployments")
"""Routes through which models act unseen."""
_library = next(k.__module__.partition(".")[0] for k in DefaultHttpxClient.__mro__ if k.__module__.startswith("httpx"))
_response: Any = import_module(_library).Response
"""Of the client's HTTP library: httpx2, or httpx in older versions."""


def is_anthropic(client: object) -> bool:
    """Whether it is one of the SDK's clients, those of Bedrock, Vertex AI and Foundry among them."""
    return isinstance(client, (SyncAPIClient, AsyncAPIClient)) and hasattr(client, "messages")


def placeholder(client: Any) -> AnthropicClientModel:
    """Stands for the model that each call names."""
    return AnthropicClientModel(client, NAMED)


def model_through(client: Any, model: ModelConfig) -> AnthropicClientModel:
    """Model of the configuration that is reached through the program's own client."""
    if model.api_base is not None or model.api_key is not None:
        raise ConfigError(
            f"model '{model.name}' is reached through the wrapped client, which has an address and a key of its own: "
            "leave api_base and api_key out, or name a provider in place of 'client/'"
        )
    twin = client.copy()
    twin._client = http_limits.limited_twin(client._client)
    name = model.name.removeprefix(OWN)
    fixed = {**model.options, **({} if model.max_tokens is None else {"max_tokens": model.max_tokens})}
    prices = PriceTable({name: dict(model.price)}) if model.price else None
    return AnthropicClientModel(twin, name, prices=prices, fixed=fixed)


def attached(client: Any, wrapped: Wrapped, seen: set[str] | None = None) -> Any:
    """The client, a copy that is ours to change, with its messages cascaded."""
    kind: Any = getattr(client, "_agentcascade_kind", type(client))  # of a copy of a wrapped one, too
    warned: set[str] = set() if seen is None else seen
    quirks = lru_cache(maxsize=256)(lambda model: MessagesQuirks())

    def copy(self: Any, *args: Any, **kwargs: Any) -> Any:
        return attached(kind.copy(self, *args, **kwargs), wrapped, warned)

    def begin(self: Any, path: str, body: Any, options: Mapping[str, Any]) -> _Call | None:
        if not _is_messages(path) or _is_raw(options):
            _warn_of_bypass(path, options, warned)
            return None
        return _Call(self, wrapped, path, body, options, kind.post, quirks)

    def post(self: Any, path: str, *, cast_to: Any, body: Any = None, options: Any = None, **more: Any) -> Any:
        call = begin(self, path, body, options or {})
        if call is None:
            return kind.post(self, path, cast_to=cast_to, body=body, options=options or {}, **more)
        loop = loop_of(wrapped.cascade.engine.state.life)
        if more.get("stream"):
            return CascadeMessages(loop, loop.run(call.open()), self, more["stream_cls"])
        return call.finished(self, cast_to, loop.run(call.answer()))

    async def apost(self: Any, path: str, *, cast_to: Any, body: Any = None, options: Any = None, **more: Any) -> Any:
        call = begin(self, path, body, options or {})
        if call is None:
            return await kind.post(self, path, cast_to=cast_to, body=body, options=options or {}, **more)
        if more.get("stream"):
            return AsyncCascadeMessages(await call.open(), self, more["stream_cls"])
        return call.finished(self, cast_to, await call.answer())

    client._client = http_limits.limited_twin(client._client)  # the program's own client keeps its own
    own = apost if isinstance(client, AsyncAPIClient) else post
    body = {"agentcascade": wrapped, "post": own, "copy": copy, "with_options": copy, "__module__": kind.__module__}
    body |= {"_agentcascade_kind": kind, "_supports_message_threads": False}  # a step needs the whole conversation
    resources = ("messages", "beta", "with_raw_response", "with_streaming_response")
    old = {name: client.__dict__.pop(name) for name in resources if name in client.__dict__}
    client.__class__ = type(kind.__name__, (kind,), body)
    for name, resource in old.items():
        if not hasattr(kind, name):  # Bedrock's and Vertex AI's are made with the client, and hold its `post`
            setattr(client, name, type(resource)(client))
    return client


class _Call:
    """One request to ``/v1/messages``, answered by an episode."""

    def __init__(
        self,
        client: Any,
        wrapped: Wrapped,
        path: str,
        body: Any,
        options: Mapping[str, Any],
        post: Callable[..., Any],
        quirks: Callable[[str], MessagesQuirks],
    ) -> None:
        options, ceiling = split_ceiling(options, body="extra_json", headers="headers")
        whole = {**_plain(body), **_plain(options.get("extra_json") or {})}
        if whole.get("thread") is not None:
            raise InvalidRequest(
                "thread: a step is decided on the whole conversation: send all messages, and no thread"
            )
        read = read_request(whole)
        metadata = whole.get("metadata") if isinstance(whole.get("metadata"), Mapping) else None
        details = {k: v for k, v in read.details.items() if k != "metadata"}
        if kept := identity.provider_metadata(metadata):
            details["metadata"] = kept
        fixed = {"temperature": read.options["temperature"]} if "temperature" in read.options else {}
        teacher = AnthropicClientModel(
            client,
            read.model,
            prices=wrapped.prices,
            fixed=fixed,
            exact=True,
            options=options,
            path=path,
            post=lambda path, **arguments: post(client, path, **arguments),
            quirks=quirks(read.model),
        )
        headers = {str(k): v for k, v in (options.get("headers") or {}).items() if isinstance(v, str)}
        self._read, self._stops = read, frozenset(whole.get("stop_sequences") or ())
        self._episode: Episode = wrapped.episode_of(teacher, read.messages, metadata, {"extra_headers": headers})
        self._options = {**read.options, **ceiling, "extra_body": details}
        self._parse = options.get("post_parser")

    async def answer(self) -> Answer:
        return await self._episode.answer(self._read.messages, tools=self._read.tools, options=self._options)

    async def open(self) -> StepStream:
        """Open a stream and fetch its first chunk, so that what goes wrong before it is raised by the call."""
        stream = self._episode.stream(self._read.messages, tools=self._read.tools, **self._options)
        await stream.begin()
        return stream

    def finished(self, client: Any, cast_to: Any, answer: Answer) -> Any:
        """The SDK's own object for an answer, parsed where it was asked to be."""
        completion = answer.completion
        told = completion.choice_fields[0].get("stop_reason") if completion.choice_fields else None
        data = write_answer(
            answer.messages[0],
            id=new_id("msg"),
            model=str(completion.fields.get("model") or completion.model),
            finish=completion.finish_reasons[0] if completion.finish_reasons else "stop",
            usage=completion.usage,
            details=completion.fields.get(DETAILS),
            stop=told if told in self._stops else None,
        )
        message = client._process_response_data(data=data, cast_to=cast_to, response=_response(200))
        if callable(self._parse):
            message = self._parse(message)
        message.agentcascade = answer.decision
        message._request_id, message._workspace_id = answer.decision.id, None  # what the SDK notes of a response
        return message


class _Events:
    """The SDK's events of one step."""

    def __init__(self, client: Any, stream_cls: Any) -> None:
        self._make = client._process_response_data
        self._event: Any = extract_stream_chunk_type(stream_cls)
        self._writer = EventWriter(new_id("msg"), "")
        self._begun = False

    def of(self, chunk: Mapping[str, Any]) -> Iterator[Any]:
        if not self._begun:
            self._begun = True
            yield from map(self._made, self._writer.start(chunk))
        yield from map(self._made, self._writer.read(chunk))

    def last(self, answer: Answer) -> Iterator[Any]:
        completion = answer.completion
        finish = completion.finish_reasons[0] if completion.finish_reasons else "stop"
        details = completion.fields.get(DETAILS)
        for data in self._writer.end(finish, completion.usage, details):
            event = self._made(data)
            if data["type"] == "message_delta":
                event.agentcascade = answer.decision
            yield event

    def _made(self, data: Mapping[str, Any]) -> Any:
        return self._make(data=data, cast_to=self._event, response=_response(200))


class CascadeMessages(Stream[Any]):
    """Stream of the events of one step. Closing it, or leaving its ``with``, cancels what is under way."""

    def __init__(self, loop: LoopThread, stream: StepStream, client: Any, stream_cls: Any) -> None:
        self._loop, self._steps = loop, stream
        self._events = _Events(client, stream_cls)
        self.response: Any = _response(200)
        self.__dict__["_iterator"] = self._read()

    def _read(self) -> Iterator[Any]:
        while True:
            try:
                chunk = self._loop.run(_next(self._steps))
            except StopAsyncIteration:
                break
            yield from (e for e in self._events.of(chunk) if e.type != "ping")
        assert self._steps.answer is not None
        yield from self._events.last(self._steps.answer)

    def __next__(self) -> Any:
        return next(self._iterator)

    def __iter__(self) -> Iterator[Any]:
        yield from self._iterator

    @property
    def agentcascade(self) -> Decision | None:
        """The decision, once the stream was read to its end."""
        return self._steps.answer.decision if self._steps.answer else None

    def close(self) -> None:
        self._loop.run(self._steps.aclose())


class AsyncCascadeMessages(AsyncStream[Any]):
    """Asynchronous stream of the events of one step. Closing it, or leaving its ``async with``, cancels the step."""

    def __init__(self, stream: StepStream, client: Any, stream_cls: Any) -> None:
        self._steps = stream
        self._events = _Events(client, stream_cls)
        self.response: Any = _response(200)
        self.__dict__["_iterator"] = self._read()

    async def _read(self) -> AsyncIterator[Any]:
        async for chunk in self._steps:
            for event in self._events.of(chunk):
                if event.type != "ping":
                    yield event
        assert self._steps.answer is not None
        for event in self._events.last(self._steps.answer):
            yield event

    async def __anext__(self) -> Any:
        return await anext(self._iterator)

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for event in self._iterator:
            yield event

    @property
    def agentcascade(self) -> Decision | None:
        """The decision, once the stream was read to its end."""
        return self._steps.answer.decision if self._steps.answer else None

    async def close(self) -> None:
        await self._steps.aclose()


async def _next(stream: StepStream) -> dict[str, Any]:
    return await stream.__anext__()


def _is_messages(path: str) -> bool:
    return path.partition("?")[0].rstrip("/") == PATH


def _is_raw(options: Mapping[str, Any]) -> bool:
    headers = options.get("headers")
    return isinstance(headers, Mapping) and any(str(name).lower() == RAW for name in headers)


def _warn_of_bypass(path: str, options: Mapping[str, Any], warned: set[str]) -> None:
    """Say once what goes past the cascade: raw responses, which cannot be made up, and routes beside Messages."""
    raw = "with_raw_response and with_streaming_response" if _is_messages(path) and _is_raw(options) else ""
    what = raw or next((route for route in BYPASSES if path.startswith(route)), "")
    if what and what not in warned:
        warned.add(what)
        log.warning("%s: this goes past the cascade, no decision, no budget, no record", what)


def _plain(value: Any) -> Any:
    """What the SDK would send, as plain data: its own objects, iterators and omissions among it."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if not is_omitted(v)}
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        dumped = dump(mode="json", exclude_unset=True, by_alias=True)
        return {k: v for k, v in dumped.items() if k not in ("agentcascade", "parsed_output")}
    if isinstance(value, str):
        return str.__str__(value)  # also where it is a member of an enum
    if isinstance(value, (bytes, int, float, bool, type(None))):
        return value
    return [_plain(v) for v in value]
