"""Calls of OpenAI's Responses that look like calls of its chat completions, so that one adapter makes both.

`ClientModel` calls one of these in place of ``chat.completions.create``: chat's arguments go in, chat's answer or
chunks come out, as plain data.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from openai import AsyncOpenAI, AsyncStream, OpenAI, Stream

from agentcascade.models.endpoint import EndpointQuirks
from agentcascade.models.message_fields import to_plain
from agentcascade.models.openai_create import without_walk
from agentcascade.wire.responses_answer import read_answer
from agentcascade.wire.responses_request import write_request
from agentcascade.wire.responses_stream import EventReader
from agentcascade.wire.responses_tools import ToolBook

ENCRYPTED = "reasoning.encrypted_content"
TRANSPORT = {"timeout": "timeout", "extra_headers": "headers", "extra_query": "params", "extra_body": "extra_json"}
"""Arguments that are no part of the body, and what a client's `post` calls them."""


def responses_calls(
    client: OpenAI | AsyncOpenAI, endpoint: EndpointQuirks, create: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """What stands for ``chat.completions.create`` of `client`.

    Args:
        client: Sends the requests.
        endpoint: What is known of the endpoint.
        create: The client's own ``responses.create``, where a program may be watching it; default: a plain request.

    Returns:
        A function, asynchronous where the client is.
    """
    if isinstance(client, AsyncOpenAI):
        return _AsyncCalls(client, endpoint, create)
    return _Calls(client, endpoint, create)


class _Requests:
    """What both kinds of calls have in common."""

    def __init__(self, client: Any, endpoint: EndpointQuirks, create: Callable[..., Any] | None) -> None:
        self._client, self._endpoint = client, endpoint
        self._create = None if create is None else without_walk(create)

    def _written(self, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], ToolBook]:
        """(body, what goes beside it, the tools) of a call."""
        fields, book = write_request(arguments)
        if ENCRYPTED in self._endpoint.refused:
            fields["include"] = [what for what in fields["include"] if what != ENCRYPTED]
        if arguments.get("stream"):
            fields["stream"] = True
        return fields, {name: arguments[name] for name in TRANSPORT if name in arguments}, book

    def _learns(self, error: Exception, fields: Mapping[str, Any]) -> bool:
        """Whether the endpoint refuses to tell thoughts in ciphers: models that do not reason do."""
        text = str(error).lower()
        refused = getattr(error, "status_code", None) == 400 and "encrypted" in text and ENCRYPTED in fields["include"]
        if refused:
            self._endpoint.refused.add(ENCRYPTED)
        return refused

    def _send(self, fields: dict[str, Any], beside: dict[str, Any], stream_class: Any) -> Any:
        if self._create is not None:
            return self._create(**fields, **beside)
        options = {TRANSPORT[name]: value for name, value in beside.items()}
        more = {"stream": True, "stream_cls": stream_class} if fields.get("stream") else {}
        return self._client.post("/responses", cast_to=object, body=fields, options=options, **more)


class _AsyncCalls(_Requests):
    async def __call__(self, **arguments: Any) -> Any:
        while True:
            fields, beside, book = self._written(arguments)
            try:
                response = await self._send(fields, beside, AsyncStream[object])
            except Exception as error:
                if not self._learns(error, fields):
                    raise
                continue
            return _AsyncChunks(response, book) if fields.get("stream") else read_answer(to_plain(response), book)


class _Calls(_Requests):
    def __call__(self, **arguments: Any) -> Any:
        while True:
            fields, beside, book = self._written(arguments)
            try:
                response = self._send(fields, beside, Stream[object])
            except Exception as error:
                if not self._learns(error, fields):
                    raise
                continue
            return _Chunks(response, book) if fields.get("stream") else read_answer(to_plain(response), book)


class _AsyncChunks:
    """The chunks of a stream of events; leaving its ``async with`` closes the connection."""

    def __init__(self, events: Any, book: ToolBook) -> None:
        self._events, self._reader = events, EventReader(book)

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for event in self._events:
            for chunk in self._reader.read(to_plain(event)):
                yield chunk

    async def __aenter__(self) -> _AsyncChunks:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._events.close()


class _Chunks:
    """Likewise, of a blocking client."""

    def __init__(self, events: Any, book: ToolBook) -> None:
        self._events, self._reader = events, EventReader(book)

    def __iter__(self) -> Iterator[Any]:
        for event in self._events:
            yield from self._reader.read(to_plain(event))

    def close(self) -> None:
        self._events.close()
