"""``agentcascade bank``: the demonstrations of a database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import click
from rich.table import Column, Table

from agentcascade.cli.bank_collect import collect
from agentcascade.cli.batching import batch_options, open_batches
from agentcascade.cli.groups import NamingGroup
from agentcascade.cli.numbers import FiniteRange
from agentcascade.cli.settings import database, database_options, load_config, opened_bank
from agentcascade.cli.terminal import console, say

namespace_option = click.option("--namespace", help="Default: all of them.")


@click.group(cls=NamingGroup)
def command() -> None:
    """List, show, export, import and prune demonstrations."""


command.add_command(collect)


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
    from agentcascade.prompts.prompts import UNQUOTED
    from agentcascade.prompts.transcripts import render_step

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
    """Write the bank, its shelf of failures too, to PATH, one JSON object a line."""
    from agentcascade.bank.catalog import Catalog

    with database(load_config(config, url)) as opened:
        exported = Catalog(opened).export(path, namespace)
    failures = f" and {exported.failures:,} outcomes of the shelf of failures" if exported.failures else ""
    say(f"wrote {exported.trajectories:,} trajectories{failures} to {path}")


@command.command("import")
@database_options
@click.option("--namespace", help="Move all to this one. Default: as exported.")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_(config: Path | None, url: str | None, namespace: str | None, path: Path) -> None:
    """Bank what an export holds, redacted as this configuration wants it: all of it, or nothing where a line is bad."""
    from agentcascade.bank.catalog import import_export
    from agentcascade.redaction.redactor import Redactor

    settings = load_config(config, url)
    redactor = Redactor(**settings.redaction.model_dump())
    with opened_bank(settings, redactor.trajectory) as bank:
        imported = asyncio.run(import_export(bank, path, namespace, redact=redactor.outcome))
    failures = f"; {imported.failures:,} outcomes of the shelf of failures" if imported.failures else ""
    say(f"added {imported.added:,} trajectories; {imported.duplicates:,} were there already{failures}")


@command.command()
@database_options
@namespace_option
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
def failures(config: Path | None, url: str | None, namespace: str | None, limit: int, offset: int) -> None:
    """The shelf of failures, newest first: what failed in which situation, and what worked there after all."""
    from agentcascade.bank.catalog import Catalog

    to = console()
    with database(load_config(config, url)) as opened:
        catalog = Catalog(opened)
        counts, entries = catalog.failure_counts(), catalog.failures(namespace, limit=limit, offset=offset)
    table = Table(
        Column("id", no_wrap=True), "namespace", "episode", "step", "observation", "action", "result", "failed",
        box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for o in entries:
        texts = [" ".join(text.split())[:60] for text in (o.observation, o.action, o.result)]
        table.add_row(o.id, o.namespace, o.episode, str(o.step + 1), *texts, "yes" if o.failed else "no, it worked")
    to.print(table)
    total = sum(n for name, n in counts.items() if namespace in (None, name))
    to.print(
        f"{len(entries)} of {total:,} outcomes shown."
        if total
        else "The shelf of failures is empty: contrast.failed says what a failure is."
    )


@command.command()
@database_options
@namespace_option
@click.option("--keep", type=click.IntRange(0), help="Keep so many, the newest.")
@click.option("--before", type=click.DateTime(), help="Remove what was banked before this day (UTC).")
@click.option(
    "--shelf",
    type=click.Choice(["both", "demonstrations", "failures"]),
    default="both",
    show_default=True,
    help="Of which shelf; --keep counts each for itself.",
)
@click.option(
    "--cover",
    type=FiniteRange(min=0, min_open=True),
    help="Of each namespace's trajectories keep so many (from 1 on), or as many as have such a share of the coverage "
    "(below 1): near-duplicates go, each step stays near to one that is kept.",
)
@click.option("--dry-run", is_flag=True, help="With --cover: only say which coverage is kept at which size.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(
    config: Path | None,
    url: str | None,
    namespace: str | None,
    keep: int | None,
    before: datetime | None,
    shelf: str,
    cover: float | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Remove old trajectories, near-duplicates, and old outcomes from the shelf of failures."""
    from agentcascade.bank.catalog import Catalog

    if cover is not None:
        if keep is not None or before is not None or shelf == "failures":
            raise click.UsageError("--cover chooses by what demonstrations show: leave --keep, --before, --shelf out")
        from agentcascade.cli.bank_upkeep import prune_for_coverage

        prune_for_coverage(load_config(config, url), namespace, cover, dry_run=dry_run, yes=yes)
        return
    if keep is None and before is None:
        raise click.UsageError("say what to prune: --keep N, --before DAY, or both; or --cover")
    if dry_run:
        raise click.UsageError("--dry-run goes with --cover")
    if not yes:
        what = "demonstrations and failures" if shelf == "both" else shelf
        click.confirm(f"Remove {what} from {namespace or 'every namespace'}?", abort=True)
    day = before.replace(tzinfo=UTC) if before else None
    with database(load_config(config, url)) as opened:
        catalog = Catalog(opened)
        if shelf != "failures":
            say(f"removed {catalog.prune(namespace, keep=keep, before=day):,} trajectories")
        if shelf != "demonstrations":
            removed = catalog.prune_failures(namespace, keep=keep, before=day)
            if removed or shelf == "failures":
                say(f"removed {removed:,} outcomes of the shelf of failures")


@command.command()
@database_options
@click.argument("ids", nargs=-1, required=True)
def remove(config: Path | None, url: str | None, ids: tuple[str, ...]) -> None:
    """Remove trajectories, and outcomes of the shelf of failures, by id."""
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
@click.option("--max-dollars", type=FiniteRange(0), help="Begin no call once so much is spent.")
@click.option("--parallel", type=click.IntRange(1), default=4, show_default=True, help="Calls at once.")
@batch_options
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
    batch: bool,
    poll: float,
    dry_run: bool,
    undo: bool,
) -> None:
    """Have a model rewrite the banked reasoning once, shorter where a step is easy.

    Shown where prompt.shortened is true. The originals are kept; what is done already is passed over, so that a run
    that was cut off is continued by another.
    """
    from agentcascade.assembly.components import make_model
    from agentcascade.bank.batch_shortening import shorten_by_batch
    from agentcascade.bank.catalog import Catalog
    from agentcascade.bank.shortening import Shortener, WordLimits
    from agentcascade.billing.door import Door
    from agentcascade.config.sections import ModelConfig
    from agentcascade.models.tokens import token_counter
    from agentcascade.prompts.prompts import prompts_of
    from agentcascade.storage.budgets import DatabaseBudgets

    if batch and max_dollars is not None:
        raise click.UsageError("--max-dollars counts calls at once: with --batch set budgets.per_namespace or --limit")
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
        elif batch:
            batches = open_batches(settings, bank.database, poll)
            report = asyncio.run(shorten_by_batch(shortener, tasks, batches, accounts))
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
    if batch and not dry_run:
        say("what it did cost is in the ledger, as batch")
    if not dry_run and report.left + len(report.failures):
        say(f"{report.left + len(report.failures):,} trajectories are left: run it again")


@command.command()
@database_options
@namespace_option
def teachers(config: Path | None, url: str | None, namespace: str | None) -> None:
    """Whose demonstrations help: how often a step that was shown them was accepted, and was right."""
    from agentcascade.cli.bank_upkeep import show_teachers

    show_teachers(load_config(config, url), namespace)


@command.command()
@database_options
@click.option("--namespace", help="Default: that of the configuration.")
@click.option("--near", type=FiniteRange(0, 1), default=0.75, show_default=True, help="Cosine of alike goals.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Show so many clusters.")
def wanted(config: Path | None, url: str | None, namespace: str | None, near: float, limit: int) -> None:
    """Where demonstrations are wanted: goals at which the student defers or errs most, per dollar of the teacher."""
    from agentcascade.cli.bank_upkeep import show_wanted

    settings = load_config(config, url)
    show_wanted(settings, namespace or settings.bank.namespace, near, limit)


@command.command()
@database_options
@click.option("--namespace", help="Default: that of the configuration.")
def collected(config: Path | None, url: str | None, namespace: str | None) -> None:
    """What active collection has brought: paid, expected, and how often such steps need the teacher since."""
    from agentcascade.cli.active_plan import show_collected

    settings = load_config(config, url)
    show_collected(settings, namespace or settings.bank.namespace)


@command.command()
@database_options
@namespace_option
@click.option("--suite", default="alfworld", show_default=True, help="Whose world the trajectories were played in.")
@click.option("--split", "splits", multiple=True, help="Of its tasks, several times; default: those of its benchmark.")
@click.option("--tasks", type=click.IntRange(1), default=10_000, show_default=True, help="Of a split, at most.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the tasks.")
@click.option("--limit", type=click.IntRange(1), help="Look at so many trajectories at most.")
@click.option("--dry-run", is_flag=True, help="Only say what could be cut.")
@click.option("--undo", is_flag=True, help="Go back to the originals.")
def improve(
    config: Path | None,
    url: str | None,
    namespace: str | None,
    suite: str,
    splits: tuple[str, ...],
    tasks: int,
    seed: int,
    limit: int | None,
    dry_run: bool,
    undo: bool,
) -> None:
    """Cut loops and failed actions out of trajectories, where their world is won without them.

    The world replays the original and what is left of it; what does not replay alike, or is not won, stays as it is.
    collect.drop_observations says which observations show that an action failed.
    """
    from agentcascade.cli.bank_upkeep import improve_bank, restore_bank

    settings = load_config(config, url)
    if undo:
        restore_bank(settings, namespace)
    else:
        improve_bank(settings, namespace, suite, splits, tasks, seed, limit=limit, dry_run=dry_run)
