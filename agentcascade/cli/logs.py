"""Options that commands on a log of steps share: where it comes from, and prices that it lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentcascade.cli.numbers import FiniteRange
from agentcascade.cli.settings import database, database_options, load_config
from agentcascade.errors import did_you_mean

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
        click.option(
            "--student-price",
            metavar="IN/OUT",
            help="Dollars per million tokens, instead of the log's; where it has several students, see --price.",
        ),
        click.option("--teacher-price", metavar="IN/OUT", help="Likewise."),
        click.option("--price", "prices", multiple=True, metavar="NAME=IN/OUT", help="Of one model. Repeatable."),
        click.option(
            "--sample-cost",
            type=FiniteRange(),
            default=0.02,
            show_default=True,
            help="Cost of one sample as a share of a teacher's answer, where the log does not know dollars.",
        ),
        click.option(
            "--draft-tokens",
            type=click.IntRange(0),
            help="Of the student's drafts in a deferred step's prompt at most (prompt.draft_tokens). Default: as "
            "configured where prompt.teacher_sees_drafts is, else 0; with --log 0.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return database_options(function)


def source_files(options: Mapping[str, Any]) -> tuple[Path, ...]:
    """The files of --log."""
    return tuple(options["logs"])


def draft_tokens(options: Mapping[str, Any]) -> int:
    """The most tokens of drafts that a deferred step's prompt is priced with."""
    if options["draft_tokens"] is not None or options["logs"]:
        return options["draft_tokens"] or 0
    prompt = load_config(options["config"], options["url"]).prompt
    return prompt.draft_tokens if prompt.teacher_sees_drafts else 0


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
    return with_prices(steps, options)


def with_prices(steps: list[LoggedStep], options: Mapping[str, Any]) -> list[LoggedStep]:
    """The steps at the prices of --student-price, --teacher-price and --price instead of their own.

    Raises `click.BadParameter` for a price of all students alike where there are several, and of no model of the log.
    """
    student, teacher = (price_option(options[f"{role}_price"], role) for role in ("student", "teacher"))
    given = dict(text.rpartition("=")[::2] for text in options["prices"])
    if student is None and teacher is None and not given:
        return steps
    students = list(dict.fromkeys(drawn.model for step in steps for drawn in step.students))
    if student is not None and len(students) > 1:
        raise click.BadParameter(
            f"the log has {len(students)} students: say each one's price, "
            f"{' '.join(f'--price {name}=IN/OUT' for name in students)}",
            param_hint="--student-price",
        )
    own: dict[str, Price] = {}
    known = list(dict.fromkeys([*students, *(step.teacher_model for step in steps if step.teacher_model)]))
    for name, rates in given.items():
        models = [model for model in known if name in (model, model.rpartition("/")[2])]
        if len(models) != 1:
            raise click.BadParameter(
                f"'{name}' is {'no' if not models else 'more than one'} model of the log: {did_you_mean(name, known)}",
                param_hint="--price",
            )
        made = price_option(rates, name)
        assert made is not None
        own[models[0]] = made
    return [_priced(step, student, teacher, own) for step in steps]


def price_table(settings: CascadeConfig) -> PriceTable:
    """The configured prices of teacher and students, else the price list's."""
    from agentcascade.models.pricing import PriceTable

    models = [m for m in (settings.teacher, settings.student, *settings.students) if m is not None and m.price]
    return PriceTable({m.name: dict(m.price or {}) for m in models})


def price_option(text: str | None, role: str) -> Price | None:
    """The price that --student-price, --teacher-price or --price names, in dollars per million tokens."""
    from agentcascade.cli.bench_models import price as parse
    from agentcascade.models.pricing import Price

    rates = parse(role, "", text)
    return Price(**rates) if rates else None


def _priced(step: LoggedStep, student: Price | None, teacher: Price | None, own: Mapping[str, Price]) -> LoggedStep:
    """`own` are prices by model, which go first."""
    drawn = [d.model_copy(update={"price": own.get(d.model) or student or d.price}) for d in step.students]
    taught = own.get(step.teacher_model) or teacher or step.teacher_price
    return step.model_copy(update={"students": tuple(drawn), "teacher_price": taught})
