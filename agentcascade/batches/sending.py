"""Sending of batches: requests are claimed, reserved, uploaded and created, in that order, and awaited."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from agentcascade._util.threads import apart
from agentcascade.batches.polling import BUSY, BatchPoller
from agentcascade.batches.providers import address_of
from agentcascade.batches.results import Result
from agentcascade.batches.types import BatchProvider
from agentcascade.billing.worst_case import PlannedCall
from agentcascade.errors import BatchFailed, describe
from agentcascade.models.http_exchange import watch_http
from agentcascade.protocols import ChatModel
from agentcascade.storage.batches import Batch, ClaimedRequest
from agentcascade.storage.budget_rows import round_up
from agentcascade.types import Account, new_id, now

MOST_REFUSALS = 20
"""How often in a row a provider may say that it takes no batch now, while none of ours is under way."""
MOST_TRIES = 3
"""How often a request is sent anew since its provider refused a parameter of it, or had no room."""
MOST_LOST = 50
"""Questions about batches in a row that fail in passing before that is an error."""


class RequestPart(NamedTuple):
    """One request at the provider, for number `asked` of those that are asked for."""

    asked: int
    key: str
    body: Mapping[str, Any]
    call: PlannedCall


class BatchRun:
    """One `Batches.complete_all`: its requests by key, until each has a result.

    Args:
        poller: Leads batches to their end.
        provider: The model's batch interface.
        model: Who is asked.
        parts: The requests by key.
        purpose: `job`, `role`, `purpose` and `namespace` of the batches.
        accounts: Budgets into which the worst case must fit.
        seconds: Between two questions whether batches have ended.
    """

    def __init__(
        self,
        poller: BatchPoller,
        provider: BatchProvider,
        model: ChatModel,
        parts: Mapping[str, RequestPart],
        purpose: Mapping[str, Any],
        accounts: Sequence[Account],
        seconds: float,
    ) -> None:
        self._poller, self._provider, self._model, self._parts = poller, provider, model, parts
        self._store, self._door = poller.store, poller.door
        self._purpose, self._seconds = purpose, seconds
        self._accounts = accounts
        self._done: dict[str, Result] = {}
        self._sent: dict[str, str] = {}
        self._tries: Counter[str] = Counter()
        self._most = provider.most_requests
        self._refusals = self._lost = 0

    async def results(self) -> Mapping[str, Result]:
        while missing := [key for key in self._parts if key not in self._done]:
            claimed = await self._batches_of(missing)
            unsent = [self._parts[key] for key in missing if key not in claimed]
            sending = unsent if self._most == self._provider.most_requests or not claimed else []
            chunks = _chunks(self._provider, sending, self._most)
            for chunk in chunks if self._most == self._provider.most_requests else list(chunks)[:1]:
                if not await self._submit(chunk):
                    break
            by_batch: dict[str, set[str]] = {}
            for key, id in (await self._batches_of(missing)).items():
                by_batch.setdefault(id, set()).add(key)
            moved = [await self._advance(id, keys) for id, keys in sorted(by_batch.items())]
            if not any(moved):
                await asyncio.sleep(self._seconds)
        return self._done

    async def _batches_of(self, keys: Sequence[str]) -> dict[str, str]:
        """The batch of each key that is sent: while it is waited for here, whoever has taken its answer."""
        claimed = {key: request.batch for key, request in (await apart(self._store.find, keys)).items()}
        taken = {key: self._sent[key] for key in keys if key in self._sent and key not in claimed}
        batches = {id: await apart(self._store.get, id) for id in set(taken.values())}
        claimed |= {key: id for key, id in taken.items() if (batch := batches[id]) is not None and batch.is_over}
        self._sent |= claimed
        return claimed

    async def _advance(self, id: str, keys: set[str]) -> bool:
        """Whether something came of the batch, which holds the requests with these `keys`."""
        batch = await apart(self._store.get, id)
        if batch is None:
            return True
        try:
            results = await self._poller.advance(batch, self._model)
        except Exception as error:
            self._lost += 1
            if not is_passing(error) or self._lost > MOST_LOST:
                raise
            self._poller.tell(f"{id}: no answer about it ({describe(error)[:200]})")
            return False
        self._lost = 0
        for result in results or ():
            key = result.request.key
            if key in keys:
                self._sent.pop(key, None)  # it may be sent again
            if key in keys and not self._again(result, self._parts[key], len(results or ())):
                self._done[key] = result
        return results is not None

    def _again(self, result: Result, part: RequestPart, size: int) -> bool:
        """Whether a request that failed is sent once more: smaller, or without what was refused."""
        if result.completion is not None:
            return False
        is_full = result.status == BUSY
        if is_full and size > 1:
            self._most = min(self._most, max(1, size // 2))
            return True
        if self._tries[part.key] >= MOST_TRIES:
            return False
        self._tries[part.key] += 1
        return is_full or self._provider.learn(result.error, result.status, part.body)

    async def _submit(self, parts: Sequence[RequestPart]) -> bool:
        """Send a batch: claimed, reserved, uploaded, created, in that order. False where it has to wait."""
        store, door, id = self._store, self._door, new_id("bt")
        worst = [door.worst_case(part.call) for part in parts]
        total = None if None in worst else sum((w for w in worst if w is not None), Decimal(0))
        requests = [
            ClaimedRequest(
                f"{id}-{i}", id, p.key, "waiting", p.call.n, p.call.prompt_tokens, p.call.output_tokens
            )
            for i, p in enumerate(parts)
        ]  # fmt: skip
        at = now()
        batch = Batch(
            id=id, model=self._model.name, api_base=address_of(self._model), requests=len(parts),
            reserved=None if total is None else round_up(total), created_at=at, changed_at=at, **self._purpose,
        )  # fmt: skip
        if not await apart(store.prepare, batch, requests):
            return False  # another process has claimed some of them meanwhile
        lines = [self._provider.line(r.id, p.body) for r, p in zip(requests, parts)]
        try:
            await door.reserve(id, self._accounts, total)
            uploaded = await self._provider.upload(lines)
        except BaseException:
            await self._give_back(id, "prepared")
            raise
        if not await apart(store.change, id, "prepared", "submitting"):
            return False
        return await self._create(id, uploaded, lines)

    async def _create(self, id: str, uploaded: str, lines: Sequence[bytes]) -> bool:
        with watch_http() as exchange:
            try:
                created = await self._provider.create(id, uploaded, lines)
            except BaseException as error:
                if not isinstance(error, Exception):
                    raise
                if exchange.may_be_billed(error):  # it may be there: `advance` looks for it, and nothing is sent again
                    self._poller.tell(f"{id}: no answer to its creation ({describe(error)[:200]}); looking for it")
                    return True
                await self._give_back(id, "submitting")
                if not self._is_busy(error):
                    raise
                self._refusals += 1
                self._poller.tell(f"no batch is taken now ({describe(error)[:200]})")
                return False
        self._refusals = 0
        values = {"provider_id": created.id, "status": created.status}
        if not await apart(lambda: self._store.change(id, "submitting", "submitted", **values)):
            self._poller.tell(f"{id}: given up by another process before it was created; {created.id} is cancelled")
            await self._provider.cancel(created.id)  # nobody waits for it, and its requests may be sent again
            return True
        self._poller.tell(f"{id}: {len(lines):,} requests are sent as {created.id}")
        return True

    async def _give_back(self, id: str, state: str) -> None:
        if await apart(self._store.drop, id, state):
            await self._poller.settle()

    def _is_busy(self, error: Exception) -> bool:
        code = str(getattr(error, "code", "") or "")
        is_busy = getattr(error, "status_code", None) == BUSY and code != "insufficient_quota"
        return is_busy and self._refusals < MOST_REFUSALS


def is_passing(error: Exception) -> bool:
    """Whether a question may be answered the next time: no answer came, or one that says so."""
    if isinstance(error, BatchFailed):
        return False
    status = getattr(error, "status_code", None)
    lost = status is None and ("Connection" in type(error).__name__ or "Timeout" in type(error).__name__)
    return lost or (isinstance(status, int) and (status >= 500 or status in (408, BUSY)))


def _chunks(provider: BatchProvider, parts: Sequence[RequestPart], most: int) -> Iterator[list[RequestPart]]:
    """Parts by batches that their provider takes."""
    chunk, size = list[RequestPart](), 0
    for part in parts:
        length = len(provider.line("x" * 64, part.body))
        if chunk and (len(chunk) >= most or size + length > provider.most_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(part)
        size += length
    if chunk:
        yield chunk
