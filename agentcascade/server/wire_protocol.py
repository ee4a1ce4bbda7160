"""Wire protocols of the proxy: what an HTTP API brings to read its requests and to write answers, events and errors.

`step_route` does the rest, once for all of them: keys, limits, episodes, cancellation, headers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from agentcascade.server.problem import Problem
from agentcascade.types import Message, Tool

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade
    from agentcascade.episodes.stream import Answer, StepStream
    from agentcascade.server.auth import Tenant
    from agentcascade.server.passthrough import Api


class Caller(NamedTuple):
    """Who sent a request, and what stands beside its body."""

    tenant: Tenant
    headers: Mapping[str, str]


@dataclass(frozen=True)
class StepRequest:
    """A request of some protocol, as `Episode` takes it.

    Attributes:
        messages: The whole conversation, in the core's shape.
        tools: Definitions of tools, likewise.
        options: Keywords of `Episode.complete`.
        metadata: The caller's, in which it may name its episode and goal.
        stream: Whether the answer is to come as events.
        ignored: Names of fields that no model is sent, which a header of the answer says.
        wire: What the protocol needs of the request to write its answer.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] | None = None
    stream: bool = False
    ignored: Sequence[str] = ()
    wire: Any = None


class WireProtocol(Protocol):
    """An HTTP API through which steps are asked for."""

    api: Api
    """By which `passthrough` knows whose API it is."""

    keepalive: bytes
    """An event that says nothing, for a stream on which nothing comes for long."""

    async def read(self, body: bytes, caller: Caller) -> tuple[str, Any]:
        """(name of the model that is asked for, the request as this protocol reads it).

        Raises `Refused` for what is none.
        """
        ...

    async def request(self, data: Any, cascade: Cascade, caller: Caller) -> StepRequest:
        """What `read` gave, as a step of `cascade`, which the caller may use. Raises `Refused`."""
        ...

    async def answer(self, request: StepRequest, answer: Answer) -> Any:
        """The whole answer, as what becomes JSON."""
        ...

    def events(self, request: StepRequest, stream: StepStream) -> AsyncIterator[bytes]:
        """The answer as server-sent events; raises what reading `stream` raises, `Told` where an event said so."""
        ...

    def error(self, problem: Problem) -> Any:
        """The body of an answer that says what went wrong."""
        ...

    def error_event(self, problem: Problem) -> bytes:
        """The last event of a stream that went wrong."""
        ...
