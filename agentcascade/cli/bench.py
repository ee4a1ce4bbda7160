"""``agentcascade bench SUITE``: demonstrations, then policies, then a report; the command is made from the suite."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click

from agentcascade import registry
from agentcascade.bench.policies import POLICIES
from agentcascade.bench.suites.protocol import Defaults
from agentcascade.cli.groups import NamingGroup
from agentcascade.cli.numbers import FiniteRange
from agentcascade.cli.settings import ray_option
from agentcascade.config.sections import RetrievalConfig
from agentcascade.errors import ConfigError

WINDOW = "/".join(str(RetrievalConfig.model_fields[f"window_{side}"].default) for side in ("before", "after"))
LOG_SETTING = "Repeatable; each step of the log is sampled at one of them. Default: the option of the cascade."


class SuiteGroup(NamingGroup):
    """One command for each suite that is registered in the entry-point group ``agentcascade.suites``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(registry.registered("suites"))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        point = registry.registered("suites").get(name)
        return None if point is None else command_of(point)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Suites"):
            formatter.write_dl([(name, self._line(ctx, name)) for name in self.list_commands(ctx)])

    def _line(self, ctx: click.Context, name: str) -> str:
        try:
            command = self.get_command(ctx, name)
        except ConfigError as error:  # the other suites are listed all the same
            return str(error)
        return command.get_short_help_str(limit=100) if command is not None else ""


@click.group(cls=SuiteGroup, subcommand_metavar="SUITE [OPTIONS]")
def command() -> None:
    """Run a benchmark under several policies."""


def command_of(point: EntryPoint) -> click.Command:
    """The command of a suite, with its options. Raises `ConfigError` where it cannot be loaded, or is none."""
    from agentcascade.bench.suites.memory import MemorySuite
    from agentcascade.cli import bench_memory

    suite = registry.load(point, "suite")
    if isinstance(suite, MemorySuite):
        return bench_memory.command_of(point.name, suite)
    if not isinstance(getattr(suite, "defaults", None), Defaults):
        raise ConfigError(
            f"suite '{point.name}' of {registry.distribution_of(point)} is no suite: {point.value} needs `defaults` "
            "(agentcascade.bench.suites.protocol)"
        )
    own = own_options(suite, point.name)

    @click.command(point.name, help=inspect.getdoc(suite))
    @agent_options(suite.defaults)
    @click.pass_context
    def play_suite(context: click.Context, /, **options: Any) -> None:
        from agentcascade.cli.bench_run import play

        play(context, point, {name: options.pop(name) for name in own}, options)

    taken = {name for parameter in play_suite.params for name in parameter.opts}
    for option in own.values():
        if clash := taken & {*option.opts, *option.secondary_opts}:
            raise ConfigError(
                f"suite '{point.name}' has an option {min(clash)}, which every suite has: rename its field"
            )
    play_suite.params += own.values()
    return play_suite


def own_options(suite: Any, name: str) -> dict[str, click.Option]:
    """Options for the fields of a suite that is a dataclass, by field; their metadata are click's."""
    if not dataclasses.is_dataclass(suite):
        return {}
    options = {}
    for field in dataclasses.fields(suite):
        missing = field.default is dataclasses.MISSING
        if missing and field.default_factory is not dataclasses.MISSING:
            raise ConfigError(f"suite '{name}': the field {field.name} needs a plain default, not a factory")
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            flag += f"/--no-{field.name.replace('_', '-')}"
        given = {} if missing else {"default": field.default, "show_default": True}
        options[field.name] = click.Option([flag, field.name], **{"required": missing, **given, **field.metadata})
    return options


def templates(context: click.Context, option: click.Parameter, setting: str | None) -> dict[str, str] | None:
    """The texts that an option names, as `prompt.template` would."""
    from agentcascade.prompts.settings import read_texts

    return None if setting is None else read_texts(setting)


def window(context: click.Context, option: click.Parameter, setting: str | None) -> str | None:
    """``BEFORE/AFTER``, the steps of a demonstration's window around the one that matches."""
    if setting is not None and not re.fullmatch(r"\d{1,4}/\d{1,4}", setting):
        raise click.BadParameter(f"'{setting}' is not BEFORE/AFTER, numbers of steps, e.g. 2/2", context, option)
    return setting


def windows(context: click.Context, option: click.Parameter, settings: tuple[str, ...]) -> tuple[str, ...]:
    """Several of them."""
    return tuple(checked for setting in settings if (checked := window(context, option, setting)))


def agent_options(suite: Defaults) -> Callable[..., Any]:
    """The options that every suite of agents has, with its own defaults."""
    price = "Dollars per million tokens. Default: the price list"
    made: list[Callable[..., Any]] = [
        click.option(
            "--teacher", default=suite.teacher, show_default=True, help="Any litellm model name, or a stand-in."
        ),
        click.option(
            "--student", default=suite.student, show_default=True, help="Any litellm model name, or a stand-in."
        ),
        click.option("--teacher-price", metavar="IN/OUT", help=f"{price}; stand-ins 3/15."),
        click.option(
            "--student-price",
            metavar="IN/OUT",
            help=f"{price}; stand-ins 0.40/1.60 (alfworld: 0.10/0.40). Of --student alone; of a --member: --price.",
        ),
        click.option(
            "--member",
            "members",
            multiple=True,
            help="A further student: with --student they vote together, one sample each unless --samples says more. "
            "Repeatable.",
        ),
        click.option(
            "--needed", type=click.IntRange(2), help="Votes of the members that must agree. Default: more than half."
        ),
        click.option("--price", "prices", multiple=True, metavar="NAME=IN/OUT", help=f"{price}. Repeatable."),
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
            type=FiniteRange(0, min_open=True),
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
            "--prompts",
            metavar="FILE",
            callback=templates,
            help="Templates of prompts (YAML), or the name of a package's: see prompt.template.",
        ),
        click.option(
            "--episodes",
            type=click.IntRange(1),
            default=suite.episodes,
            show_default=True,
            help="Tasks per policy and seed.",
        ),
        click.option(
            "--demos",
            type=click.IntRange(1),
            default=suite.demonstrations,
            show_default=True,
            help="Teacher episodes to learn from.",
        ),
        click.option(
            "--k", type=click.IntRange(0), default=suite.k, show_default=True, help="Demonstrations per step."
        ),
        click.option(
            "--window",
            metavar="BEFORE/AFTER",
            callback=window,
            default=suite.window,
            show_default=bool(suite.window),
            help="Steps that a demonstration shows around the one that matches."
            + ("" if suite.window else f" Default: {WINDOW}."),
        ),
        click.option(
            "--samples",
            type=click.IntRange(1),
            default=suite.samples,
            show_default=True,
            help="Student samples per step.",
        ),
        click.option("--temperature", type=FiniteRange(0, 2), default=0.1, show_default=True, help="Of the student."),
        click.option(
            "--staged/--no-staged",
            default=None,
            help="Buy samples one by one, or at once. Default: what should cost less.",
        ),
        click.option(
            "--policy",
            "policies",
            multiple=True,
            help=f"Repeatable. Default: {', '.join(suite.policies or POLICIES)}; with --member, each of them alone and "
            "their committees, too. Also: chain, oracle, '2 of 3'.",
        ),
        click.option(
            "--log",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Let the teacher play and sample the student at every step, and write all of it to this JSONL file.",
        ),
        click.option("--log-samples", type=click.IntRange(1), help="Per step of the log. Default: 10."),
        click.option("--log-temperature", "log_temperatures", type=FiniteRange(0, 2), multiple=True, help=LOG_SETTING),
        click.option("--log-k", "log_ks", type=click.IntRange(0), multiple=True, help=LOG_SETTING),
        click.option(
            "--log-window", "log_windows", metavar="BEFORE/AFTER", callback=windows, multiple=True, help=LOG_SETTING
        ),
        click.option(
            "--rule",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="rule.yaml of `agentcascade tune`: play it too, as policy 'tuned'. A committee's names its members: "
            "they are played where no --student and --member is given.",
        ),
        click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True, help="Repeatable."),
        click.option("--split", type=click.Choice(suite.splits), default=suite.splits[0], show_default=True),
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
    ]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(made):
            function = option(function)
        return function

    return decorate
