"""``agentcascade bank collect``: demonstrations from a list of tasks, by the provider's batch interface."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from agentcascade.cli.batching import open_batches, poll_option
from agentcascade.cli.settings import database_options, load_config, opened_bank
from agentcascade.cli.terminal import say


@click.command()
@database_options
@click.argument("tasks", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--namespace", help="Default: bank.namespace.")
@click.option("--batch", is_flag=True, required=True, help="By the provider's batch interface; there is no other way.")
@poll_option
def collect(config: Path | None, url: str | None, tasks: Path, namespace: str | None, batch: bool, poll: float) -> None:
    """Have the teacher answer TASKS, each of one step, and bank what judge.model calls a success.

    A line of TASKS is {"messages": [...]} or {"goal": "..."}, perhaps with id and tools. Without judge.model all
    answers are banked. A run that was stopped is continued by another.
    """
    from agentcascade.actions.formats import make_format
    from agentcascade.assembly.components import make_judge, make_model
    from agentcascade.episodes.batch_collect import collect_by_batch, read_tasks
    from agentcascade.episodes.judge import ModelJudge
    from agentcascade.models.tokens import token_counter
    from agentcascade.redaction.redactor import Redactor

    settings, count = load_config(config, url), token_counter()
    if settings.teacher is None:
        raise click.UsageError("say who answers: teacher.name in the configuration")
    judge = make_judge(settings, count)
    if judge is not None and not isinstance(judge, ModelJudge):
        raise click.UsageError("judge.name is a function: with --batch only a model (judge.model) judges")
    actions, space = settings.actions, namespace or settings.bank.namespace
    formats = make_format(actions.format, actions.pattern, fold=actions.fold, ordered=settings.tools.side_effects)
    listed = read_tasks(tasks)
    redactor = Redactor(**settings.redaction.model_dump())
    with opened_bank(settings, redactor.trajectory) as bank:
        collected = asyncio.run(
            collect_by_batch(
                listed,
                make_model(settings.teacher, count),
                judge,
                bank,
                open_batches(settings, bank.database, poll),
                formats,
                namespace=space,
                accounts=settings.budgets.of_namespace(space),
            )
        )
    judged = f"{collected.succeeded:,} called a success, " if judge is not None else ""
    say(f"{collected.answered:,} of {len(listed):,} tasks answered, {judged}{collected.banked:,} banked")
    for problem in collected.problems[:5]:
        say(problem, err=True)
