"""``agentcascade bench``: demonstrations, then policies, then a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agentcascade.bench.policies import POLICIES
from agentcascade.cli.bench_memory import MEMORY_SUITES
from agentcascade.cli.settings import ray_option

LOG_SETTING = "Repeatable; each step of the log is sampled at one of them. Default: the option of the cascade."


@click.group()
def command() -> None:
    """Run a benchmark under several policies."""


for _suite in MEMORY_SUITES:
    command.add_command(_suite)


def agent_options(
    *, teacher: str, student: str, splits: tuple[str, ...], episodes: int, demos: int, k: int
) -> Callable[..., Any]:
    """The options that every benchmark of agents takes, with its own defaults; the first split is the default."""
    price = "Dollars per million tokens. Default: the price list"
    made: list[Callable[..., Any]] = [
        click.option("--teacher", default=teacher, show_default=True, help="Any litellm model name, or a stand-in."),
        click.option("--student", default=student, show_default=True, help="Any litellm model name, or a stand-in."),
        click.option("--teacher-price", metavar="IN/OUT", help=f"{price}; stand-ins 3/15."),
        click.option("--student-price", metavar="IN/OUT", help=f"{price}; stand-ins 0.40/1.60."),
        click.option("--verifier", help="A cheap model that is asked which differing samples mean the same."),
        click.option("--verifier-price", metavar="IN/OUT", help=f"{price}."),
        click.option(
            "--dry-run",
            is_flag=True,
            default=None,
            help="Try differing samples that only read, and join equal answers.",
        ),
        click.option("--api-base", help="Endpoint of the student, e.g. a local vLLM server."),
        click.option("--max-tokens", type=click.IntRange(1), help="Of a student's answer. Default: the provider's."),
        click.option(
            "--timeout",
            type=click.FloatRange(0, min_open=True),
            metavar="SECONDS",
            help="For all samples of a step; a student on a CPU may need minutes. Default: 30.",
        ),
        click.option(
            "--constrain",
            type=click.Choice(("choice",)),
            help="A student of vLLM can only answer one of the commands that the world admits.",
        ),
        click.option(
            "--sticky",
            type=click.Choice(("never", "always", "auto")),
            help="Keep an episode's demonstrations. Default: never.",
        ),
        click.option(
            "--quoting",
            type=click.Choice(("fenced", "plain")),
            help="How demonstrations stand in prompts. Default: fenced.",
        ),
        click.option(
            "--episodes", type=click.IntRange(1), default=episodes, show_default=True, help="Tasks per policy and seed."
        ),
        click.option(
            "--demos",
            type=click.IntRange(1),
            default=demos,
            show_default=True,
            help="Teacher episodes to learn from.",
        ),
        click.option("--k", type=click.IntRange(0), default=k, show_default=True, help="Demonstrations per step."),
        click.option(
            "--samples", type=click.IntRange(1), default=3, show_default=True, help="Student samples per step."
        ),
        click.option(
            "--temperature", type=click.FloatRange(0, 2), default=0.1, show_default=True, help="Of the student."
        ),
        click.option(
            "--staged/--no-staged",
            default=None,
            help="Buy samples one by one, or at once. Default: what should cost less.",
        ),
        click.option("--policy", "policies", multiple=True, help=f"Repeatable; all by default: {', '.join(POLICIES)}."),
        click.option(
            "--log",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Let the teacher play and sample the student at every step, and write all of it to this JSONL file.",
        ),
        click.option("--log-samples", type=click.IntRange(1), help="Per step of the log. Default: 10."),
        click.option(
            "--log-temperature", "log_temperatures", type=click.FloatRange(0, 2), multiple=True, help=LOG_SETTING
        ),
        click.option("--log-k", "log_ks", type=click.IntRange(0), multiple=True, help=LOG_SETTING),
        click.option(
            "--rule",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="rule.yaml of `agentcascade tune`: play it too, as policy 'tuned'.",
        ),
        click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True, help="Repeatable."),
        click.option("--split", type=click.Choice(splits), default=splits[0], show_default=True),
        click.option(
            "--embedder", default="minilm", show_default=True, help="See retrieval.embedder in the configuration."
        ),
        click.option(
            "--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes, or workers of --ray."
        ),
        ray_option,
        click.option("--bank", metavar="URL", help="PostgreSQL for the run's banks. Default: files in --out."),
        click.option("--resume", is_flag=True, help="Continue the run in --out."),
        click.option(
            "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder. Default: runs/<suite>-<time>."
        ),
        click.pass_context,
    ]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(made):
            function = option(function)
        return function

    return decorate


@command.command()
@agent_options(
    teacher="offline/expert",
    student="offline/imitator",
    splits=("valid_unseen", "valid_seen"),
    episodes=134,
    demos=100,
    k=6,
)
def alfworld(context: click.Context, /, **options: Any) -> None:
    """Household tasks in text, played in the real ALFWorld engine.

    Uses the official games where $ALFWORLD_DATA holds them, else games generated from what the alfworld package
    ships. The default models are stand-ins that need no key; real ones are one flag away.
    """
    from agentcascade.cli.bench_run import play

    play(context, "agentcascade.bench.suites.alfworld:AlfworldSuite", "train", options)


@command.command("intercode-sql")
@agent_options(
    teacher="recorded/gpt-4",
    student="recorded/gpt-3.5-turbo",
    splits=("test", "unseen_databases"),
    episodes=400,
    demos=400,
    k=3,
)
def intercode_sql(context: click.Context, /, **options: Any) -> None:
    """Questions about twenty databases, answered in SQL (InterCode-SQL, after Spider).

    Needs InterCode's data: $INTERCODE_DATA names the folder. The default models are runs that real models made, played
    again; a model of your own is one flag away.
    """
    from agentcascade.cli.bench_run import play

    play(context, "agentcascade.bench.suites.intercode_sql:IntercodeSqlSuite", "train", options)


@command.command()
@agent_options(
    teacher="offline/expert",
    student="offline/copier",
    splits=("test_normal", "test_challenge", "dev"),
    episodes=120,
    demos=90,
    k=3,
)
def appworld(context: click.Context, /, **options: Any) -> None:
    """Everyday tasks in the apps of simulated people, done by writing code (AppWorld).

    Needs `agentcascade env install appworld`. Uses the official worlds where $APPWORLD_ROOT names them, else generated
    ones. The default models are stand-ins that need no key; real ones are one flag away.
    """
    from agentcascade.cli.bench_run import play

    play(context, "agentcascade.bench.suites.appworld:AppWorldSuite", "train", options)
