"""Requests of a batch, what became of each, and what a provider says of the whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from agentcascade.types import Completion, Message

Outcome = Literal["succeeded", "errored", "expired", "cancelled", "missing"]
"""Of one request, as its provider tells it; ``missing``: its provider tells nothing."""


def audit_job(cascade: str) -> str:
    """The `job` of batches that are audits of a cascade."""
    return f"audit {cascade}"[:200]


class BatchRequest(NamedTuple):
    """A chat request that can wait.

    Args:
        messages: The conversation.
        options: What goes with it, as of `ChatModel.complete`: `n`, `temperature`, `tools`, `max_tokens`, ….
    """

    messages: Sequence[Message]
    options: Mapping[str, Any] = {}


class BatchAnswer(NamedTuple):
    """What became of a `BatchRequest`.

    Args:
        completion: The answers of those samples that succeeded, already billed; None where none did.
        error: Why samples are missing, empty where none is.
        ids: Custom ids of its requests, for `Batches.take`.
    """

    completion: Completion | None
    error: str = ""
    ids: tuple[str, ...] = ()


class BatchLine(NamedTuple):
    """A line of a batch's results.

    Args:
        custom_id: Of the request; empty where the line does not say.
        outcome: What became of it.
        body: The answer, in the shape that `ResponseReader` reads.
        error: Why there is none.
        status: HTTP status of the error; 0 where there is none.
    """

    custom_id: str
    outcome: Outcome
    body: Any = None
    error: str = ""
    status: int = 0


class ProviderBatch(NamedTuple):
    """State of a batch at its provider.

    Args:
        id: The provider's.
        status: In the provider's own words.
        ended: Whether nothing more comes of it.
        counts: How many requests ended how; None where the provider's numbers cannot be true.
        rejected: The batch as a whole was refused, and no request of it was run: why. Empty otherwise.
        is_full: It was refused since too much is queued at the provider.
        files: Where the results are.
    """

    id: str
    status: str
    ended: bool
    succeeded: int | None = None
    rejected: str = ""
    is_full: bool = False
    files: tuple[str, ...] = ()


class BatchProvider(Protocol):
    """A provider's batch interface, for one model."""

    most_requests: int
    most_bytes: int

    async def check(self) -> None:
        """Raises `NoBatches` where the endpoint has no such interface; nothing is sent."""
        ...

    def body(self, messages: Sequence[Message], options: Mapping[str, Any]) -> dict[str, Any]:
        """The body of one request; what the endpoint is known to refuse is still in it."""
        ...

    def line(self, custom_id: str, body: Mapping[str, Any]) -> bytes:
        """A request as it goes into the batch, adapted to the endpoint."""
        ...

    async def upload(self, lines: Sequence[bytes]) -> str:
        """Bring the requests to the provider, where that comes before the batch; returns what `create` needs."""
        ...

    async def create(self, batch: str, uploaded: str, lines: Sequence[bytes]) -> ProviderBatch:
        """Create the batch that we call `batch`; one attempt."""
        ...

    async def find(self, batch: str, requests: int, since: datetime, others: Sequence[str]) -> ProviderBatch | None:
        """The batch that `create` may have created before its answer was lost.

        Raises:
            Undecided: It cannot be told as long as batches that may be it are running.
        """
        ...

    async def get(self, id: str) -> ProviderBatch:
        """The state of a batch."""
        ...

    async def cancel(self, id: str) -> ProviderBatch:
        """Ask for its end; what is done by then is billed."""
        ...

    def results(self, batch: ProviderBatch) -> AsyncIterator[BatchLine | None]:
        """Its lines, in any order; None for one that cannot be read."""
        ...

    def learn(self, error: str, status: int, body: Mapping[str, Any]) -> bool:
        """Whether a request that was refused is worth sending again, without what was refused of it."""
        ...


class Undecided(Exception):
    """Whether a batch was created cannot be told yet."""


Completed = dict[str, Completion]
