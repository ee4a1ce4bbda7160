"""Results of a batch, each matched with its request and billed; what is missing or doubtful is said, and never free."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from decimal import ROUND_UP, Decimal
from typing import NamedTuple

from agentcascade.batches.lines import provider_text
from agentcascade.batches.types import BatchLine, ProviderBatch
from agentcascade.billing.batch_door import BatchDoor, SentCall
from agentcascade.billing.worst_case import model_dollars
from agentcascade.models.message_fields import has_answer
from agentcascade.protocols import ChatModel
from agentcascade.storage.batches import Batch, BilledRequest, ClaimedRequest
from agentcascade.types import Call, Completion, Usage

PICO = Decimal("1e-12")
COMPLETE = ("completed", "ended")
"""Statuses of batches with a line for each request, unlike those that were cancelled or expired."""


class Result(NamedTuple):
    """What became of one request."""

    request: ClaimedRequest
    completion: Completion | None
    error: str = ""
    status: int = 0
    """HTTP status of the error; 0 where there is none."""


class BatchResults(NamedTuple):
    """What became of all requests of a batch, their bills, and what is wrong with the whole.

    `is_partial`: results are missing that should be there, by the provider's own word.
    """

    results: list[Result]
    billed: list[BilledRequest]
    problem: str
    is_partial: bool = False


async def read_results(
    batch: Batch,
    state: ProviderBatch,
    lines: AsyncIterator[BatchLine | None],
    requests: Iterable[ClaimedRequest],
    model: ChatModel,
    door: BatchDoor,
) -> BatchResults:
    """Match the lines of a batch that ended with its requests, in any order, and bill each."""
    known = {r.id: r for r in requests}
    told: dict[str, BatchLine] = {}
    reading = _Reading(batch, model, door)
    odd: Counter[str] = Counter()
    if not state.rejected:
        async for line in lines:
            if line is None:
                odd["lines cannot be read"] += 1
            elif line.custom_id not in known:
                odd["lines are of requests that nobody sent"] += 1
            elif line.custom_id in told:
                odd["lines are there twice"] += 1
                if line != told[line.custom_id]:
                    odd["of them disagree: the first is taken, the dearest is billed"] += 1
                    reading.doubt(known[line.custom_id], line)
            else:
                told[line.custom_id] = line
    for id, request in known.items():
        if id in told:
            reading.add(request, told[id])
    missing = [r for id, r in known.items() if id not in told]
    is_partial = False
    if state.rejected:
        reading.add_missing(missing, 0, "errored", state.rejected)
    else:
        succeeded = sum(line.outcome == "succeeded" for line in told.values())
        doubtful = len(missing) if state.succeeded is None else max(0, state.succeeded - succeeded)
        if missing:
            odd["requests have no result"] += len(missing)
            is_partial = doubtful > 0 or state.status in COMPLETE
        reading.add_missing(missing, doubtful, "missing", f"no result came of it (the batch is {state.status})")
    problem = "; ".join([state.rejected] * bool(state.rejected) + [f"{n:,} {what}" for what, n in sorted(odd.items())])
    return BatchResults(reading.results, reading.billed, problem, is_partial)


class _Reading:
    def __init__(self, batch: Batch, model: ChatModel, door: BatchDoor) -> None:
        self._batch, self._model, self._door = batch, model, door
        self.results: list[Result] = []
        self.billed: list[BilledRequest] = []
        self._doubtful: dict[str, Completion] = {}

    def doubt(self, request: ClaimedRequest, line: BatchLine) -> None:
        """A second line that says something else of the same request than the first: of both the dearer is billed."""
        if line.outcome == "succeeded":
            bill = self._read(request, line)[0].model_copy(update={"messages": ()})
            self._doubtful[request.id] = max(bill, self._doubtful.get(request.id, bill), key=_size)

    def add(self, request: ClaimedRequest, line: BatchLine) -> None:
        doubtful = self._doubtful.get(request.id)
        if line.outcome != "succeeded":
            why = line.error or line.outcome
            self.results.append(Result(request, None, why, line.status))
            if doubtful is not None:
                self._bill(request, line.outcome, why, doubtful)
            else:
                self.billed.append(BilledRequest(request.id, line.outcome, why, None, None))
            return
        completion, error = self._read(request, line)
        error = provider_text(error)
        is_answer = not error and any(has_answer(m) for m in completion.messages)
        if not is_answer:
            error = error or provider_text(
                f"an empty answer ({', '.join(sorted(set(completion.finish_reasons))) or 'no reason'})"
            )
        dearest = max(completion, doubtful or completion, key=_size)
        self._bill(request, "succeeded" if is_answer else "errored", error, dearest)
        self.results.append(Result(request, completion if is_answer else None, error))

    def _read(self, request: ClaimedRequest, line: BatchLine) -> tuple[Completion, str]:
        batch = self._batch
        return self._door.read(self._model, self._call(request), line.body, batch.role, batch.purpose)

    def add_missing(self, requests: list[ClaimedRequest], doubtful: int, state: str, error: str) -> None:
        """Of requests without a result, so many may have been answered: the dearest of them are billed."""
        for i, request in enumerate(sorted(requests, key=lambda r: -(r.prompt_tokens + r.output_tokens))):
            if i < doubtful:
                self._bill(request, state, error, self._door.lost(self._call(request)))
            else:
                self.billed.append(BilledRequest(request.id, state, error, None, None))
            self.results.append(Result(request, None, error))

    def _call(self, request: ClaimedRequest) -> SentCall:
        bounds = {"prompt_tokens": request.prompt_tokens, "output_tokens": request.output_tokens}
        return SentCall(self._model, request.answers, self._door.count, **bounds)

    def _bill(self, request: ClaimedRequest, state: str, error: str, completion: Completion) -> None:
        call = Call.of(self._batch.role, self._batch.purpose, completion)
        self.billed.append(BilledRequest(request.id, state, error, call, _ordinary(self._model, completion.usage)))


def _size(bill: Completion) -> tuple[Decimal, int]:
    """By which bills are compared: dollars, or tokens where a price is not known."""
    return bill.dollars or Decimal(0), bill.usage.prompt + bill.usage.completion


def _ordinary(model: ChatModel, usage: Usage) -> Decimal | None:
    """What the request would have cost at once."""
    dollars = model_dollars(model, usage)
    return None if dollars is None else dollars.quantize(PICO, rounding=ROUND_UP)


def by_key(results: Iterable[Result]) -> Mapping[str, Result]:
    """The results by their requests' keys."""
    return {r.request.key: r for r in results}
