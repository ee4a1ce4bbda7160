"""Responses of a wrapped OpenAI client: `create`, streamed or not, `parse` and `stream`, answered by episodes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import httpx
from openai import AsyncOpenAI, AsyncStream, OpenAI, Stream
from openai._models import construct_type
from openai.resources.responses import AsyncResponses, Responses
from openai.types.responses import Response, ResponseStreamEvent

from agentcascade._util.threads import apart
from agentcascade.episodes.responses_api import ResponsesStep, begin_step, models_of
from agentcascade.episodes.sync import loop_of
from agentcascade.errors import InvalidRequest
from agentcascade.event_loop import LoopThread
from agentcascade.integrations.openai_chat import is_raw
from agentcascade.integrations.openai_control import TRANSPORT, Wrapped, is_omitted, plain_message, plain_name
from agentcascade.models.openai_client import ClientModel
from agentcascade.models.responses_calls import responses_calls
from agentcascade.step.effort_ceiling import split_ceiling
from agentcascade.types import Decision
from agentcascade.wire.responses_request import NATIVE

if TYPE_CHECKING:
    from agentcascade.episodes.episode import Episode
    from agentcascade.episodes.stream import StepStream

log = logging.getLogger("agentcascade.integrations")
PROVIDERS = ("background", "conversation", "prompt")
"""Arguments with which the conversation is the provider's, and nobody else knows it: such a call goes there."""


class CascadeResponses(Responses):
    """`client.responses` of a wrapped client."""

    def __init__(self, client: OpenAI, wrapped: Wrapped) -> None:
        super().__init__(client)
        self._wrapped = wrapped

    def create(self, **arguments: Any) -> Any:
        if _is_passed_on(arguments):
            return super().create(**arguments)
        loop = loop_of(self._wrapped.cascade.engine.state.life)
        call = loop.run(_begin(self._wrapped, self._client, super().create, arguments))
        if call.streamed:
            return ResponseEvents(loop, loop.run(call.opened()))
        return loop.run(call.answered())

    def parse(self, **arguments: Any) -> Any:
        arguments, parse = _typed(arguments)
        return parse(self.create(**arguments))

    def retrieve(self, response_id: str, **arguments: Any) -> Any:
        kept = loop_of(self._wrapped.cascade.engine.state.life).run(_kept(self._wrapped, response_id))
        return kept or super().retrieve(response_id, **arguments)

    def delete(self, response_id: str, **arguments: Any) -> None:
        if not loop_of(self._wrapped.cascade.engine.state.life).run(_forgotten(self._wrapped, response_id)):
            super().delete(response_id, **arguments)


class AsyncCascadeResponses(AsyncResponses):
    """`client.responses` of a wrapped asynchronous client."""

    def __init__(self, client: AsyncOpenAI, wrapped: Wrapped) -> None:
        super().__init__(client)
        self._wrapped = wrapped

    async def create(self, **arguments: Any) -> Any:
        if _is_passed_on(arguments):
            return await super().create(**arguments)
        call = await _begin(self._wrapped, self._client, super().create, arguments)
        if call.streamed:
            return AsyncResponseEvents(await call.opened())
        return await call.answered()

    async def parse(self, **arguments: Any) -> Any:
        arguments, parse = _typed(arguments)
        return parse(await self.create(**arguments))

    async def retrieve(self, response_id: str, **arguments: Any) -> Any:
        return await _kept(self._wrapped, response_id) or await super().retrieve(response_id, **arguments)

    async def delete(self, response_id: str, **arguments: Any) -> None:
        if not await _forgotten(self._wrapped, response_id):
            await super().delete(response_id, **arguments)


class _Call:
    """One call of `create`: its request, and the episode that answers it."""

    def __init__(self, step: ResponsesStep, episode: Episode, options: Mapping[str, Any], streamed: bool) -> None:
        self._step, self._episode, self._options, self.streamed = step, episode, options, streamed

    async def answered(self) -> Any:
        read = self._step.read
        answer = await self._episode.answer(read.messages, tools=read.tools, options=self._options)
        return _response(await self._step.whole(answer, _same))

    async def opened(self) -> _Events:
        read = self._step.read
        stream = self._episode.stream(read.messages, tools=read.tools, **self._options)
        await stream.begin()
        return _Events(self._step, stream)


class _Events:
    """The events of one step as plain data."""

    def __init__(self, step: ResponsesStep, stream: StepStream) -> None:
        self.stream = stream
        self._events = step.events(stream, _same)

    async def following(self) -> Any:
        return _event(await anext(self._events))

    async def aclose(self) -> None:
        await self.stream.aclose()

    @property
    def decision(self) -> Decision | None:
        return self.stream.answer.decision if self.stream.answer else None


class ResponseEvents(Stream[Any]):
    """Stream of the events of one step. Closing it, or leaving its ``with``, cancels what is under way."""

    def __init__(self, loop: LoopThread, events: _Events) -> None:
        self._loop, self._events = loop, events
        self._iterator = iter(self)
        self.response: httpx.Response = httpx.Response(200)
        self.response.close = self.close  # type: ignore[method-assign]  # what the SDK's own helpers call

    def __next__(self) -> Any:
        try:
            return self._loop.run(self._events.following())
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
        return self._events.decision

    def close(self) -> None:
        self._loop.run(self._events.aclose())


class AsyncResponseEvents(AsyncStream[Any]):
    """Asynchronous stream of the events of one step. Closing it, or leaving its ``async with``, cancels the step."""

    def __init__(self, events: _Events) -> None:
        self._events = events
        self._iterator = self.__aiter__()
        self.response: httpx.Response = httpx.Response(200)
        self.response.aclose = self.close  # type: ignore[method-assign]  # what the SDK's own helpers call

    async def __anext__(self) -> Any:
        return await self._events.following()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            try:
                event = await self.__anext__()
            except StopAsyncIteration:
                return
            yield event

    @property
    def agentcascade(self) -> Decision | None:
        """The decision, once the stream was read to its end."""
        return self._events.decision

    async def close(self) -> None:
        await self._events.aclose()


async def _begin(wrapped: Wrapped, client: Any, create: Callable[..., Any], arguments: Mapping[str, Any]) -> _Call:
    """The call that `arguments` of ``responses.create`` ask for, of the teacher that they name."""
    options = {k: v for k, v in arguments.items() if not is_omitted(v)}
    if options.get("model") is None:
        raise TypeError("create: missing required argument: model")
    if isinstance(options.get("input"), (list, tuple)):
        options["input"] = [plain_message(item) for item in options["input"]]
    if options.get("tools") is not None:
        options["tools"] = [plain_message(tool) for tool in options["tools"]]
    fixed, ceiling = split_ceiling({k: options.pop(k) for k in TRANSPORT if k in options})
    model, streamed = str(plain_name(options["model"])), bool(options.pop("stream", False))
    endpoint = wrapped.endpoint(client, f"{model} by responses")
    endpoint.supports_n = False
    fixed |= {k: options[k] for k in ("temperature",) if options.get(k) is not None}
    teacher = ClientModel(
        client, model, prices=wrapped.prices, fixed=fixed, exact=True, endpoint=endpoint,
        create=responses_calls(client, endpoint, create),
    )  # fmt: skip
    models = models_of(wrapped.cascade.context) | {teacher.name}
    step = await begin_step(options, wrapped.shelf, models, native=True)
    asked = {**step.read.options, **ceiling}
    asked[NATIVE] = {**asked.get(NATIVE, {}), **{k: options[k] for k in ("store",) if options.get(k) is not None}}
    metadata = options.get("metadata")
    episode = wrapped.episode_of(teacher, step.read.messages, metadata, fixed, continues=step.episode)
    asked.pop("metadata", None)
    if provider_metadata := wrapped.provider_metadata(metadata):
        asked["metadata"] = provider_metadata
    return _Call(step, episode, asked, streamed)


async def _kept(wrapped: Wrapped, id: str) -> Any:
    """A response that is kept in the cascade's database; None for one that only the provider can have."""
    store = wrapped.shelf.store
    kept = None if store is None else await apart(store.find, wrapped.shelf.namespace, id)
    return None if kept is None else _response(kept.response)


async def _forgotten(wrapped: Wrapped, id: str) -> bool:
    store = wrapped.shelf.store
    return store is not None and await apart(store.delete, wrapped.shelf.namespace, id)


def _is_passed_on(arguments: Mapping[str, Any]) -> bool:
    """Whether a call goes to the teacher as it is, which is said in the log."""
    if is_raw(arguments):
        return True
    given = [name for name in PROVIDERS if arguments.get(name) and not is_omitted(arguments[name])]
    if given:
        log.warning("responses.create(%s=…) bypasses the cascade: its conversation is the provider's", given[0])
    return bool(given)


def _typed(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """Arguments of `parse` with the type's schema, as the SDK sends it, and what reads the type off the answer."""
    from openai.lib._parsing._responses import parse_response, type_to_text_format_param

    given = {k: v for k, v in arguments.items() if not is_omitted(v)}
    kind = given.pop("text_format", None)
    if given.get("stream"):
        raise InvalidRequest("responses.parse does not stream: use responses.stream(…)")
    if kind is not None:
        text = dict(given.get("text") or {})
        if "format" in text:
            raise TypeError("Cannot mix and match text.format with text_format")
        given["text"] = {**text, "format": type_to_text_format_param(kind)}
    from openai import omit

    tools: Any = omit
    if "tools" in given:
        given["tools"] = tools = [_as_tool(tool) for tool in given["tools"]]

    def parse(raw: Response) -> Any:
        parsed: Any = parse_response(text_format=omit if kind is None else kind, input_tools=tools, response=raw)
        parsed.agentcascade = getattr(raw, "agentcascade", None)
        parsed._request_id = getattr(raw, "_request_id", None)
        return parsed

    return given, parse


def _as_tool(tool: Mapping[str, Any]) -> Any:
    """A tool as the Responses API has it; one of `openai.pydantic_function_tool` keeps its type."""
    from openai.lib._tools import PydanticFunctionTool, ResponsesPydanticFunctionTool

    function = tool.get("function")
    if tool.get("type") != "function" or function is None:
        return tool
    if not isinstance(function, PydanticFunctionTool):
        raise InvalidRequest(
            "a function of responses.parse stands in the tool itself, as the Responses API has it, "
            "or is what openai.pydantic_function_tool(…) returns"
        )
    given: Any = {"type": "function", "description": None, **function, "strict": function.get("strict") or False}
    return ResponsesPydanticFunctionTool(given, function.model)


def _response(data: Mapping[str, Any]) -> Response:
    """A response object, as OpenAI's client would return it, with the decision in ``agentcascade``."""
    plain = {k: v for k, v in data.items() if k != "agentcascade"}
    response: Any = construct_type(type_=Response, value=plain)
    response.agentcascade = decision = data.get("agentcascade")
    response._request_id = getattr(decision, "id", None)  # what the SDK notes of a response
    return cast("Response", response)


def _event(event: dict[str, Any]) -> Any:
    """An event object, as OpenAI's client would return it."""
    response = event.get("response")
    if response is None or "agentcascade" not in response:
        return construct_type(type_=ResponseStreamEvent, value=event)
    made: Any = construct_type(
        type_=ResponseStreamEvent, value={**event, "response": {**response, "agentcascade": None}}
    )  # fmt: skip
    made.response.agentcascade = response["agentcascade"]
    return made


def _same(decision: Decision) -> Decision:
    return decision
