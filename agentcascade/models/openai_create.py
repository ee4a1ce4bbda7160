"""`chat.completions.create` and `responses.create` of a program's client, without the SDK's walks through types.

OpenAI's SDK holds each message against every type that it might be of: 0.12 ms a message, 25 ms of a conversation of
200. Plain JSON comes out of it as it went in, so such a request goes straight to what `create` calls next. Of an answer
it makes objects in the same way, which are read as plain data here: the answer comes back as it was sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from inspect import signature
from types import FunctionType, MethodType, NoneType
from typing import Any, NamedTuple, TypeGuard

import openai

PLAIN = frozenset({str, int, float, bool, NoneType})
MOST = 200_000
"""Values in one request that are looked at; one that holds itself has no end."""
TRANSPORT = ("extra_headers", "extra_query", "extra_body", "timeout")
"""Arguments of `create` that are no part of the request's body."""
FOLDER = os.path.dirname(openai.__file__) + os.sep
SEES_ANSWERS = ("post", "request", "_request", "_process_response", "_process_response_data")
"""Methods of the SDK's clients, of one version or another, that are told what an answer is made of, or return it."""


class AsSent(openai.BaseModel):
    """The SDK's word for answers and chunks that are plain data: it makes nothing of their JSON."""

    @classmethod
    def build(cls, *, response: object, data: object) -> Any:
        """As `ModelBuilderProtocol` of the SDK says it."""
        return data


def without_walk(create: Callable[..., Any]) -> Callable[..., Any]:
    """What sends the same as `create` and returns what was sent back: itself, unless it is the SDK's own.

    What instruments a client watches its `create`, or what `create` calls, so a replaced one is called as ever; and
    what a strict client refuses is refused.
    """
    if not _is_sdks_own(create):
        return create
    resource: Any = create.__self__
    kind: Any = type(resource)
    api = _api(kind)
    if api is None:
        return create
    names = _names(create.__func__)

    @wraps(create)
    def post(**arguments: Any) -> Any:
        body = {name: arguments[name] for name in names if name in arguments and name not in TRANSPORT}
        if not arguments.keys() <= names.keys() or not is_plain(body) or not _sends_as_the_sdk(resource):
            return create(**arguments)
        return resource._post(
            api.path,
            body=body,
            options=_request_options({name: arguments[name] for name in TRANSPORT if name in arguments}),
            cast_to=AsSent,
            stream=bool(arguments.get("stream")),
            stream_cls=api.stream,
        )

    return post


def _sends_as_the_sdk(resource: Any) -> bool:
    """Whether nobody but the SDK sees the answers of a resource's client now, and it does not check them itself."""
    client = resource._client
    seen_by = (getattr(client, name, None) for name in SEES_ANSWERS)
    return (
        not client._strict_response_validation
        and _is_sdks_own(resource._post)
        and all(_is_sdks_own(method) for method in seen_by if method is not None)
    )


def _is_sdks_own(method: Any) -> TypeGuard[MethodType]:
    """Whether a method is as OpenAI's package has it: wrapt's wrappers say that they are methods, with its function."""
    return type(method) is MethodType and is_of_sdk(method.__func__)


def is_of_sdk(function: object) -> bool:
    """Whether a function is written in OpenAI's package: wrappers have their own code, or are no functions at all."""
    return type(function) is FunctionType and function.__code__.co_filename.startswith(FOLDER)


def is_plain(value: object) -> bool:
    """Whether a value is JSON as it stands: no object of the SDK's, no word for what was left out, no iterator."""
    waiting: list[Any] = [value]
    seen = 0
    while waiting:
        one = waiting.pop()
        seen += 1
        if type(one) in PLAIN:
            continue
        if seen > MOST:
            return False
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif type(one) in (list, tuple):
            waiting.extend(one)
        else:
            return False
    return True


@lru_cache(maxsize=8)
def _names(function: Callable[..., Any]) -> Mapping[str, None]:
    """Names of the arguments of `create`, in the order in which it writes them into a request."""
    return dict.fromkeys(name for name in signature(function).parameters if name != "self")


class _Api(NamedTuple):
    """What `create` of a resource posts to, and the class of its streams."""

    path: str
    stream: Any


@lru_cache(maxsize=16)
def _api(resource: type) -> _Api | None:
    """Of a class of the SDK, or a subclass; None for one that is no chat and no Responses."""
    from openai.resources.chat.completions import AsyncCompletions, Completions

    if issubclass(resource, (Completions, AsyncCompletions)):
        return _Api("/chat/completions", _stream_of(resource, AsyncCompletions))
    from openai.resources.responses import AsyncResponses, Responses

    if issubclass(resource, (Responses, AsyncResponses)):
        return _Api("/responses", _stream_of(resource, AsyncResponses))
    return None


def _stream_of(resource: type, asynchronous: type) -> Any:
    return openai.AsyncStream[AsSent] if issubclass(resource, asynchronous) else openai.Stream[AsSent]


def _request_options(given: Mapping[str, Any]) -> Any:
    make: Any = openai._base_client.make_request_options
    return make(**given, **_security(make))


@lru_cache(maxsize=1)
def _security(make: Callable[..., Any]) -> Mapping[str, Any]:
    """Which key goes with a request, as newer versions of the SDK say it."""
    return {"security": {"bearer_auth": True}} if "security" in signature(make).parameters else {}
