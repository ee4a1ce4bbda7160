"""Anthropic's Message Batches (``/v1/messages/batches``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from agentcascade.batches.lines import provider_text, read_anthropic_line, split_lines, write_line
from agentcascade.batches.types import BatchLine, ProviderBatch, Undecided
from agentcascade.errors import BatchFailed, NoBatches, ProviderError
from agentcascade.models.anthropic import AnthropicModel
from agentcascade.models.http_exchange import watch_http
from agentcascade.types import Message

ROUTE = "/messages/batches"
NO_INTERFACE = (404, 405, 501)
CREATE_SECONDS = 600.0
"""Of the creation, which brings all requests; less than `polling.GRACE`."""
SKEW = timedelta(minutes=5)
"""By which the provider's clock may be behind."""
PAGE, MOST_PAGES = 100, 10
OUTCOMES = ("processing", "succeeded", "errored", "canceled", "expired")


class AnthropicBatches:
    """Message Batches for one `AnthropicModel`."""

    most_requests = 100_000
    most_bytes = 240 * 10**6  # of 256 MB

    def __init__(self, model: AnthropicModel) -> None:
        self._model = model

    async def check(self) -> None:
        """Raises `NoBatches` where ``GET /v1/messages/batches`` is not there."""
        try:
            await self._ask("GET", f"{ROUTE}?limit=1")
        except ProviderError as error:
            if error.status_code in NO_INTERFACE:
                raise NoBatches(
                    f"{self._model.name}: its server has no batch interface (GET /v1{ROUTE} answers "
                    f"{error.status_code}); nothing was sent: leave --batch (audit.batch) out"
                ) from error
            raise

    def body(self, messages: Sequence[Message], options: Mapping[str, Any]) -> dict[str, Any]:
        """The body of ``/v1/messages``."""
        return self._model.request_body(messages, options)

    def line(self, custom_id: str, body: Mapping[str, Any]) -> bytes:
        """One of the batch's ``requests``."""
        return write_line({"custom_id": custom_id, "params": self._model.quirks.adapt(dict(body))})

    async def upload(self, lines: Sequence[bytes]) -> str:
        """Nothing: the requests come with the creation."""
        return ""

    async def create(self, batch: str, uploaded: str, lines: Sequence[bytes]) -> ProviderBatch:
        """Create it, once."""
        content = b'{"requests":[' + b",".join(line.rstrip(b"\n") for line in lines) + b"]}"
        return _state(await self._model.http.ask("POST", ROUTE, content, seconds=CREATE_SECONDS))

    async def find(self, batch: str, requests: int, since: datetime, others: Sequence[str]) -> ProviderBatch | None:
        """By the custom ids of its results, since a batch has no metadata: those that run cannot be told apart."""
        running = False
        after = ""
        for _ in range(MOST_PAGES):
            page = await self._ask("GET", f"{ROUTE}?limit={PAGE}{after and f'&after_id={after}'}")
            listed = page.get("data") if isinstance(page, dict) else None
            for item in listed if isinstance(listed, list) else ():
                state = _state(item)
                if _created(item) < since - SKEW:  # newest first: the others are older
                    listed = []
                    break
                if state.id in others or _total(item) != requests:
                    continue
                if not state.ended:
                    running = True
                elif await self._is_ours(state, batch):
                    return state
            if not listed or not page.get("has_more"):
                break
            after = str(page.get("last_id"))
        if running:
            raise Undecided
        return None

    async def _is_ours(self, state: ProviderBatch, batch: str) -> bool:
        async for line in self.results(state):
            if line is not None:
                return line.custom_id.startswith(f"{batch}-")
        return False

    async def get(self, id: str) -> ProviderBatch:
        """The state of a batch."""
        return _state(await self._ask("GET", f"{ROUTE}/{id}"))

    async def cancel(self, id: str) -> ProviderBatch:
        """Ask for its end; it is ``canceling`` for a while."""
        return _state(await self._ask("POST", f"{ROUTE}/{id}/cancel"))

    async def results(self, batch: ProviderBatch) -> AsyncIterator[BatchLine | None]:
        """The lines of its results, at our address of the API, whatever ``results_url`` says."""
        async for line in split_lines(self._model.http.read(f"{ROUTE}/{batch.id}/results")):
            yield None if line is None else read_anthropic_line(line)

    def learn(self, error: str, status: int, body: Mapping[str, Any]) -> bool:
        """Whether the endpoint refuses something that can be left out."""
        adapted = self._model.quirks.adapt(dict(body))
        return self._model.quirks.learn(ProviderError(error, status), adapted) is not None

    async def _ask(self, method: str, path: str) -> Any:
        with watch_http():
            return await self._model.http.ask(method, path)


def _state(batch: Any) -> ProviderBatch:
    """A batch object, in which any field may be missing or something else."""
    id, status = (batch.get(k) if isinstance(batch, dict) else None for k in ("id", "processing_status"))
    if not isinstance(id, str) or not 0 < len(id) <= 200 or "/" in id or not isinstance(status, str):
        raise BatchFailed("the provider answered with something other than a batch")
    counts = batch.get("request_counts")
    succeeded = counts.get("succeeded") if isinstance(counts, dict) else None
    is_count = isinstance(succeeded, int) and not isinstance(succeeded, bool) and succeeded >= 0
    return ProviderBatch(id, provider_text(status, 40), status == "ended", succeeded if is_count else None)


def _total(batch: Any) -> int:
    counts = batch.get("request_counts")
    counts = counts if isinstance(counts, dict) else {}
    return sum(count for name in OUTCOMES if isinstance(count := counts.get(name), int))


def _created(batch: Any) -> datetime:
    """When it was created; where that is not said, it may be new."""
    try:
        created = datetime.fromisoformat(str(batch.get("created_at")))
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return created if created.tzinfo else created.replace(tzinfo=UTC)
