"""OpenAI's Batch API (files, ``/v1/batches``), at OpenAI and at servers that speak it, by OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from agentcascade.batches.lines import openai_line, provider_text, read_openai_line, split_lines
from agentcascade.batches.types import BatchLine, ProviderBatch
from agentcascade.errors import BatchFailed, NoBatches, ProviderError
from agentcascade.models.openai import OpenAIModel
from agentcascade.types import Message

URL = "/v1/chat/completions"
UPLOAD_SECONDS = 600.0
NAMED = "agentcascade"
"""Key of a batch's metadata that holds our name of it."""
ENDED = {"failed", "completed", "expired", "cancelled"}
NO_INTERFACE = {404, 405, 501}
MOST_LISTED = 1000
"""Batches that are looked through for one of ours."""
FULL = ("token_limit_exceeded", "batch_limit_exceeded", "request_limit_exceeded")
"""Codes of errors of a batch that would be taken later, or if it were smaller."""


class OpenAIBatches:
    """The Batch API for one `OpenAIModel`."""

    most_requests = 50_000
    most_bytes = 190 * 10**6  # of 200 MB, for however a server counts them

    def __init__(self, model: OpenAIModel) -> None:
        self._model = model

    async def check(self) -> None:
        """Raises `NoBatches` where ``GET /batches`` is not there."""
        try:
            await self._client().batches.list(limit=1)
        except Exception as error:
            if getattr(error, "status_code", None) in NO_INTERFACE:
                raise NoBatches(
                    f"{self._model.name}: its server has no batch interface (GET /batches answers "
                    f"{getattr(error, 'status_code', '')}); nothing was sent: leave --batch (audit.batch) out"
                ) from error
            raise

    def body(self, messages: Sequence[Message], options: Mapping[str, Any]) -> dict[str, Any]:
        """The body of ``/v1/chat/completions``."""
        return self._model.request_body(messages, options)

    def line(self, custom_id: str, body: Mapping[str, Any]) -> bytes:
        """A line of the input file."""
        return openai_line(custom_id, URL, self._model.endpoint.adapt(dict(body)))

    async def upload(self, lines: Sequence[bytes]) -> str:
        """The id of the uploaded input file; a file costs nothing, so this may be repeated."""
        client = self._client().with_options(timeout=UPLOAD_SECONDS)
        uploaded = await client.files.create(file=("batch.jsonl", b"".join(lines)), purpose="batch")
        return str(uploaded.id)

    async def create(self, batch: str, uploaded: str, lines: Sequence[bytes]) -> ProviderBatch:
        """Create it, once: the SDK's own retries could create, and so pay, twice."""
        created = await self._client(retries=0).batches.create(
            input_file_id=uploaded, endpoint=URL, completion_window="24h", metadata={NAMED: batch}
        )
        return _state(created)

    async def find(self, batch: str, requests: int, since: datetime, others: Sequence[str]) -> ProviderBatch | None:
        """By its metadata."""
        listed = 0
        async for candidate in self._client().batches.list(limit=100):
            listed += 1
            metadata = candidate.metadata if isinstance(candidate.metadata, dict) else {}
            if metadata.get(NAMED) == batch:
                return _state(candidate)
            if listed >= MOST_LISTED:
                break
        return None

    async def get(self, id: str) -> ProviderBatch:
        """The state of a batch."""
        return _state(await self._client().batches.retrieve(id))

    async def cancel(self, id: str) -> ProviderBatch:
        """Ask for its end; it is ``cancelling`` for ten minutes at most."""
        return _state(await self._client(retries=0).batches.cancel(id))

    async def results(self, batch: ProviderBatch) -> AsyncIterator[BatchLine | None]:
        """The lines of the output file and of the error file; each is there only where something is in it."""
        for file in batch.files:
            async with self._client().files.with_streaming_response.content(file) as response:
                async for line in split_lines(response.iter_bytes()):
                    yield None if line is None else read_openai_line(line)

    def learn(self, error: str, status: int, body: Mapping[str, Any]) -> bool:
        """Whether the endpoint refuses something that can be left out."""
        return self._model.endpoint.learn(ProviderError(error, status), body)

    def _client(self, retries: int | None = None) -> Any:
        client = self._model.sdk_client()
        return client if retries is None else client.with_options(max_retries=retries)


def _state(batch: Any) -> ProviderBatch:
    """A batch object, in which any field may be missing or something else."""
    id, status = getattr(batch, "id", None), getattr(batch, "status", None)
    if not isinstance(id, str) or not 0 < len(id) <= 200 or not isinstance(status, str):
        raise BatchFailed("the provider answered with something other than a batch")
    files = (getattr(batch, name, None) for name in ("output_file_id", "error_file_id"))
    counts, errors = getattr(batch, "request_counts", None), getattr(batch, "errors", None)
    data = getattr(errors, "data", None)
    told = [e for e in (data if isinstance(data, list) else ())[:20] if e is not None]
    rejected = "; ".join(
        dict.fromkeys(provider_text(getattr(e, "message", None) or getattr(e, "code", "")) for e in told)
    )
    if status == "failed" and not rejected:
        rejected = "the provider refused it without a reason"
    return ProviderBatch(
        id,
        provider_text(status, 40),
        status in ENDED,
        _number(getattr(counts, "completed", None)),
        rejected[:1000] if status == "failed" else "",
        status == "failed" and any(getattr(e, "code", None) in FULL for e in told),
        tuple(f for f in files if isinstance(f, str) and f),
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
