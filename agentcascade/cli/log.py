"""``agentcascade log``: logs of steps, in and out."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentcascade.cli.groups import NamingGroup
from agentcascade.cli.settings import database, database_options, load_config
from agentcascade.cli.terminal import console, say

if TYPE_CHECKING:
    from agentcascade.steplog.types import LoggedStep

FORMATS = ("auto", "plain", "openai", "litellm", "langfuse")
OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A file; .parquet for Parquet, else JSON lines.",
)


@click.group(cls=NamingGroup)
def command() -> None:
    """Import, export and show logs of steps that student and teacher both answered."""


@command.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--format", "form", type=click.Choice(FORMATS), default="auto", show_default=True)
@click.option("--teacher", help="The model that counts as the teacher, as the log names it (or its file).")
@click.option("--student", "students", multiple=True, help="Likewise; repeatable, cheapest first. Default: all others.")
@click.option("--actions", default="auto", show_default=True, help="Format of actions: auto, text, react, json, tools.")
@click.option("--fold", is_flag=True, help="Case, spacing and quotes mean nothing in actions: as actions.fold.")
@OUT
def import_(
    files: tuple[Path, ...],
    form: str,
    teacher: str | None,
    students: tuple[str, ...],
    actions: str,
    fold: bool,
    out: Path,
) -> None:
    """Turn foreign logs into one log of steps.

    Transcripts in OpenAI's format, litellm's and Langfuse's exports hold one model's calls each; calls that were asked
    the same are one step. A transcript without a `model` is of the model that its file is named after. Every answer of
    a transcript is a call: of a conversation that was exported again and again as it grew, keep the last export alone,
    else its early answers count as several samples.
    """
    from agentcascade.actions.formats import make_format
    from agentcascade.errors import InvalidRequest
    from agentcascade.steplog import foreign
    from agentcascade.steplog.files import read_log as read
    from agentcascade.steplog.files import write_log
    from agentcascade.steplog.matching import match_calls

    left_out: Counter[str] = Counter()
    if form == "plain" or (form == "auto" and all(is_steps(path) for path in files)):
        steps = [step for path in files for step in read(path)]
    else:
        if teacher is None:
            raise click.UsageError("--teacher says which model of the log is the teacher: it is needed for this format")
        matches = match_calls(
            (call for path in files for call in foreign.read_model_calls(path, form)),
            teacher,
            students,
            formats=make_format(actions, fold=fold),
        )
        steps, left_out = matches.steps, matches.left_out
    for reason, number in left_out.most_common():
        say(f"left out: {number:,} {reason}")
    if not steps:
        raise InvalidRequest("no step was answered by teacher and student both: nothing was written")
    say(f"wrote {write_log(out, steps):,} steps to {out}")


def is_steps(path: Path) -> bool:
    """Whether the file is plain JSON lines or a log of ours, by its beginning."""
    import json

    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return True
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        first = next((line for line in lines if line.strip()), "")
    try:
        row = json.loads(first)
    except ValueError:
        return False
    return isinstance(row, dict) and ("student" in row or "students" in row)


@command.command()
@OUT
@database_options
@click.option("--namespace", help="Default: all.")
@click.option("--cascade", help="Of one configured cascade. Default: all.")
@click.option("--days", type=click.IntRange(1), help="Only the last so many.")
def export(
    out: Path, config: Path | None, url: str | None, namespace: str | None, cascade: str | None, days: int | None
) -> None:
    """Write the shadows and audits of the database."""
    from agentcascade.cli.logs import price_table
    from agentcascade.steplog.database import export as read
    from agentcascade.steplog.files import write_log

    settings = load_config(config, url)
    since = None if days is None else datetime.now(UTC) - timedelta(days=days)
    with database(settings) as opened:
        steps = read(opened, namespace=namespace, since=since, cascade=cascade, prices=price_table(settings))
        say(f"wrote {write_log(out, steps):,} steps to {out}")


@command.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def show(file: Path) -> None:
    """Say what a log holds."""
    from rich.table import Table

    from agentcascade.steplog.files import read_log as read

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _facts(read(file)).items():
        table.add_row(name, value)
    console().print(table)


def _facts(steps: list[LoggedStep]) -> dict[str, str]:
    students = Counter(d.model or "unnamed" for s in steps for d in s.students)
    samples = Counter(len(d.samples) for s in steps for d in s.students)
    agreed = [_majority(s) for s in steps]
    both = [(m, s.teacher) for m, s in zip(agreed, steps) if m is not None and s.teacher is not None]
    with_gold = [(m, s.right) for m, s in zip(agreed, steps) if m is not None and s.gold is not None]
    facts: dict[str, Any] = {
        "steps": f"{len(steps):,}",
        "episodes": f"{len({s.cluster for s in steps}):,}",
        "students": ", ".join(f"{name} ({number:,})" for name, number in students.most_common()),
        "samples a step": ", ".join(f"{n} ({number:,})" for n, number in samples.most_common(6)),
        "teacher known": _share(sum(s.teacher is not None for s in steps), len(steps)),
        "right answer known": _share(sum(s.gold is not None for s in steps), len(steps)),
        "outcome known": _share(sum(s.success is not None for s in steps), len(steps)),
        "audits": f"{sum(s.kind == 'audit' for s in steps):,}",
        "majority is the teacher's": _share(sum(m == t for m, t in both), len(both)),
        "majority is right": _share(sum(m in right for m, right in with_gold), len(with_gold)),
        "dollars known": _share(
            sum(s.teacher_price is not None and s.teacher_usage is not None for s in steps), len(steps)
        ),
    }
    return facts


def _majority(step: LoggedStep) -> str | None:
    """Of the first student's samples; of equals, the one seen first."""
    counts = Counter(s.action for s in step.student.samples if s.action is not None)
    return counts.most_common(1)[0][0] if counts else None


def _share(some: int, of: int) -> str:
    return f"{some:,} of {of:,} ({some / of:.1%})" if of else "unknown"
