"""``agentcascade bank``: the demonstrations of a database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Column, Table

from agentcascade.cli.settings import database, database_options, load_config
from agentcascade.cli.terminal import console, say
from agentcascade.config.load import CascadeConfig

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank

namespace_option = click.option("--namespace", help="Default: all of them.")


@click.group()
def command() -> None:
    """List, show, export, import and prune demonstrations."""


@command.command("list")
@database_options
@namespace_option
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
def list_(config: Path | None, url: str | None, namespace: str | None, limit: int, offset: int) -> None:
    """The banked trajectories, newest first."""
    from agentcascade.bank.catalog import Catalog

    to = console()
    with database(load_config(config, url)) as opened:
        catalog = Catalog(opened)
        counts, entries = catalog.counts(), catalog.list(namespace, limit=limit, offset=offset)
    if namespace is not None:
        counts = {name: count for name, count in counts.items() if name == namespace}
    table = Table(
        Column("id", no_wrap=True), "namespace", "goal", "steps", "teacher", "banked", box=None, padding=(0, 2, 0, 0)
    )
    for e in entries:
        cells = e.id, e.namespace, e.goal.replace("\n", " ")[:100], str(e.length), e.model, f"{e.created_at:%Y-%m-%d}"
        table.add_row(*cells)
    to.print(table)
    total = sum(n for n, _ in counts.values())
    each = "; ".join(f"{name}: {n:,} trajectories, {steps:,} steps" for name, (n, steps) in sorted(counts.items()))
    to.print(f"{len(entries)} of {total:,} shown. {each}" if total else "The bank is empty.")


@command.command()
@database_options
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="The whole record.")
def show(config: Path | None, url: str | None, id: str, as_json: bool) -> None:
    """One trajectory, as a student would read it."""
    from agentcascade.bank.catalog import Catalog
    from agentcascade.prompts.demonstrations import render_step
    from agentcascade.prompts.prompts import UNQUOTED

    with database(load_config(config, url)) as opened:
        trajectory = Catalog(opened).get(id)
    if as_json:
        say(trajectory.model_dump_json(indent=2))
        return
    say(f"{trajectory.id} · {trajectory.namespace} · {trajectory.model} · {trajectory.created_at:%Y-%m-%d %H:%M}")
    say(f"Goal: {trajectory.goal}" + (f"\nPlan: {trajectory.plan}" if trajectory.plan else ""))
    for number, step in enumerate(trajectory.steps, 1):
        say(f"\n[{number}]\n{render_step(step, UNQUOTED)}")


@command.command()
@database_options
@namespace_option
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def export(config: Path | None, url: str | None, namespace: str | None, path: Path) -> None:
    """Write the bank to PATH, one JSON object a line."""
    from agentcascade.bank.catalog import Catalog

    with database(load_config(config, url)) as opened:
        say(f"wrote {Catalog(opened).export(path, namespace):,} trajectories to {path}")


@command.command("import")
@database_options
@click.option("--namespace", help="Move all to this one. Default: as exported.")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_(config: Path | None, url: str | None, namespace: str | None, path: Path) -> None:
    """Bank the trajectories of an export: all of them, or none where a line is bad."""
    from agentcascade.bank.catalog import import_export

    with opened_bank(load_config(config, url)) as bank:
        added, duplicates = asyncio.run(import_export(bank, path, namespace))
    say(f"added {added:,} trajectories; {duplicates:,} were there already")


@command.command()
@database_options
@namespace_option
@click.option("--keep", type=click.IntRange(0), help="Keep so many, the newest.")
@click.option("--before", type=click.DateTime(), help="Remove what was banked before this day (UTC).")
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(
    config: Path | None, url: str | None, namespace: str | None, keep: int | None, before: datetime | None, yes: bool
) -> None:
    """Remove old trajectories."""
    from agentcascade.bank.catalog import Catalog

    if keep is None and before is None:
        raise click.UsageError("say what to prune: --keep N, --before DAY, or both")
    if not yes:
        click.confirm(f"Remove demonstrations from {namespace or 'every namespace'}?", abort=True)
    with database(load_config(config, url)) as opened:
        removed = Catalog(opened).prune(namespace, keep=keep, before=before.replace(tzinfo=UTC) if before else None)
    say(f"removed {removed:,} trajectories")


@command.command()
@database_options
@click.argument("ids", nargs=-1, required=True)
def remove(config: Path | None, url: str | None, ids: tuple[str, ...]) -> None:
    """Remove trajectories by id."""
    from agentcascade.bank.catalog import Catalog

    with database(load_config(config, url)) as opened:
        catalog = Catalog(opened)
        for id in ids:
            catalog.remove(id)
            say(f"removed {id}")


@command.command()
@database_options
def reembed(config: Path | None, url: str | None) -> None:
    """Embed the whole bank anew with the configured embedder, after retrieval.embedder was changed."""
    with opened_bank(load_config(config, url)) as bank:
        say(f"embedded {bank.reembed():,} texts with {bank.embedder.name}")


@command.command()
@database_options
@namespace_option
@click.option("--model", "name", help="Who rewrites. Default: the teacher.")
@click.option("--easy-words", type=click.IntRange(1), default=12, show_default=True, help="Of an easy step's thought.")
@click.option("--hard-words", type=click.IntRange(1), default=40, show_default=True, help="Of any other.")
@click.option("--limit", type=click.IntRange(1), help="Rewrite so many trajectories at most.")
@click.option("--max-dollars", type=click.FloatRange(0), help="Begin no call once so much is spent.")
@click.option("--parallel", type=click.IntRange(1), default=4, show_default=True, help="Calls at once.")
@click.option("--dry-run", is_flag=True, help="Only say what it would save and cost.")
@click.option("--undo", is_flag=True, help="Go back to the originals.")
def shorten(
    config: Path | None,
    url: str | None,
    namespace: str | None,
    name: str | None,
    easy_words: int,
    hard_words: int,
    limit: int | None,
    max_dollars: float | None,
    parallel: int,
    dry_run: bool,
    undo: bool,
) -> None:
    """Have a model rewrite the banked reasoning once, shorter where a step is easy.

    Shown where prompt.shortened is true. The originals are kept; what is done already is passed over, so that a run
    that was cut off is continued by another.
    """
    from agentcascade.assembly.components import make_model
    from agentcascade.bank.catalog import Catalog
    from agentcascade.bank.shortening import Shortener, WordLimits
    from agentcascade.billing.door import Door
    from agentcascade.config.sections import ModelConfig
    from agentcascade.models.tokens import token_counter
    from agentcascade.prompts.prompts import prompts_of
    from agentcascade.storage.budgets import DatabaseBudgets

    settings, count = load_config(config, url), token_counter()
    if undo:
        with database(settings) as opened:
            say(f"{Catalog(opened).restore(namespace):,} steps have their own reasoning again")
        return
    teacher = ModelConfig(name=name) if name and (not settings.teacher or name != settings.teacher.name) else None
    chosen = teacher or settings.teacher
    if chosen is None:
        raise click.UsageError("say who rewrites: --model NAME, or teacher.name in the configuration")
    with opened_bank(settings) as bank:
        words, prompts = WordLimits(easy_words, hard_words), prompts_of(settings.prompt)
        door = Door(budgets=DatabaseBudgets(bank.database), count=count, settings=settings.budgets)
        model, accounts = make_model(chosen, count), settings.budgets.of_namespace
        shortener = Shortener(bank, model, count, words, prompts, door=door, accounts=accounts)
        tasks = asyncio.run(shortener.tasks(namespace))[:limit]
        if dry_run:
            report = shortener.estimate(tasks)
        else:
            limit_dollars = None if max_dollars is None else Decimal(str(max_dollars))
            report = asyncio.run(shortener.run(tasks, parallel=parallel, max_dollars=limit_dollars))
    dollars = "of unknown price" if report.dollars is None else f"${report.dollars:.4f}"
    say(
        f"{'would rewrite' if dry_run else 'rewrote'} {report.easy:,} easy and {report.hard:,} other steps of "
        f"{report.trajectories:,} trajectories: {report.before:,} tokens of reasoning "
        f"{'could become' if dry_run else 'became'} {report.after:,}, for {dollars}"
    )
    for failure in report.failures[:5]:
        say(failure, err=True)
    if not dry_run and report.left + len(report.failures):
        say(f"{report.left + len(report.failures):,} trajectories are left: run it again")


@contextmanager
def opened_bank(settings: CascadeConfig) -> Iterator[Bank]:
    from agentcascade.assembly.components import make_embedder, open_bank

    with database(settings, create=True) as opened:
        bank = open_bank(settings, opened, make_embedder(settings.retrieval.embedder))
        try:
            yield bank
        finally:
            bank.close()
