"""Options that commands on a log of steps share: where it comes from, and prices that it lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentcascade.cli.settings import database, database_options, load_config

if TYPE_CHECKING:
    from agentcascade.config.load import CascadeConfig
    from agentcascade.models.pricing import Price, PriceTable
    from agentcascade.steplog.types import LoggedStep

F = TypeVar("F", bound=Callable[..., Any])


def log_options(function: F) -> F:
    """``--log`` (repeatable), ``--config`` and ``--url`` for the database instead, and prices."""
    options = (
        click.option(
            "--log",
            "logs",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            multiple=True,
            help="JSONL or Parquet; repeatable. Default: the shadows of the configured database.",
        ),
        click.option("--student-price", metavar="IN/OUT", help="Dollars per million tokens, instead of the log's."),
        click.option("--teacher-price", metavar="IN/OUT", help="Likewise."),
        click.option(
            "--sample-cost",
            type=float,
            default=0.02,
            show_default=True,
            help="Cost of one sample as a share of a teacher's answer, where the log does not know dollars.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return database_options(function)


def source_files(options: Mapping[str, Any]) -> tuple[Path, ...]:
    """The files of --log."""
    return tuple(options["logs"])


def read_steps(options: Mapping[str, Any]) -> list[LoggedStep]:
    """The steps of all sources. Raises `InvalidRequest`."""
    from agentcascade.errors import InvalidRequest
    from agentcascade.steplog.files import read_log as load_log

    if options["logs"]:
        steps = [step for path in options["logs"] for step in load_log(path)]
    else:
        from agentcascade.steplog.database import export

        settings = load_config(options["config"], options["url"])
        with database(settings) as opened:
            steps = list(export(opened, prices=price_table(settings)))
        if not steps:
            raise InvalidRequest(
                "the database holds no shadows: run mode shadow first (shadow.samples: 5), or give --log FILE"
            )
    student, teacher = (price_option(options[f"{role}_price"], role) for role in ("student", "teacher"))
    if student is None and teacher is None:
        return steps
    return [_priced(step, student, teacher) for step in steps]


def price_table(settings: CascadeConfig) -> PriceTable:
    """The configured prices of teacher and students, else the price list's."""
    from agentcascade.models.pricing import PriceTable

    models = [m for m in (settings.teacher, settings.student, *settings.students) if m is not None and m.price]
    return PriceTable({m.name: dict(m.price or {}) for m in models})


def price_option(text: str | None, role: str) -> Price | None:
    """The price that --student-price or --teacher-price names, in dollars per million tokens."""
    from agentcascade.cli.bench_run import price as parse
    from agentcascade.models.pricing import Price

    rates = parse(role, "", text)
    return Price(**rates) if rates else None


def _priced(step: LoggedStep, student: Price | None, teacher: Price | None) -> LoggedStep:
    changes: dict[str, Any] = {}
    if student is not None:
        changes["students"] = tuple(d.model_copy(update={"price": student}) for d in step.students)
    if teacher is not None:
        changes["teacher_price"] = teacher
    return step.model_copy(update=changes)
