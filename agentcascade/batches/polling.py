"""Polling of batches at their providers: found again where a submission was cut off, billed when they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

from agentcascade._util.threads import apart
from agentcascade.batches.providers import provider_of
from agentcascade.batches.results import Result, read_results
from agentcascade.batches.types import BatchLine, BatchProvider, ProviderBatch, Undecided
from agentcascade.billing.batch_door import BatchDoor
from agentcascade.errors import BatchFailed
from agentcascade.protocols import ChatModel
from agentcascade.storage.batches import Batch, BatchStore
from agentcascade.types import now

GRACE = timedelta(minutes=15)
"""For which a batch that somebody prepares or submits is theirs; longer than a request to create one may take."""
BUSY, GONE = 429, (404, 410)
MOST_PARTIAL = 5
"""Questions about a batch that has ended, whose results are not all there: files come late."""


class BatchPoller:
    """Leads batches that were sent to their end.

    Args:
        store: The batches of a database.
        door: Bills and settles.
        tell: Gets a line whenever something changes.
        provider: Finds a model's batch interface.
        grace: For which another process is left alone with a batch that it submits.
    """

    def __init__(
        self,
        store: BatchStore,
        door: BatchDoor,
        *,
        tell: Callable[[str], None] = lambda line: None,
        provider: Callable[[ChatModel], BatchProvider] = provider_of,
        grace: timedelta = GRACE,
    ) -> None:
        self.store: BatchStore = store
        self.door: BatchDoor = door
        self.tell: Callable[[str], None] = tell
        self.provider: Callable[[ChatModel], BatchProvider] = provider
        self._grace = grace
        self._partial: Counter[str] = Counter()

    async def advance(self, batch: Batch, model: ChatModel) -> list[Result] | None:
        """Lead one batch as far as it goes now: its results when it has ended, None as long as it has not.

        It is found again where its submission was cut off, and dropped where its provider never had it.
        """
        provider = self.provider(model)
        state = await self._state(batch, provider)
        if state is None or not state.ended:
            return None
        requests = await apart(self.store.requests_of, batch.id)
        read = await read_results(batch, state, _lines(provider, state), requests, model, self.door)
        if read.is_partial and self._partial[batch.id] < MOST_PARTIAL:
            self._partial[batch.id] += 1
            return None
        if batch.is_over:
            gone = [r.request.id for r in read.results if r.completion is None and r.request.state == "succeeded"]
            await apart(self.store.take, gone)  # they were answered, and the provider has deleted that: sent anew
        else:
            is_ours = await apart(self.store.finish, batch.id, state.status, read.problem[:2000], read.billed)
            if is_ours:
                answered = sum(r.completion is not None for r in read.results)
                self.tell(f"{batch.id}: {state.status}, {answered:,} of {len(requests):,} answered")
                if read.problem:
                    self.tell(f"{batch.id}: {read.problem[:300]}")
            await self.settle()
        return [r._replace(status=BUSY) for r in read.results] if state.is_full else read.results

    async def forget(self, batch: Batch, model: ChatModel) -> None:
        """End a batch that its provider no longer knows; each of its requests is billed by its worst case.

        Raises:
            BatchFailed: It has ended already, or it is not certain that it was sent.
        """
        if batch.state != "submitted":
            raise BatchFailed(f"{batch.id} is {batch.state}: there is nothing to be forgotten")
        requests = await apart(self.store.requests_of, batch.id)
        gone = ProviderBatch(batch.provider_id, "forgotten", True)
        read = await read_results(batch, gone, _nothing(), requests, model, self.door)
        await apart(self.store.finish, batch.id, gone.status, read.problem, read.billed)
        await self.settle()

    async def cancel(self, batch: Batch, model: ChatModel) -> None:
        """Ask the provider to end a batch; what it has answered by then is billed, by `advance`."""
        if batch.state != "submitted":
            raise BatchFailed(f"{batch.id} is {batch.state}: there is nothing at the provider to be cancelled")
        state = await self.provider(model).cancel(batch.provider_id)
        await apart(self.store.change, batch.id, "submitted", "submitted", status=state.status)

    async def _state(self, batch: Batch, provider: BatchProvider) -> ProviderBatch | None:
        """What the provider says of a batch; None where it cannot say anything yet, or never had it."""
        if batch.state in ("prepared", "submitting"):
            await self._recover(batch, provider)
            return None
        try:
            state = await provider.get(batch.provider_id)
        except Exception as error:
            if getattr(error, "status_code", None) != 404:
                raise
            raise BatchFailed(
                f"{batch.id} ({batch.provider_id}) is not known at its provider: use the key and address that it was "
                "sent with; where it is gone, `agentcascade batch forget` books its worst case", 404
            ) from error  # fmt: skip
        if state.status != batch.status and batch.state == "submitted":
            await apart(self.store.change, batch.id, "submitted", "submitted", status=state.status)
            self.tell(f"{batch.id}: {state.status}")
        return state

    async def _recover(self, batch: Batch, provider: BatchProvider) -> None:
        """Find a batch whose submission was cut off; drop it where it never began, or nobody has it."""
        is_over = now() - batch.changed_at > self._grace
        if batch.state == "submitting":
            others = await apart(self.store.provider_ids, batch.model)
            try:
                state = await provider.find(batch.id, batch.requests, batch.created_at, others)
            except Undecided:
                return
            if state is not None:
                values = {"provider_id": state.id, "status": state.status}
                if await apart(lambda: self.store.change(batch.id, "submitting", "submitted", **values)):
                    self.tell(f"{batch.id}: found again at its provider")
                return
        if is_over and await apart(self.store.drop, batch.id, batch.state):
            await self.settle()
            self.tell(f"{batch.id}: never reached its provider")

    async def settle(self) -> None:
        """Settle the reservations of batches that are over, those too whose process died before it could."""
        for id, dollars in await apart(self.store.unsettled):
            await self.door.settle(id, dollars)
            await apart(self.store.note_settled, id)


async def _nothing() -> AsyncIterator[BatchLine | None]:
    for line in list[BatchLine]():
        yield line


async def _lines(provider: BatchProvider, state: ProviderBatch) -> AsyncIterator[BatchLine | None]:
    """The lines of a batch's results, as far as the provider still has them."""
    try:
        async for line in provider.results(state):
            yield line
    except Exception as error:
        if getattr(error, "status_code", None) not in GONE:
            raise
        yield None
