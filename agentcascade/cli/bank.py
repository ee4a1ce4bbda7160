"""``agentcascade bank``: the demonstrations of a database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from agentcascade.cli.settings import database, database_options, load
from agentcascade.config import CascadeConfig

if TYPE_CHECKING:
    from agentcascade.bank import Bank

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
    from agentcascade.catalog import Catalog

    console = Console()
    with database(load(config, url)) as opened:
        catalog = Catalog(opened)
        counts, entries = catalog.counts(), catalog.list(namespace, limit=limit, offset=offset)
    if namespace is not None:
        counts = {name: count for name, count in counts.items() if name == namespace}
    table = Table(
        Column("id", no_wrap=True), "namespace", "goal", "steps", "teacher", "banked", box=None, padding=(0, 2, 0, 0)
    )
    for e in entries:
        cells = e.id, e.namespace, e.goal.replace("\n", " ")[:100], str(e.length), e.model, f"{e.created_at:%Y-%m-%d}"
        table.add_row(*map(escape, cells))
    console.print(table)
    total = sum(n for n, _ in counts.values())
    each = "; ".join(f"{name}: {n:,} trajectories, {steps:,} steps" for name, (n, steps) in sorted(counts.items()))
    console.print(f"{len(entries)} of {total:,} shown. {each}" if total else "The bank is empty.", markup=False)


@command.command()
@database_options
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="The whole record.")
def show(config: Path | None, url: str | None, id: str, as_json: bool) -> None:
    """One trajectory, as a student would read it."""
    from agentcascade.catalog import Catalog
    from agentcascade.prompts import render_step

    with database(load(config, url)) as opened:
        trajectory = Catalog(opened).get(id)
    if as_json:
        click.echo(trajectory.model_dump_json(indent=2))
        return
    click.echo(
        f"{trajectory.id} · {trajectory.namespace} · {trajectory.model} · {trajectory.created_at:%Y-%m-%d %H:%M}"
    )
    click.echo(f"Goal: {trajectory.goal}" + (f"\nPlan: {trajectory.plan}" if trajectory.plan else ""))
    for number, step in enumerate(trajectory.steps, 1):
        click.echo(f"\n[{number}]\n{render_step(step)}")


@command.command()
@database_options
@namespace_option
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def export(config: Path | None, url: str | None, namespace: str | None, path: Path) -> None:
    """Write the bank to PATH, one JSON object a line."""
    from agentcascade.catalog import Catalog

    with database(load(config, url)) as opened:
        click.echo(f"wrote {Catalog(opened).export(path, namespace):,} trajectories to {path}")


@command.command("import")
@database_options
@click.option("--namespace", help="Move all to this one. Default: as exported.")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_(config: Path | None, url: str | None, namespace: str | None, path: Path) -> None:
    """Bank the trajectories of an export: all of them, or none where a line is bad."""
    from agentcascade.catalog import import_export

    with opened_bank(load(config, url)) as bank:
        added, known = asyncio.run(import_export(bank, path, namespace))
    click.echo(f"added {added:,} trajectories; {known:,} were there already")


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
    from agentcascade.catalog import Catalog

    if keep is None and before is None:
        raise click.UsageError("say what to prune: --keep N, --before DAY, or both")
    if not yes:
        click.confirm(f"Remove demonstrations from {namespace or 'every namespace'}?", abort=True)
    with database(load(config, url)) as opened:
        gone = Catalog(opened).prune(namespace, keep=keep, before=before.replace(tzinfo=UTC) if before else None)
    click.echo(f"removed {gone:,} trajectories")


@command.command()
@database_options
@click.argument("ids", nargs=-1, required=True)
def remove(config: Path | None, url: str | None, ids: tuple[str, ...]) -> None:
    """Remove trajectories by id."""
    from agentcascade.catalog import Catalog

    with database(load(config, url)) as opened:
        catalog = Catalog(opened)
        for id in ids:
            catalog.remove(id)
            click.echo(f"removed {id}")


@command.command()
@database_options
def reembed(config: Path | None, url: str | None) -> None:
    """Embed the whole bank anew with the configured embedder, after retrieval.embedder was changed."""
    with opened_bank(load(config, url)) as bank:
        click.echo(f"embedded {bank.reembed():,} texts with {bank.embedder.name}")


@contextmanager
def opened_bank(settings: CascadeConfig) -> Iterator[Bank]:
    from agentcascade.assembly import make_embedder, open_bank

    with database(settings, create=True) as opened:
        bank = open_bank(settings, opened, make_embedder(settings.retrieval.embedder))
        try:
            yield bank
        finally:
            bank.close()
