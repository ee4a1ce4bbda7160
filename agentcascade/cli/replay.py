"""``agentcascade replay``: what rules would have done on a log, without a model call."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentcascade.cli.logs import draft_tokens, log_options, read_steps
from agentcascade.cli.settings import ray_option
from agentcascade.cli.terminal import console as safe_console
from agentcascade.cli.terminal import say

if TYPE_CHECKING:
    from agentcascade.routers.tuning.replay import Replayed
    from agentcascade.routers.tuning.rules import Rule


@click.command()
@log_options
@click.option(
    "--rule",
    "rules",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="rule.yaml or a whole configuration; repeatable.",
)
@click.option("--n", "sizes", type=click.IntRange(1), multiple=True, help="All thresholds of n samples; repeatable.")
@click.option(
    "--sampling",
    type=click.Choice(["one-call", "staged", "separate"]),
    default="one-call",
    show_default=True,
    help="How samples are bought.",
)
@click.option("--no-cache-discounts", is_flag=True, help="Count every prompt token at its full price.")
@ray_option
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Of --ray.")
@click.option("--json", "as_json", is_flag=True)
def command(rules: tuple[Path, ...], sizes: tuple[int, ...], as_json: bool, **options: Any) -> None:
    """Evaluate rules on a log: how often the student acts, what goes wrong, what it costs.

    Without --rule and --n: the teacher alone, the student alone, and every threshold of 3 and 5 samples, as far as the
    log has as many; else of as many as it has. Where several students answered, also a sample of each as a committee.
    """
    from agentcascade.bench.rule_replay import RuleOnLog, replay_rules
    from agentcascade.routers.tuning.columns import arms, chain, columns, failed
    from agentcascade.routers.tuning.committees import Committee, committee
    from agentcascade.routers.tuning.costs import Bill, check
    from agentcascade.routers.tuning.families import committees
    from agentcascade.routers.tuning.fragments import read as read_rule
    from agentcascade.routers.tuning.rules import Chain, TeacherAlone, Threshold
    from agentcascade.routers.tuning.unless_stuck import unwrapped

    def thresholds(sizes: Iterable[int]) -> list[Rule]:
        return [Threshold(n, needed) for n in sizes for needed in range(n, 0, -1)]

    check(options["sample_cost"])
    steps = read_steps(options)
    if lost := sum(bool(s.students) and failed(s.students[0]) for s in steps):
        say(f"{lost} of {len(steps)} steps are left out: their shadow failed", err=True)
    chosen: list[Rule] = [read_rule(path) for path in rules]
    chosen += thresholds(sizes)
    discounts, drafts = not options["no_cache_discounts"], draft_tokens(options)
    bill = Bill(options["sampling"], discounts, options["sample_cost"], draft_tokens=drafts)
    logs = [columns(steps, arm=arm) for arm in arms(steps)]
    if rules or sizes:
        alone = [rule for rule in chosen if not isinstance(unwrapped(rule), Chain | Committee)]
        pairs = [RuleOnLog(i, rule) for i in range(len(logs)) for rule in alone]
    else:
        first: list[Rule] = [TeacherAlone(), Threshold(1, 1)]
        pairs = [
            RuleOnLog(i, rule)
            for i, log in enumerate(logs)
            for rule in first + thresholds([n for n in (3, 5) if n <= log.most] or [log.most][: log.most - 1])
        ]
    if chains := [rule for rule in chosen if isinstance(unwrapped(rule), Chain)]:
        pairs += [RuleOnLog(len(logs), rule) for rule in chains]
        logs.append(chain(steps))
    for rule in chosen:
        inner = unwrapped(rule)
        if isinstance(inner, Committee):
            pairs.append(RuleOnLog(len(logs), rule))
            logs.append(committee(steps, inner.members))
    if not chosen and any(len({student.model for student in step.students}) > 1 for step in steps):
        logs.append(committee(steps))
        names = [member.arm.student for member in logs[-1].members]
        pairs += [RuleOnLog(len(logs) - 1, rule) for rules in committees(names, [1]) for rule in rules]
    rows = replay_rules(logs, pairs, bill, ray=options["ray"], workers=options["workers"])
    if as_json:
        say(json.dumps([_plain(row) for row in rows], indent=2))
        return
    console = safe_console()
    console.print(_table(rows))
    if rows[0].unit != "dollars":
        assumed = f"one sample is assumed to cost {bill.sample_cost:g} of one (--sample-cost)"
        console.print(f"costs in teacher answers: dollars are not known; {assumed}", style="dim")


def _plain(row: Replayed) -> dict[str, Any]:
    fields = dataclasses.asdict(row)
    return {**fields, "rule": row.rule.name, "router": dict(row.rule.router), "arm": row.arm._asdict()}


def _table(rows: list[Replayed]) -> Any:
    from rich.table import Table

    from agentcascade.cli.tune import arm_names

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("rule", no_wrap=True, max_width=44)
    for name in ("student acts", "wrong", "≠ teacher", "accuracy", "cost", "saving", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    several = arm_names({row.arm for row in rows})
    for row in rows:
        figures = (row.risks["wrong"], row.risks["teacher-disagreement"], row.accuracy)
        table.add_row(
            f"{row.rule.name} {several[row.arm]}".strip(),
            f"{row.acceptance:.1%}",
            *("–" if value is None else f"{value:.4f}" for value in figures),
            f"{row.cost:.5g}",
            f"{row.saving.value:.1%}",
            f"{row.saving.low:.1%} to {row.saving.high:.1%}",
        )
    return table
