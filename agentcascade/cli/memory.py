"""``agentcascade memory``: histories, questions to them, and routers trained on what questions needed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentcascade.cli.groups import NamingGroup
from agentcascade.cli.numbers import FiniteRange
from agentcascade.cli.settings import answer_options, database, database_options, load_config, ray_option
from agentcascade.cli.terminal import console, say

if TYPE_CHECKING:
    from agentcascade.config.load import CascadeConfig
    from agentcascade.types import Recall

SUITES = ("locomo", "longmemeval", "hotpotqa")
out_option = click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for router, log and plots."
)


@click.group(cls=NamingGroup)
def command() -> None:
    """Keep histories, ask them, and train the router that decides what an answer may cost."""


@command.command()
@database_options
@click.argument("history")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--namespace")
def add(config: Path | None, url: str | None, history: str, file: Any, namespace: str | None) -> None:
    """Append FILE (- is standard input) to HISTORY.

    A line is plain text, or JSON with text and, where known, id, speaker, session and at. A line without an id is
    known by file and number: a file that has grown can be added again, what is there already is passed over.
    """
    from agentcascade.assembly.memory import build_memory
    from agentcascade.memory.files import read_turns
    from agentcascade.types import new_id

    settings, problems = load_config(config, url), list[str]()
    # What is piped in has no name of its own: two of them are never the same lines.
    turns = read_turns(file, new_id("in") if file.name == "<stdin>" else file.name, problems)
    before = _sizes(settings, namespace).get(history, 0)
    with build_memory(settings) as memory:
        asyncio.run(memory.append(history, turns, namespace=namespace))
    size = _sizes(settings, namespace).get(history, 0)
    say(f"{size - before:,} new turns in {history}, {size:,} in all")
    for line in problems[:5]:
        say(line, err=True)
    if len(problems) > 5:
        say(f"and {len(problems) - 5:,} more times that do not parse", err=True)


def _sizes(settings: CascadeConfig, namespace: str | None, *, create: bool = True) -> dict[str, int]:
    """Turns of the namespace's histories."""
    from agentcascade.storage.histories import Histories

    with database(settings, create=create) as opened:
        return Histories(opened).sizes(namespace or settings.bank.namespace)


@command.command()
@database_options
@click.argument("history")
@click.argument("question")
@click.option("--namespace")
@click.option("--tradeoff", type=FiniteRange(0, 1), help="λ, the weight of cost. Default: memory.tradeoff.")
@click.option("--budget", type=click.IntRange(0), help="Tokens. Default: memory.token_budget.")
@click.option("--json", "as_json", is_flag=True, help="All that is known of the recall.")
def ask(
    config: Path | None,
    url: str | None,
    history: str,
    question: str,
    namespace: str | None,
    tradeoff: float | None,
    budget: int | None,
    as_json: bool,
) -> None:
    """Show what HISTORY holds for QUESTION, and its cost."""
    from agentcascade.assembly.memory import build_memory
    from agentcascade.errors import did_you_mean

    settings = load_config(config, url)
    sizes = _sizes(settings, namespace, create=False)
    if history not in sizes:
        hint = did_you_mean(history, sizes) if sizes else "add one with `agentcascade memory add`"
        raise click.ClickException(f"there is no history '{history}': {hint}")
    with build_memory(settings) as memory:
        recall = asyncio.run(
            memory.recall(question, history, namespace=namespace, tradeoff=tradeoff, token_budget=budget)
        )
    if as_json:
        say(recall.model_dump_json(indent=2))
        return
    say(recall.text or "(nothing)")
    say()
    _explain(recall)


def _explain(recall: Recall) -> None:
    tiers = ", ".join(f"{run.module} {run.used or 'left out'}" for run in recall.runs)
    spent = sum(run.milliseconds for run in recall.runs)
    dollars = "unknown price" if recall.dollars is None else f"${recall.dollars:.6f}"
    say(f"{recall.tokens} tokens, {spent:.1f} ms, {dollars}; {tiers}", err=True)
    for line in recall.left_out:
        say(f"left out: {line}", err=True)


@command.command()
@database_options
@click.argument("history")
@click.option("--namespace")
@click.confirmation_option(prompt="Delete the history for good?")
def remove(config: Path | None, url: str | None, history: str, namespace: str | None) -> None:
    """Delete HISTORY with all its turns."""
    from agentcascade.storage.histories import Histories

    settings = load_config(config, url)
    with database(settings) as opened:
        if not Histories(opened).remove(namespace or settings.bank.namespace, history):
            raise click.ClickException(f"there is no history '{history}' in {namespace or settings.bank.namespace}")
    say(f"removed {history}")


@command.command()
@database_options
@click.argument("recall")
@click.argument("score", type=FiniteRange(0, 1))
def score(config: Path | None, url: str | None, recall: str, score: float) -> None:
    """Say how good the memory of RECALL was, from 0 to 1: `train --live` learns from it.

    `ask --json` shows a recall's id, and so does `recall.id` in a program.
    """
    from agentcascade.cli.settings import database
    from agentcascade.storage.histories import score_recall

    with database(load_config(config, url)) as opened:
        score_recall(opened, recall, score)
    say(f"{recall}: {score:g}")


@command.command("list")
@database_options
@click.option("--namespace", default=None)
def list_(config: Path | None, url: str | None, namespace: str | None) -> None:
    """List the histories of a namespace, with their turns."""
    sizes = _sizes(load_config(config, url), namespace, create=False)
    for name, size in sorted(sizes.items()):
        say(f"{size:>8,}  {name}")
    if not sizes:
        say("There is no history.", err=True)


@command.command()
@click.option("--data", type=click.Path(path_type=Path, dir_okay=False), help="A benchmark's published file.")
@click.option("--suite", type=click.Choice(SUITES), default="locomo", show_default=True, help="The format of --data.")
@click.option(
    "--offline",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A log instead of data: the log.npz of an earlier run, or .jsonl of your own.",
)
@click.option("--live", is_flag=True, help="Train on the scored recalls in the database (see --url).")
@click.option(
    "--reward",
    type=click.Choice(["evidence", "f1", "em", "judge"]),
    default="evidence",
    show_default=True,
    help="F1 of the labelled evidence in the memory, which needs no model; or what an answer from it is worth.",
)
@click.option(
    "--router",
    type=click.Choice(["values", "policy"]),
    default="values",
    show_default=True,
    help="Predicted worth of each combination, trained in seconds; or the actor-critic of BudgetMem, by PPO.",
)
@click.option(
    "--collect",
    type=click.Choice(["sweep", "random", "on-policy"]),
    default="sweep",
    show_default=True,
    help="Every combination of tiers; random ones; or those that the policy in training draws.",
)
@click.option("--rollouts", type=click.IntRange(1), default=4, show_default=True, help="Of each question, if random.")
@click.option("--answer-model", help="For rewards f1, em and judge: any litellm model, or offline/reader.")
@answer_options
@click.option("--judge-model", help="For reward judge. Default: the answer model.")
@click.option("--tradeoff", type=FiniteRange(0, 1), help="Of the policy: one λ. Default: all, λ is an input.")
@click.option("--passes", type=click.IntRange(1), default=30, show_default=True, help="Of the policy, at most.")
@click.option("--patience", type=click.IntRange(1), default=10, show_default=True, help="Passes without improvement.")
@click.option("--questions", type=click.IntRange(1), help="Use no more than so many of each conversation.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes, or questions at once."
)
@ray_option
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@out_option
@database_options
def train(config: Path | None, url: str | None, out: Path, **options: Any) -> None:
    """Train the router on data, a log or your own recalls.

    Give one of --data, --offline and --live. The log of every outcome stays in --out, so that training again, with
    --offline, costs nothing.
    """
    from agentcascade.bench.memory.train_job import TrainJob
    from agentcascade.bench.memory.training import write_results
    from agentcascade.cli.memory_report import results_notes, results_table

    if sum(map(bool, (options["data"], options["offline"], options["live"]))) != 1:
        raise click.UsageError("give one of --data FILE, --offline LOG and --live")
    settings = load_config(config, url)
    if options["live"]:
        with database(settings):
            pass  # a database that is not there is a mistake, not a new one
    to = console(width=150)
    with to.status("collecting") as status:
        job = TrainJob(settings, out, options, lambda text: status.update(text))
        outcome = job.run()
    if outcome.points:
        to.print(results_table(outcome))
        for note in results_notes(outcome):
            to.print(note, style="dim")
    else:
        to.print(
            "The log does not hold every combination of tiers, so nothing is compared here: "
            "`agentcascade memory estimate --offline LOG --router ROUTER` does.",
            soft_wrap=True,
        )
    logs = [] if options["offline"] or options["live"] else [out / "log.npz"]
    for path in [*logs, outcome.path, *write_results(outcome, out)]:
        to.print(f"wrote {path}", soft_wrap=True)
    to.print(
        f"use it with  memory: {{router: {{name: {outcome.kind}, options: {{path: {outcome.path}}}}}}}", soft_wrap=True
    )


@command.command()
@click.option("--offline", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, help="The log.")
@click.option("--router", "router_path", type=click.Path(path_type=Path, dir_okay=False), help="A trained router.")
@click.option("--tiers", help="Instead of a router: low, mid, high, or module=tier,module=tier,...")
@click.option("--tradeoff", type=FiniteRange(0, 1), default=0.0, show_default=True, help="λ, the weight of cost.")
@click.option(
    "--value", type=click.Choice(["score", "cost"]), default="score", show_default=True, help="What is estimated."
)
@click.option("--embedder", help="For a log in .jsonl. Default: that of the configuration.")
@click.option("--json", "as_json", is_flag=True)
def estimate(
    offline: Path,
    router_path: Path | None,
    tiers: str | None,
    tradeoff: float,
    value: str,
    embedder: str | None,
    as_json: bool,
) -> None:
    """Say what a router would have earned on a log.

    By inverse propensities (IPS), the same self-normalised (SNIPS) and doubly robust (DR), with 95 % intervals. The
    log must say with which probability its tiers were drawn, as a sweep and random tiers do.
    """
    from agentcascade.bench.memory.inputs import open_log, open_router
    from agentcascade.routers.tier.off_policy import estimate_value as estimated

    if (router_path is None) == (tiers is None):
        raise click.UsageError("give one of --router FILE and --tiers low|mid|high|module=tier,...")
    if embedder is None:
        settings = load_config(None, None)
        embedder = settings.memory.embedder or settings.retrieval.embedder
    log, router = open_log(offline, embedder), open_router(router_path, tiers)
    if hasattr(router, "check") and log.about.get("encoder"):
        router.check(str(log.about["encoder"]), log.query.shape[1])
    estimates = estimated(log, router, tradeoff=tradeoff, value=value)  # type: ignore[arg-type]
    if as_json:
        say(json.dumps(_without_nan(asdict(estimates)), indent=2, default=str))
        return
    for name in ("ips", "snips", "dr"):
        one = getattr(estimates, name)
        estimate_text = f"{one.mean:.4f}  ({one.low:.4f} to {one.high:.4f})"
        say(f"{name:<6} {'unknown' if isnan(one.mean) else estimate_text}")
    say(f"effective rows {estimates.effective:.0f} of {len(log)}", err=True)
    for warning in estimates.warnings:
        say(f"warning: {warning}", err=True)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    return None if isinstance(value, float) and isnan(value) else value
