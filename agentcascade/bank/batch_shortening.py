"""Shortening of banked reasoning by the provider's batch interface."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal

from agentcascade.bank.shortening import OPTIONS, Shortener, ShorteningReport, ShorteningTask
from agentcascade.batches.run import Batches
from agentcascade.batches.types import BatchRequest
from agentcascade.types import Account


async def shorten_by_batch(
    shortener: Shortener,
    tasks: Sequence[ShorteningTask],
    batches: Batches,
    accounts: Callable[[str], Sequence[Account]],
) -> ShorteningReport:
    """Rewrite the tasks' thoughts by batches, one for each namespace; what is answered is written, then taken.

    Returns:
        What it did; its dollars are those of this run's answers, which the ledger has as ``batch``.
    """
    by_namespace: dict[str, list[ShorteningTask]] = {}
    for task in tasks:
        by_namespace.setdefault(task.trajectory.namespace, []).append(task)

    async def run(namespace: str) -> ShorteningReport:
        of_namespace = by_namespace[namespace]
        answers = await batches.complete_all(
            shortener.model,
            [BatchRequest(shortener.messages(task), OPTIONS) for task in of_namespace],
            job="bank shorten",
            role="teacher",
            purpose="other",
            namespace=namespace,
            accounts=accounts(namespace),
        )
        report = ShorteningReport()
        for task, answer in zip(of_namespace, answers):
            kept = await shortener.keep(task, answer.completion, answer.error, ())
            dollars = answer.completion.dollars if answer.completion is not None else Decimal(0)
            report = report.plus(kept._replace(dollars=dollars))
        await batches.take(answers)
        return report

    report = ShorteningReport()
    for done in await asyncio.gather(*(run(namespace) for namespace in by_namespace)):
        report = report.plus(done)
    return report
