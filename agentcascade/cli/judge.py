"""``agentcascade judge``: a judge checked on episodes whose outcome is known, and asked about those without one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from agentcascade.cli.batching import open_batches, poll_option
from agentcascade.cli.groups import NamingGroup
from agentcascade.cli.numbers import FiniteRange
from agentcascade.cli.settings import database, database_options, load_config, opened_bank
from agentcascade.cli.terminal import say

if TYPE_CHECKING:
    from agentcascade.billing.door import Door
    from agentcascade.config.load import CascadeConfig
    from agentcascade.episodes.judge import ModelJudge
    from agentcascade.judging.run import Verdicts
    from agentcascade.judging.stored import StoredEpisode
    from agentcascade.storage import Database
    from agentcascade.types import Account, Call

F = TypeVar("F", bound=Callable[..., Any])


def judge_options(function: F) -> F:
    """Who is asked, how, and for how much."""
    options = (
        click.option("--judge-model", metavar="NAME", help="Who judges. Default: judge.model."),
        click.option("--api-base", metavar="URL", help="Endpoint of --judge-model."),
        click.option("--effort", help="How much it thinks: low, high, ..., or tokens. Default: judge.model.effort."),
        click.option(
            "--together", type=click.IntRange(1, 64), help="Episodes of a call at most. Default: judge.together."
        ),
        click.option("--namespace", help="Default: all."),
        click.option("--limit", type=click.IntRange(1), help="Judge so many episodes at most."),
        click.option("--max-dollars", type=FiniteRange(0), help="No call is made that could cost more than this."),
        click.option("--parallel", type=click.IntRange(1), default=4, show_default=True, help="Calls at once."),
    )
    for option in reversed(options):
        function = option(function)
    return database_options(function)


@click.group(cls=NamingGroup)
def command() -> None:
    """Check a judge on known outcomes, and judge stored episodes."""


@command.command()
@judge_options
@click.option(
    "--log",
    "logs",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="Step log, or trajectories as JSON lines; repeatable. Default: the configured database.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the episodes' order.")
def check(logs: tuple[Path, ...], seed: int, **options: Any) -> None:
    """Ask the judge about episodes whose outcome is known, and say what its verdicts are worth and cost.

    With several together each episode is judged twice, alone and together: a shared call that changes verdicts saves
    nothing. What is asked of the database's episodes is in the ledger; what is asked of a file's is printed alone.
    """
    from agentcascade.cli.judge_report import show_check
    from agentcascade.judging import stored
    from agentcascade.judging.check import with_outcomes
    from agentcascade.judging.outcomes import keep_bill
    from agentcascade.judging.run import judge_all

    settings = _with_judge(load_config(options["config"], options["url"]), options)
    judge, together = _judge(settings), settings.judge.together
    with _source(settings, logs) as source:
        if logs:
            read = [stored.read_episodes(path) for path in logs]
            found = stored.Stored(
                [e for file in read for e in file.episodes if options["namespace"] in (None, e.trajectory.namespace)],
                sum((file.left_out for file in read), Counter()),
            )
        else:
            found = stored.from_database(source, options["namespace"], outcome=True)
        name = ", ".join(map(str, logs)) or "the database"
        episodes = with_outcomes(found, name, limit=options["limit"], seed=seed)
        door, accounts = _door(settings, source, options, own=not logs)

        async def keep(episode: StoredEpisode, _: bool | None, calls: Sequence[Call]) -> None:
            if not logs:
                keep_bill(source, episode, calls)

        async def ask() -> dict[int, Verdicts]:
            return {
                number: await judge_all(
                    judge.asking(number), episodes, door, accounts, keep, seconds=_seconds(settings),
                    at_once=options["parallel"],
                )
                for number in dict.fromkeys((1, together))
            }  # fmt: skip

        said = asyncio.run(ask())
    say(f"{judge.model.name} on {len(episodes):,} episodes of {name} whose outcome is known")
    for reason, number in found.left_out.most_common():
        say(f"left out: {number:,} {reason}")
    show_check(said, [episode.success for episode in episodes])
    _say_problems([problem for verdicts in said.values() for problem in verdicts.problems], judge)


@command.command()
@judge_options
@click.option(
    "--idle",
    type=FiniteRange(0, 1e8),
    default=60.0,
    show_default=True,
    metavar="MINUTES",
    help="An episode that nobody ended has ended when it took no step for so long.",
)
@click.option("--batch", is_flag=True, help="By the provider's batch interface: half the price, within a day.")
@poll_option
@click.option("--dry-run", is_flag=True, help="Only say how many would be judged.")
def episodes(idle: float, batch: bool, poll: float, dry_run: bool, **options: Any) -> None:
    """Judge the stored episodes that have no outcome yet; successes of mode collect are banked.

    Those can be judged whose steps the database has as texts: episodes of mode collect, and those of which every step
    was logged (mode shadow, or audit.rate 1). A run that was stopped is continued by another.
    """
    from agentcascade.judging.outcomes import keep_outcome
    from agentcascade.judging.run import judge_all, judge_all_by_batch
    from agentcascade.judging.stored import from_database
    from agentcascade.redaction.redactor import Redactor
    from agentcascade.types import now

    if batch and options["max_dollars"] is not None:
        raise click.UsageError("--max-dollars counts calls at once: with --batch set budgets.per_namespace or --limit")
    settings = _with_judge(load_config(options["config"], options["url"]), options)
    judge, redactor = _judge(settings), Redactor(**settings.redaction.model_dump())
    banked: list[str] = []
    with database(settings) as opened, ExitStack() as stack:
        bank = cache(lambda: stack.enter_context(opened_bank(settings, redactor.trajectory)))
        found = from_database(opened, options["namespace"], outcome=False, idle_since=now() - timedelta(minutes=idle))
        chosen = found.episodes[: options["limit"]]
        for reason, number in found.left_out.most_common():
            say(f"left out: {number:,} {reason}")
        if dry_run or not chosen:
            calls = len(judge.groups([episode.trajectory for episode in chosen]))
            say(f"{len(chosen):,} episodes without an outcome, {calls:,} calls of {judge.model.name}")
            return

        async def keep(episode: StoredEpisode, success: bool | None, calls: Sequence[Call]) -> None:
            if await keep_outcome(opened, episode, success, calls, bank):
                banked.append(episode.id)

        door, accounts = _door(settings, opened, options)
        if batch:
            run = judge_all_by_batch(judge, chosen, open_batches(settings, opened, poll), accounts, keep)
        else:
            run = judge_all(
                judge, chosen, door, accounts, keep, seconds=_seconds(settings), at_once=options["parallel"]
            )
        said = asyncio.run(run)
    successes = sum(verdict is True for verdict in said.said)
    bill = "" if batch else f" for {'an unknown price' if said.dollars is None else f'${said.dollars:.6f}'}"
    say(f"judged {said.readable:,} of {len(chosen):,} episodes{bill}: {successes:,} succeeded, {len(banked):,} banked")
    if batch:
        say("what it did cost is in the ledger, as batch")
    _say_problems(said.problems, judge)


def _with_judge(settings: CascadeConfig, options: dict[str, Any]) -> CascadeConfig:
    """The configuration with the judge that the options name.

    Raises `click.UsageError` where nobody is named, and `ConfigError` for an effort that nobody knows.
    """
    from pydantic import ValidationError

    from agentcascade.cli.batching import model_config
    from agentcascade.config.sections import JudgeConfig, ModelConfig

    judge, name = settings.judge, options["judge_model"]
    if judge.name is not None and name is None:
        raise click.UsageError("judge.name is a function: say which model judges, --judge-model NAME")
    model = model_config(settings, name, options["api_base"] or "") if name else judge.model
    if model is None:
        raise click.UsageError("say who judges: --judge-model NAME, or judge.model.name in the configuration")
    together = options["together"] or judge.together
    changed: dict[str, Any] = {"model": model, "name": None, "options": {}, "together": together}
    try:
        if options["effort"]:
            fields = {field: getattr(model, field) for field in ModelConfig.model_fields}
            changed["model"] = ModelConfig(**fields | {"effort": options["effort"]})
        section = JudgeConfig(**{field: getattr(judge, field) for field in JudgeConfig.model_fields} | changed)
    except ValidationError as error:
        raise click.UsageError(f"--effort: {error.errors()[0]['msg']}") from None
    return settings.model_copy(update={"judge": section})


def _judge(settings: CascadeConfig) -> ModelJudge:
    from agentcascade.assembly.components import make_judge
    from agentcascade.models.tokens import token_counter

    return cast("ModelJudge", make_judge(settings, token_counter()))


def _seconds(settings: CascadeConfig) -> float:
    model = settings.judge.model
    return model.timeout_seconds if model is not None else 60.0


@contextmanager
def _source(settings: CascadeConfig, logs: Sequence[Path]) -> Iterator[Database]:
    """The configured database; for files one in memory, which keeps the run's budget."""
    if not logs:
        with database(settings) as opened:
            yield opened
        return
    from agentcascade.storage import open_database

    with closing(open_database("sqlite:///:memory:")) as opened:
        yield opened


def _door(
    settings: CascadeConfig, source: Database, options: dict[str, Any], *, own: bool = True
) -> tuple[Door, Callable[[str], tuple[Account, ...]]]:
    """The door, and the budgets of a namespace's episodes: the configured ones (`own`), and the run's own."""
    from agentcascade.assembly.resources import Resources
    from agentcascade.billing.door import Door
    from agentcascade.models.tokens import token_counter
    from agentcascade.storage.budgets import DatabaseBudgets
    from agentcascade.types import Account, new_id

    most = options["max_dollars"]
    run = () if most is None else (Account(scope="key", name=new_id("judge"), limit=Decimal(str(most))),)
    door = Door(
        budgets=DatabaseBudgets(source),
        observer=Resources().observer(settings),
        count=token_counter(),
        settings=settings.budgets,
    )
    return door, lambda namespace: (*(settings.budgets.of_namespace(namespace) if own else ()), *run)


def _say_problems(problems: Sequence[str], judge: ModelJudge) -> None:
    for problem, number in Counter(problems).most_common(5):
        say(f"{number:,} without a verdict: {problem}", err=True)
    if refused := getattr(judge.model, "refused", None):
        say(f"{judge.model.name} refuses {', '.join(sorted(refused))}: it was asked without its effort", err=True)
