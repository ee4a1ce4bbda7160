"""Batches that are sent, waited for, taken up again after a crash, and billed, whoever asks for them.

A request is known by the digest of its body. Whoever asks for the same again finds it in the database: under way, or
answered and not yet taken. So a command that was killed is simply run again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from agentcascade._util.threads import apart
from agentcascade.batches.lines import write_line
from agentcascade.batches.polling import BatchPoller
from agentcascade.batches.providers import address_of
from agentcascade.batches.results import Result
from agentcascade.batches.sending import MOST_LOST, BatchRun, RequestPart, is_passing
from agentcascade.batches.types import BatchAnswer, BatchProvider, BatchRequest
from agentcascade.models.fan_out import sum_completions
from agentcascade.protocols import ChatModel
from agentcascade.types import Account, Purpose, Role

POLL_SECONDS = 30.0


class Batches:
    """Sends what can wait by the batch interface of its model's provider.

    Args:
        poller: Leads what was sent to its end.
        seconds: Between two questions whether batches have ended.
    """

    def __init__(self, poller: BatchPoller, *, seconds: float = POLL_SECONDS) -> None:
        self.poller: BatchPoller = poller
        self.seconds: float = seconds

    async def complete_all(
        self,
        model: ChatModel,
        requests: Sequence[BatchRequest],
        *,
        job: str,
        role: Role,
        purpose: Purpose,
        namespace: str,
        accounts: Sequence[Account] = (),
        on_keys: Callable[[Sequence[str]], Awaitable[None]] | None = None,
        own: str = "",
    ) -> list[BatchAnswer]:
        """The answers to all requests, which takes up to a day; those that are under way already are not sent again.

        Args:
            model: Who is asked.
            requests: What is asked.
            job: What for, to be shown: a command's name.
            role: In which the model answers.
            purpose: What for, as the ledger sums it up.
            namespace: Whose money it is.
            accounts: Budgets into which the worst case must fit.
            on_keys: Gets the key of each request's first sample before anything is sent, for `answers_to`.
            own: Tells these requests from equal ones of whoever says something else: each has its own answer.

        Returns:
            One answer for each request, in their order; all that was answered is billed. Keep them, then `take` them.

        Raises:
            NoBatches: The model's provider has no batch interface; nothing was sent.
            BudgetExceeded: The worst case does not fit into a budget; what does not fit is not sent.
            UnknownPrice: A budget is to hold, and the model has no price.
            BatchFailed: The provider takes no batch, or no longer knows one.
            Exception: What the provider's client raises.
        """
        provider = self.poller.provider(model)
        parts = {p.key: p for p in self._parts(model, provider, requests, accounts, namespace, own)}
        if parts:
            await provider.check()
        if on_keys is not None:
            first = {part.asked: part.key for part in reversed(parts.values())}
            await on_keys([first[index] for index in range(len(requests))])
        await self.poller.settle()
        named = {"job": job, "role": role, "purpose": purpose, "namespace": namespace}
        run = BatchRun(self.poller, provider, model, parts, named, accounts, self.seconds)
        results = await run.results()
        by_request: dict[int, list[Result]] = {index: [] for index in range(len(requests))}
        for part in parts.values():
            by_request[part.asked].append(results[part.key])
        return [_joined(model, of_request) for of_request in by_request.values()]

    async def answers_to(self, model: ChatModel, keys: Sequence[str]) -> dict[str, BatchAnswer]:
        """The answers to requests that another process has sent, by their keys, when all have ended.

        Args:
            model: Who was asked.
            keys: As `on_keys` of `complete_all` got them. What was never sent, or failed and is billed, is left out.

        Raises:
            BatchFailed: The provider no longer knows a batch.
            Exception: What the provider's client raises.
        """
        answers: dict[str, BatchAnswer] = {}
        await self.poller.settle()
        lost = 0
        while claimed := await apart(self.poller.store.find, [key for key in keys if key not in answers]):
            moved = False
            for id in sorted({request.batch for request in claimed.values()}):
                batch = await apart(self.poller.store.get, id)
                try:
                    results = None if batch is None else await self.poller.advance(batch, model)
                except Exception as error:
                    lost += 1
                    if not is_passing(error) or lost > MOST_LOST:
                        raise
                    continue
                lost = 0
                moved = moved or results is not None
                for r in results or ():
                    if r.request.key in claimed:
                        answers[r.request.key] = BatchAnswer(r.completion, r.error, (r.request.id,))
            if not moved:
                await asyncio.sleep(self.seconds)
        return answers

    async def take(self, answers: Sequence[BatchAnswer]) -> None:
        """Note that what was answered is kept elsewhere: asked again, it is sent anew."""
        await apart(self.poller.store.take, [id for answer in answers for id in answer.ids])

    def _parts(
        self,
        model: ChatModel,
        provider: BatchProvider,
        requests: Sequence[BatchRequest],
        accounts: Sequence[Account],
        namespace: str,
        own: str,
    ) -> Iterator[RequestPart]:
        """The requests as their provider gets them, each with a key of its own, the same at every run of a namespace.

        Another namespace's equal request is another one: each pays for its own.
        """
        seen: Counter[str] = Counter()
        address = address_of(model)
        for index, request in enumerate(requests):
            for given in _single(model, request.options):
                call, options = self.poller.door.plan(model, request.messages, given, accounts)
                body = provider.body(request.messages, options)
                whole = {"namespace": namespace, "model": model.name, "at": address, "body": body}
                digest = blake2b(write_line(whole | {"own": own} if own else whole), digest_size=24)
                number = seen[digest.hexdigest()]
                seen[digest.hexdigest()] += 1
                yield RequestPart(index, f"{digest.hexdigest()}-{number}", body, call)


def _single(model: ChatModel, options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The options of each request that it takes to have `n` answers."""
    n, seed = int(options.get("n") or 1), options.get("seed")
    if n == 1 or model.supports_n:
        return [options]
    return [{**options, "n": 1} | ({} if seed is None else {"seed": seed + i}) for i in range(n)]


def _joined(model: ChatModel, results: Sequence[Result]) -> BatchAnswer:
    """One answer of the results of all samples of a request."""
    completions = [r.completion for r in results if r.completion is not None]
    errors = dict.fromkeys(r.error for r in results if r.completion is None)
    completion = None
    if completions:
        completion = completions[0] if len(completions) == 1 else sum_completions(model.name, completions)
    return BatchAnswer(completion, "; ".join(errors)[:500], tuple(r.request.id for r in results))
