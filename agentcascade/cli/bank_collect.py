"""``agentcascade bank collect``: demonstrations from tasks, where they pay most, or by batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentcascade.cli.batching import open_batches, poll_option
from agentcascade.cli.numbers import FiniteRange
from agentcascade.cli.settings import database_options, load_config, opened_bank
from agentcascade.cli.terminal import say

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank
    from agentcascade.config.load import CascadeConfig
    from agentcascade.episodes.active_collect import Choice
    from agentcascade.episodes.batch_collect import Collected, Task


@click.command()
@database_options
@click.argument("tasks", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@click.option("--namespace", help="Default: bank.namespace.")
@click.option("--batch", is_flag=True, help="By the provider's batch interface: half the price as a rule.")
@click.option(
    "--active/--no-active",
    default=None,
    help="In the order of what a demonstration is expected to save, until none is worth its price. Default: "
    "collect.active.",
)
@click.option(
    "--budget",
    type=FiniteRange(0, min_open=True),
    metavar="DOLLARS",
    help="Of all active collection in the namespace. Default: collect.budget.",
)
@click.option(
    "--horizon", type=click.IntRange(1), help="Future episodes over which it must pay. Default: collect.horizon."
)
@click.option("--suite", help="Instead of TASKS: the training tasks of a benchmark, played in its world.")
@click.option("--split", help="Of the suite's tasks. Default: those that its demonstrations come from.")
@click.option("--limit", type=click.IntRange(1), default=10_000, show_default=True, help="Tasks of the suite, at most.")
@click.option("--dry-run", is_flag=True, help="Only say what would be collected, and why; nothing is asked.")
@poll_option
def collect(
    config: Path | None,
    url: str | None,
    tasks: Path | None,
    namespace: str | None,
    batch: bool,
    active: bool | None,
    budget: float | None,
    horizon: int | None,
    suite: str | None,
    split: str | None,
    limit: int,
    dry_run: bool,
    poll: float,
) -> None:
    """Have the teacher answer TASKS, each of one step, and bank what judge.model calls a success.

    A line of TASKS is {"messages": [...]} or {"goal": "..."}, perhaps with id and tools. Without judge.model all
    answers are banked. With --active or --batch; a run that was stopped is continued by another.
    """
    from agentcascade.episodes.batch_collect import read_tasks

    settings = with_options(load_config(config, url), active, budget, horizon, namespace)
    if settings.teacher is None:
        raise click.UsageError("say who answers: teacher.name in the configuration")
    if not (batch or settings.collect.active):
        raise click.UsageError("say how: --active (where a demonstration pays most), --batch, or both")
    if (tasks is None) == (suite is None):
        raise click.UsageError("give either a file of TASKS or --suite NAME")
    if suite is not None and batch:
        raise click.UsageError("--batch answers tasks of one step; those of a --suite are played step by step")
    if dry_run and not settings.collect.active:
        raise click.UsageError("--dry-run says what --active would choose: give --active, too")
    listed = read_tasks(tasks) if tasks is not None else []
    if suite is not None or not batch or dry_run:
        collect_active(settings, listed, suite, split, limit, dry_run=dry_run)
    else:
        collect_batch(settings, listed, poll)


def with_options(
    settings: CascadeConfig, active: bool | None, budget: float | None, horizon: int | None, namespace: str | None
) -> CascadeConfig:
    """The configuration with what the command line says in place of it."""
    said = {"active": active, "budget": None if budget is None else Decimal(str(budget)), "horizon": horizon}
    changes: dict[str, Any] = {
        "collect": settings.collect.model_copy(update={k: v for k, v in said.items() if v is not None})
    }
    if namespace:
        changes["bank"] = settings.bank.model_copy(update={"namespace": namespace})
    return settings.model_copy(update=changes)


def collect_active(
    settings: CascadeConfig, listed: Sequence[Task], suite: str | None, split: str | None, limit: int, *, dry_run: bool
) -> None:
    """Collect where it pays, and say of every task why; with `dry_run` only what would be chosen."""
    from agentcascade.assembly import components
    from agentcascade.assembly.cascade import build
    from agentcascade.bench.active_pool import suite_pool
    from agentcascade.cli.active_plan import say_plan, say_run
    from agentcascade.cli.active_suite import open_suite
    from agentcascade.episodes.active_collect import collect_actively, single_step

    # What was bought and not banked yet is found again after a crash.
    cache = settings.response_cache.model_copy(update={"enabled": True, "ttl_seconds": 30 * 86_400.0})
    settings = settings.model_copy(update={"mode": "collect", "response_cache": cache})
    world = open_suite(suite, settings) if suite is not None else None
    if world is not None:
        settings = world.settings

    async def run() -> None:
        cascade = build(settings, models=world.model if world is not None else components.make_model)
        async with cascade:
            if world is not None:
                pool = await suite_pool(world.suite, world.environment, world.tasks(split, limit), cascade)
            else:
                judged = cascade.context.judge is not None
                pool = [single_step(task, judged=judged) for task in listed]
            if dry_run:
                await say_plan(cascade, pool)
            else:
                say_run(await collect_actively(cascade.engine, pool, tell=say_choice), len(pool), settings)

    asyncio.run(run())


def say_choice(choice: Choice) -> None:
    """One line for each task, when its episode has ended."""
    paid = "of unknown price" if choice.dollars is None else f"${choice.dollars:.4f}"
    goal = " ".join(choice.goal.split())[:60]
    say(f"{'banked' if choice.banked else 'not banked'} {goal!r}, {paid}; {choice.candidate}")
    if choice.problem:
        say(f"  {choice.problem}", err=True)


def collect_batch(settings: CascadeConfig, listed: Sequence[Task], poll: float) -> None:
    """Collect by batches; with collect.active only what pays, chosen before anything is sent."""
    from agentcascade.actions.formats import make_format
    from agentcascade.assembly.components import make_judge, make_model
    from agentcascade.bank.active import account_of, check_priced
    from agentcascade.cli.active_plan import planned_tasks
    from agentcascade.episodes.batch_collect import collect_by_batch
    from agentcascade.episodes.judge import ModelJudge
    from agentcascade.models.tokens import token_counter
    from agentcascade.redaction.redactor import Redactor

    assert settings.teacher is not None
    count = token_counter()
    judge = make_judge(settings, count)
    if judge is not None and not isinstance(judge, ModelJudge):
        raise click.UsageError("judge.name is a function: with --batch only a model (judge.model) judges")
    actions, space = settings.actions, settings.bank.namespace
    formats = make_format(actions.format, actions.pattern, fold=actions.fold, ordered=settings.tools.side_effects)
    redactor = Redactor(**settings.redaction.model_dump())
    own = account_of(space, settings.collect.budget) if settings.collect.active else None
    teacher = make_model(settings.teacher, count)
    if own is not None:
        check_priced(teacher)

    async def run(bank: Bank) -> tuple[int, Collected]:
        chosen = await planned_tasks(settings, bank, listed) if settings.collect.active else listed
        batches = open_batches(settings, bank.database, poll)
        accounts = (*settings.budgets.of_namespace(space), *(() if own is None else (own,)))
        collected = await collect_by_batch(
            chosen, teacher, judge, bank, batches, formats, namespace=space, accounts=accounts
        )
        return len(chosen), collected

    with opened_bank(settings, redactor.trajectory) as bank:
        sent, collected = asyncio.run(run(bank))
    judged = f"{collected.succeeded:,} called a success, " if judge is not None else ""
    say(f"{collected.answered:,} of {sent:,} tasks answered, {judged}{collected.banked:,} banked")
    for problem in collected.problems[:5]:
        say(problem, err=True)
