"""``agentcascade tune``: the cheapest rule whose risk is certified on a log, as a part of a configuration."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentcascade.cli.logs import draft_tokens, log_options, read_steps, source_files
from agentcascade.cli.numbers import FiniteRange
from agentcascade.cli.terminal import console as safe_console
from agentcascade.cli.terminal import say
from agentcascade.errors import InvalidRequest
from agentcascade.routers.tuning.families import FAMILIES, family
from agentcascade.routers.tuning.risks import KINDS

if TYPE_CHECKING:
    from agentcascade.routers.tuning.columns import Arm
    from agentcascade.routers.tuning.tuner import Settings, Tuned
    from agentcascade.steplog.types import LoggedStep


def known_families(context: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        try:
            family(name)
        except InvalidRequest as error:
            raise click.BadParameter(str(error), context, parameter) from None
    return names


@click.command()
@log_options
@click.option(
    "--max-risk", type=FiniteRange(), required=True, metavar="R", help="What may go wrong at most, e.g. 0.02."
)
@click.option(
    "--confidence", type=FiniteRange(), default=0.95, show_default=True, metavar="C", help="Of the certificate."
)
@click.option("--risk", type=click.Choice(KINDS), default="teacher-disagreement", show_default=True, help="See below.")
@click.option(
    "--count",
    type=click.Choice(["marginal", "selective", "total"]),
    default="marginal",
    show_default=True,
    help="Errors among all steps, among those that the student takes, or with the teacher's own.",
)
@click.option(
    "--weigh",
    type=click.Choice(["episodes", "steps"]),
    default="steps",
    show_default=True,
    help="What counts alike: every step, or every episode however long it is (more is certified from the same log).",
)
@click.option(
    "--longest",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Most steps that an episode can have, where steps count alike; default: the log's longest.",
)
@click.option(
    "--method",
    type=click.Choice(["test", "conformal"]),
    default="test",
    show_default=True,
    help="Learn then test, or split-conformal control of the expected risk.",
)
@click.option(
    "--test",
    type=click.Choice(["auto", "binomial", "hoeffding-bentkus", "betting"]),
    default="auto",
    show_default=True,
    help="P-values; auto: exact binomial where every episode is one step, else betting.",
)
@click.option("--multiplicity", type=click.Choice(["sequence", "bonferroni"]), default="sequence", show_default=True)
@click.option(
    "--rules",
    "families",
    metavar="FAMILY",
    callback=known_families,
    multiple=True,
    default=("consistency",),
    show_default=True,
    help=f"Rules to try, repeatable: {', '.join(FAMILIES)}, or a registered router that has a family. More families "
    "share one confidence.",
)
@click.option("--n", "sizes", type=click.IntRange(1), multiple=True, help="Numbers of samples to try; repeatable.")
@click.option(
    "--sampling",
    type=click.Choice(["auto", "one-call", "staged", "separate"]),
    default="auto",
    show_default=True,
    help="How samples are bought.",
)
@click.option(
    "--error-cost",
    type=FiniteRange(),
    default=0.0,
    show_default=True,
    help="What a wrong action costs later, in teacher answers: where mistakes make episodes longer.",
)
@click.option(
    "--k",
    "ks",
    type=click.IntRange(0),
    multiple=True,
    help="Reckon what the rule would cost with so many demonstrations, where the log holds another number alone; "
    "repeatable. Of cost only: how the student agrees then was not observed.",
)
@click.option("--no-cache-discounts", is_flag=True, help="Count every prompt token at its full price.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("tuned"), show_default=True, help="Folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print the certificate.")
def command(**options: Any) -> None:
    """Choose the cheapest rule whose risk is certified, from a log of what student and teacher answered.

    \b
    wrong                 the student's action is taken and is not the right one
    teacher-disagreement  the student's action is taken and is not the teacher's
    episode-loss          an episode that a wrong or differing action may lose

    Writes rule.yaml (a part of a configuration), certificate.json and report.html. Where no rule is certified,
    rule.yaml sends every step to the teacher, and the command says how many more episodes are needed.
    """
    from agentcascade.routers.tuning.certification import certificate, statement
    from agentcascade.routers.tuning.tuner import tune

    settings = _settings(options)
    console = safe_console(stderr=options["as_json"])
    steps = read_steps(options)
    with console.status("replaying"):
        tuned = tune(steps, settings)
        proof = certificate(tuned, source_files(options))
        paths = write(options["out"], tuned, steps, proof)
    if options["as_json"]:
        say(json.dumps(proof, indent=2))
    else:
        console.print(table(tuned))
        for line in [*notes(tuned), *other_ks(tuned, steps, options["ks"])]:
            console.print(line, style="dim", soft_wrap=True)
    console.print(statement(tuned), style="bold", soft_wrap=True)
    console.print("wrote " + ", ".join(map(str, paths)), soft_wrap=True)


def _settings(options: dict[str, Any]) -> Settings:
    from agentcascade.routers.tuning.risks import Risk
    from agentcascade.routers.tuning.tuner import Settings

    return Settings(
        max_risk=options["max_risk"],
        confidence=options["confidence"],
        risk=Risk(options["risk"], options["count"], options["weigh"], options["longest"]),
        method=options["method"],
        test=options["test"],
        multiplicity=options["multiplicity"],
        rules=tuple(dict.fromkeys(options["families"])),
        sizes=tuple(sorted({*options["sizes"]})),
        sampling=options["sampling"],
        discounts=not options["no_cache_discounts"],
        sample_cost=options["sample_cost"],
        draft_tokens=draft_tokens(options),
        error_cost=options["error_cost"],
        seed=options["seed"],
    )


def write(folder: Path, tuned: Tuned, steps: Sequence[Any], proof: dict[str, Any]) -> list[Path]:
    """The three files; returns their paths."""
    from agentcascade._util.files import write_atomically
    from agentcascade.reports.tuning import write_tuning_report
    from agentcascade.routers.tuning.certification import of_history
    from agentcascade.routers.tuning.fragments import dump

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("rule.yaml", "certificate.json", "report.html")]
    comment = f"agentcascade tune, {proof['created_at']}\n{proof['statement']}\nSee certificate.json and report.html."
    risk = tuned.settings.risk
    if tuned.chosen is not None:
        comment += f"\nIt takes for granted that {of_history(tuned.chosen.replayed.arm.history)}."
    if tuned.chosen is not None and risk.kind == "teacher-disagreement" and not risk.by_episode:  # audits are of steps
        watch = f"{{rate: 0.05, risk: {tuned.settings.max_risk:g}, count: {risk.count}}}"
        comment += f"\nTo keep watching, and to pay for one teacher answer in twenty steps: audit: {watch}"
    write_atomically(paths[0], dump(proof["rule"], comment))
    write_atomically(paths[1], json.dumps(proof, indent=2, ensure_ascii=False) + "\n")
    write_tuning_report(paths[2], tuned, steps, proof)
    return paths


def table(tuned: Tuned, limit: int = 12) -> Any:
    """The chosen rule first, then the cheapest others that are certified, then those that come nearest."""
    from rich.table import Table

    rows_table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    rows_table.add_column("rule", no_wrap=True, max_width=52)
    for heading in ("student acts", "risk", "p", "certified", "saving", "95 %"):
        rows_table.add_column(heading, justify="left" if heading == "certified" else "right", no_wrap=True)
    shown = [(c.replayed.cost if c.certified else c.replayed.risk or 0.0, c) for c in tuned.candidates]
    shown.sort(key=lambda pair: (pair[1] is not tuned.chosen, not pair[1].certified, pair[0]))
    several = arm_names({c.replayed.arm for c in tuned.candidates})
    for _, one in shown[:limit]:
        replayed = one.replayed
        rows_table.add_row(
            f"{one.rule.name} {several[replayed.arm]}".strip(),
            f"{replayed.acceptance:.1%}",
            "–" if replayed.risk is None else f"{replayed.risk:.4f}",
            "–" if one.p is None else f"{one.p:.2g}",
            "yes" if one.certified else "no",
            f"{replayed.saving.value:.1%}",
            f"{replayed.saving.low:.1%} to {replayed.saving.high:.1%}",
        )
    return rows_table


def arm_names(arms: Collection[Arm]) -> dict[Arm, str]:
    """As short as tells them apart."""
    if len(arms) == 1:
        return dict.fromkeys(arms, "")
    students = {arm.student for arm in arms}
    return {arm: f"({arm.setting})" if len(students) == 1 and arm.setting else f"({arm})" for arm in arms}


def notes(tuned: Tuned) -> list[str]:
    """What must be said beside the table."""
    lines = [
        f"{tuned.steps:,} steps of {tuned.episodes:,} episodes, up to {tuned.most} samples; "
        f"{len(tuned.candidates)} rules, {len(tuned.certified)} certified; {tuned.test} test",
        f"risk: {tuned.settings.risk}",
    ]
    longest = tuned.settings.risk.longest or 1
    if longest > 1:
        lines.append(f"assumed: no episode has more than {longest} steps (--longest; default: the log's longest)")
    lines += [f"left out: {number:,} {reason}" for reason, number in tuned.left_out.items()]
    if tuned.unit != "dollars":
        lines.append(
            "the log does not know dollars (usage and prices): costs are counted in teacher answers, and one sample is "
            f"assumed to cost {tuned.settings.sample_cost:g} of one (--sample-cost)"
        )
    return lines


def other_ks(tuned: Tuned, steps: Sequence[LoggedStep], ks: Sequence[int]) -> list[str]:
    """What the rule would cost with other numbers of demonstrations, and what a log that shows it would take."""
    from agentcascade.routers.tuning.costs import Bill
    from agentcascade.routers.tuning.other_k import at_other_k, single_k

    logged = single_k(steps)
    if logged is None:
        held = sorted({step.student.k for step in steps if step.student.k is not None})
        return [f"--k is for a log of one number of demonstrations: this one holds {held or 'none'}"] if ks else []
    best = tuned.chosen or max(tuned.candidates, key=lambda one: one.replayed.saving.value)
    bill = Bill(
        tuned.sampling,
        tuned.settings.discounts,
        tuned.settings.sample_cost,
        draft_tokens=tuned.settings.draft_tokens,
    )
    lines = []
    for k in sorted({*(ks or (max(1, logged // 2),))} - {logged}):
        try:
            other = at_other_k(steps, best.replayed.arm, best.rule, bill, k)
        except InvalidRequest as error:
            return [f"--k {k}: {error}"] if ks else []
        known = f"{best.rule.name} would save {other.saving:.1%} instead of {best.replayed.saving.value:.1%}"
        lines.append(
            f"k={k} was not observed: were agreement what it is at k={logged}, {known}; that certifies nothing. To "
            f"know, log about {other.episodes:,} episodes with shadow.ks: [{k}, {logged}] (bench --log-k {k} --log-k "
            f"{logged}): about ${other.log_dollars:.2f} of samples at it"
        )
    return lines
