"""What active collection would choose, what it chose, and what came of it: plans, a run's last words, a report."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.table import Column, Table

from agentcascade.cli.terminal import console, say

if TYPE_CHECKING:
    from agentcascade.bank.active import ActiveChooser, Candidate
    from agentcascade.bank.bank import Bank
    from agentcascade.cascade import Cascade
    from agentcascade.config.load import CascadeConfig
    from agentcascade.episodes.active_collect import ActiveRun, PoolTask
    from agentcascade.episodes.batch_collect import Task

SHOWN = 30
"""Tasks of a plan that are listed."""


def plan(
    chooser: ActiveChooser, cold_start: int, *, taken: int, remaining: Decimal | None
) -> tuple[list[Candidate], str]:
    """What would be chosen if every episode succeeded and cost what is expected, and why it would stop.

    Args:
        chooser: Of the tasks that are left.
        cold_start: Most of them in a cold start.
        taken: Tasks that were demonstrated or tried before.
        remaining: Dollars of the budget; None where there is none.
    """
    from agentcascade.bank.active import why_stop

    chosen: list[Candidate] = []
    while True:
        candidate = chooser.best()
        stopped = why_stop(candidate, chooser.cold, taken + len(chosen), cold_start, remaining)
        if stopped is not None or candidate is None:
            return chosen, stopped or ""
        chosen.append(candidate)
        chooser.take(candidate.number)
        if remaining is not None and candidate.price is not None:
            remaining -= candidate.price


async def planned_tasks(settings: CascadeConfig, bank: Bank, listed: Sequence[Task]) -> list[Task]:
    """The tasks of a batch: those that pay, all chosen before it is sent."""
    from agentcascade._util.threads import apart
    from agentcascade.bank.active import account_of
    from agentcascade.episodes.active_collect import chooser_of, ended_tasks, single_step, spent_on
    from agentcascade.storage.budgets import DatabaseBudgets

    space, collect = settings.bank.namespace, settings.collect
    ended = await apart(ended_tasks, bank.database, space, [task.id for task in listed])
    left = [task for task in listed if task.id not in ended]
    if not left:
        say("all tasks were demonstrated before" if listed else "there are no tasks")
        return []
    pool = [single_step(task, judged=True) for task in left]
    chooser = await apart(lambda: chooser_of(bank, space, pool, k=settings.retrieval.k, horizon=collect.horizon))
    account = account_of(space, collect.budget)
    remaining = None if account is None else account.limit - await spent_on(DatabaseBudgets(bank.database), account)
    chosen, stopped = plan(chooser, collect.cold_start, taken=len(ended), remaining=remaining)
    say(f"{len(chosen):,} of {len(listed):,} tasks are sent; {stopped}")
    return [left[candidate.number] for candidate in chosen]


async def say_plan(cascade: Cascade, pool: Sequence[PoolTask]) -> None:
    """A table of what would be collected."""
    from agentcascade.bank.active import account_of
    from agentcascade.episodes.active_collect import prepare, spent_on

    settings = cascade.config
    left, before, chooser = await prepare(cascade.engine, pool, settings.bank.namespace)
    if chooser is None:
        say("all tasks of the pool were demonstrated or tried before")
        return
    account = account_of(settings.bank.namespace, settings.collect.budget)
    remaining = None if account is None else account.limit - await spent_on(cascade.context.budgets, account)
    chosen, stopped = plan(chooser, settings.collect.cold_start, taken=before, remaining=remaining)
    table = Table(
        "goal", *(Column(name, justify="right") for name in ("saves", "costs", "need", "of steps")), "why", box=None,
        padding=(0, 2, 0, 0),
    )  # fmt: skip
    for candidate in chosen[:SHOWN]:
        table.add_row(
            " ".join(left[candidate.number].goal.split())[:60], _dollars(candidate.saving), _dollars(candidate.price),
            "–" if chooser.cold else f"{candidate.need:.2f}", "–" if chooser.cold else f"{candidate.steps:.2f}",
            candidate.why,
        )  # fmt: skip
    console().print(table)
    total = sum((c.price or Decimal(0) for c in chosen), Decimal(0))
    cost = "" if chooser.cold else f", for ${total:.4f}"
    say(f"{len(chosen):,} of {len(pool):,} tasks would be collected{cost}; {stopped}. Nothing was asked.")
    if not chooser.cold:
        say(evidence_line(chooser, settings.collect.horizon))


def evidence_line(chooser: ActiveChooser, horizon: int) -> str:
    """What the estimate rests on."""
    curve, evidence = chooser.curve, chooser.evidence
    none, full = (1 / (1 + 2.718281828459045 ** -(curve.intercept + curve.slope * s)) for s in (0.0, 1.0))
    return (
        f"by {len(evidence.goals):,} live episodes: without support {none:.2f} of steps need the teacher, with full "
        f"support {full:.2f}; a deferral costs ${evidence.step_dollars or 0:.5f} more; {horizon:,} future episodes"
    )


def say_run(run: ActiveRun, pool: int, settings: CascadeConfig) -> None:
    """What a run collected, what that is expected to save, and why it stopped."""
    banked = sum(choice.banked for choice in run.choices)
    budget = settings.collect.budget
    of = "" if budget is None else f" of ${budget:.4f}"
    before = f", {run.done_before:,} before" if run.done_before else ""
    if run.elsewhere:
        before += f", {run.elsewhere:,} by another run meanwhile"
    say(
        f"{banked:,} of {pool:,} tasks banked in this run{before}; spent ${run.spent:.4f}{of}; expected to save "
        f"${run.expected:.4f} in {settings.collect.horizon:,} episodes (`agentcascade bank collected` says what it did)"
    )
    say(f"stopped: {run.stopped}")


def show_collected(settings: CascadeConfig, namespace: str) -> None:
    """A table of what active collection has brought so far."""
    from agentcascade.bank.realised import realised
    from agentcascade.cli.settings import opened_bank

    with opened_bank(settings) as bank:
        clusters = realised(bank, namespace, max(1, settings.retrieval.k))
    table = Table(
        "goals like", *(Column(name, justify="right") for name in (
            "collected", "banked", "paid", "expected", "need before", "since", "saved so far",
        )), box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for c in clusters[:SHOWN]:
        before, after = (
            "–" if n.share is None else f"{n.share:.2f} of {n.episodes:,} episodes" for n in (c.before, c.after)
        )
        saved = "–" if c.saved is None else f"${c.saved:.4f}"
        table.add_row(
            " ".join(c.goal.split())[:60], f"{c.collected:,}", f"{c.banked:,}", _dollars(c.paid), _dollars(c.expected),
            before, after, saved,
        )  # fmt: skip
    console().print(table)
    say(
        f"{len(clusters):,} clusters of {namespace}. need: share of steps that needed the teacher, before and after "
        "the first demonstration; what else changed at that time is in it, too. expected: over the horizon."
        if clusters
        else f"nothing was collected actively in {namespace}: see `agentcascade bank collect --active`"
    )


def _dollars(dollars: Decimal | None) -> str:
    return "not known" if dollars is None else f"${dollars:.4f}"
