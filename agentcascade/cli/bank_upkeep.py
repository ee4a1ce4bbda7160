"""Upkeep of a bank behind its commands: pruning for coverage, teachers' utility, detours cut by replay."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import click
from rich.table import Column, Table

from agentcascade.cli.settings import database, opened_bank
from agentcascade.cli.terminal import console, say
from agentcascade.config.load import CascadeConfig

SIZES = (0.9, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02)
"""Shares of a namespace's trajectories for which the coverage is said."""


def prune_for_coverage(
    settings: CascadeConfig, namespace: str | None, cover: float, *, dry_run: bool, yes: bool
) -> None:
    """Keep the trajectories that cover each namespace best, and say which coverage is kept at which size."""
    from agentcascade.bank.catalog import Catalog
    from agentcascade.bank.coverage import covering
    from agentcascade.bank.teachers import namespaces

    with opened_bank(settings) as bank:
        catalog = Catalog(bank.database)
        for name in [namespace] if namespace is not None else namespaces(bank.database):
            covered = covering(bank, name)
            count, whole = len(covered.pks), covered.coverage[-1]
            size = min(count, int(cover)) if cover >= 1 else covered.size_for(cover)
            table = Table(
                Column("trajectories", justify="right"), Column("coverage kept", justify="right"), box=None,
                padding=(0, 2, 0, 0), title=name, title_justify="left",
            )  # fmt: skip
            for n in sorted({count, size, *(max(1, round(share * count)) for share in SIZES)}, reverse=True):
                marked = " ← kept" if n == size else ""
                table.add_row(f"{n:,}", f"{covered.coverage[n - 1] / whole:.3f}{marked}")
            console().print(table)
            if dry_run or size == count:
                continue
            if not yes:
                click.confirm(f"Remove {count - size:,} of {count:,} trajectories from {name}?", abort=True)
            share = covered.coverage[size - 1] / whole
            removed = catalog.keep_only(name, covered.pks[:size], covered.pks)
            say(f"removed {removed:,} trajectories of {name}: {share:.3f} of coverage is kept")


def show_teachers(settings: CascadeConfig, namespace: str | None) -> None:
    """A table of whose demonstrations help."""
    from agentcascade.bank.teachers import namespaces, teacher_utilities

    table = Table(
        "namespace", "teacher", Column("trajectories", justify="right"), Column("steps shown to", justify="right"),
        Column("accepted", justify="right"), Column("compared", justify="right"), Column("right", justify="right"),
        Column("episodes", justify="right"), Column("succeeded", justify="right"), box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    with database(settings) as opened:
        for name in [namespace] if namespace is not None else namespaces(opened):
            for u in teacher_utilities(opened, name):
                table.add_row(
                    name, u.model or "not known", f"{u.trajectories:,}",
                    f"{u.shown:,.1f}", _share(u.accepted, u.shown), f"{u.compared:,.1f}", _share(u.right, u.compared),
                    f"{u.episodes:,}", _share(u.successes, u.episodes),
                )  # fmt: skip
    console().print(table)


def show_wanted(settings: CascadeConfig, namespace: str, near: float, limit: int) -> None:
    """A table of clusters, where a demonstration pays soonest first."""
    from agentcascade.bank.wanted import wanted

    table = Table(
        "goals like", *(Column(name, justify="right") for name in (
            "goals", "episodes", "steps", "deferred", "wrong", "banked", "saves at most", "costs", "pays after",
        )), box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    with opened_bank(settings) as bank:
        clusters = wanted(bank, namespace, near)
    for c in clusters[:limit]:
        soonest = c.pays_after
        table.add_row(
            " ".join(c.goal.split())[:60], f"{c.goals:,}", f"{c.episodes:,}", f"{c.steps:,}",
            f"{c.deferred / c.steps:.2f}", f"{c.wrong:,}/{c.audited:,}", f"{c.banked:,}", _dollars(c.saves),
            _dollars(c.price), "–" if soonest is None else f"{soonest:.1f} episodes",
        )  # fmt: skip
    console().print(table)
    say(
        f"{min(limit, len(clusters))} of {len(clusters):,} clusters of {namespace}. Saves: all that deferrals cost, an "
        "episode. Costs: the teacher alone, an episode. wrong: of audited steps."
        if clusters
        else f"no step of {namespace} was voted on yet: run mode cascade first"
    )


def _dollars(dollars: Decimal | None) -> str:
    return "unknown" if dollars is None else f"${dollars:.4f}"


def _share(part: float, whole: float) -> str:
    """A share with its Wilson interval of .95."""
    if not whole:
        return "–"
    z, p = 1.96, part / whole
    centre, spread = p + z * z / (2 * whole), z * (p * (1 - p) / whole + z * z / (4 * whole * whole)) ** 0.5
    scale = 1 + z * z / whole
    return f"{p:.2f} [{max(0.0, (centre - spread) / scale):.2f}, {min(1.0, (centre + spread) / scale):.2f}]"


def improve_bank(
    settings: CascadeConfig,
    namespace: str | None,
    suite_name: str,
    splits: tuple[str, ...],
    tasks: int,
    seed: int,
    *,
    limit: int | None,
    dry_run: bool,
) -> None:
    """Replace trajectories by shorter ones that the suite's world has confirmed."""
    from agentcascade import registry
    from agentcascade.bank.catalog import Catalog
    from agentcascade.bank.improvement import TaskIndex, improve, replace, shorter
    from agentcascade.models.tokens import token_counter
    from agentcascade.prompts.quoting import neutral
    from agentcascade.prompts.transcripts import render_step
    from agentcascade.redaction.redactor import Redactor

    if not hasattr(registry.load(registry.find("suites", suite_name, "--suite"), "--suite"), "environment"):
        raise click.UsageError(f"--suite {suite_name} has no world that could replay a trajectory: name one that has")
    suite = registry.construct("suites", suite_name, "--suite", {})
    suite.check()
    redactor, count = Redactor(**settings.redaction.model_dump()), token_counter()

    def see(observation: str) -> str:
        return redactor.text(neutral(observation))

    paths = (
        task.path
        for split in splits or suite.defaults.splits
        for task in suite.tasks(split, tasks, seed, workers=1, on_progress=lambda done, total: None)[0]
    )
    marks = settings.collect.drop_observations or tuple(suite.dropped)
    outcomes, steps, left, before, after, replays = Counter[str](), 0, 0, 0, 0, 0
    environment = suite.environment(expert=False)
    try:
        with opened_bank(settings) as bank:
            index = TaskIndex(environment, paths, see)
            for number, banked in enumerate(list(Catalog(bank.database).all(namespace))):
                if limit is not None and number >= limit:
                    break
                improved = improve(banked, environment, index, marks=marks, see=see).improvement
                outcomes[improved.outcome if improved is not None else "no such task"] += 1
                steps += len(banked.steps)
                left += len(improved.steps) if improved is not None else len(banked.steps)
                before += sum(count(render_step(step)) for step in banked.steps)
                kept = improved.steps if improved is not None else banked.steps
                after += sum(count(render_step(step)) for step in kept)
                replays += improved.replays if improved is not None else 0
                if improved is not None and improved.outcome == "cut" and not dry_run:
                    replace(bank, banked, shorter(banked, improved), improved.kept)
    finally:
        environment.close()
    each = ", ".join(f"{n:,} {outcome}" for outcome, n in outcomes.most_common())
    say(
        f"{sum(outcomes.values()):,} trajectories: {each or 'none'}. {'Could leave' if dry_run else 'Left'} {left:,} "
        f"of {steps:,} steps, {after:,} of {before:,} tokens; {replays:,} replays"
    )


def restore_bank(settings: CascadeConfig, namespace: str | None) -> None:
    """Go back to the trajectories as they were banked."""
    from agentcascade.bank.catalog import Catalog
    from agentcascade.bank.improvement import replace, restored

    done = 0
    with opened_bank(settings) as bank:
        for banked in list(Catalog(bank.database).all(namespace)):
            original = restored(banked)
            if original is not None:
                done += replace(bank, banked, original)
    say(f"{done:,} trajectories are as they were banked")
