"""``agentcascade launch``: an agent's program, unmodified, in front of a proxy of its own that only watches."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentcascade.cli.passthrough import passing, read_upstreams, upstream_option
from agentcascade.cli.serve import require_server
from agentcascade.cli.settings import database
from agentcascade.cli.terminal import say
from agentcascade.config.load import CascadeConfig, config_path, variants
from agentcascade.config.sections import CollectConfig, MemoryConfig, ModelConfig, RolloutConfig
from agentcascade.errors import AgentCascadeError, ConfigError, describe, did_you_mean

if TYPE_CHECKING:
    from agentcascade.config.keywords import ConfigKeywords
    from agentcascade.launch.programs import Launch

BODY_BYTES = 32_000_000
"""Of one request: as much as Anthropic takes, pictures and documents included."""
SHADOW_SECONDS = 300.0
SETTLING_SECONDS = 60.0
"""For shadows that are under way when the program ends."""


class ProgramCommand(click.Command):
    """What follows the program's name is the program's; ``--`` before a name runs a program that is not known."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        rest = super().parse_args(ctx, args)
        words: Sequence[str] = ctx.params.get("words") or ()
        ctx.params["any_program"] = len(given) > len(words) and given[len(given) - len(words) - 1 :][:1] == ["--"]
        return rest


@click.command(
    "launch",
    cls=ProgramCommand,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
    options_metavar="[OPTIONS]",
)
@click.option("--config", type=click.Path(path_type=Path), help="Default: $AGENTCASCADE_CONFIG or agentcascade.yaml.")
@click.option("--cascade", help="Of the configuration, where it has several.")
@click.option("--student", metavar="MODEL", help="Sampled behind every step, to say how often it would have agreed.")
@click.option("--student-base", metavar="URL", help="Its address, e.g. a vLLM server of your own.")
@click.option("--url", help="Database of the records. Default: bank.url, sqlite:///agentcascade.db.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the proxy. Default: a free one.")
@upstream_option
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="PROGRAM [-- ARGUMENTS] | -- COMMAND")
def command(
    config: Path | None,
    cascade: str | None,
    student: str | None,
    student_base: str | None,
    url: str | None,
    port: int,
    upstreams: tuple[str, ...],
    words: tuple[str, ...],
    any_program: bool,
) -> None:
    """Run claude, codex, or any program (-- COMMAND) as it is, in front of a proxy that only watches.

    The program asks the model that it names, with its own key. Every step is recorded; with --student that model is
    sampled behind the answers, and never acts. What was spent, how often the student would have agreed and what a
    cascade would have saved is said at the end, on standard error. Exit status and signals are the program's.
    """
    require_server("agentcascade launch")
    from agentcascade.launch import foreground, proxy
    from agentcascade.storage.engine import database_url, redacted_url
    from agentcascade.types import now

    name, arguments = _program(words, any_program)
    environment = dict(os.environ)
    launch = _prepared("", name, arguments, environment)  # what is wrong with it is said before all else
    settings = watching(
        _loaded(config, url, student, student_base), cascade, {**launch.upstreams, **read_upstreams(upstreams)}, port
    )
    check_student(settings)
    log = _log_file()
    proxy.log_to(log, settings)
    since = now()
    with proxy.proxy(settings) as root:
        launch = _prepared(root, name, arguments, environment)
        try:
            status = foreground.run(launch.command, {**environment, **launch.environment})
        except OSError as error:
            raise ConfigError(f"{launch.command[0]} cannot be started: {error.strerror or error}") from error
    say(err=True)
    try:
        _say_summary(settings, since)
    except (AgentCascadeError, OSError, ValueError) as error:
        say(f"agentcascade: the records cannot be summed up: {describe(error)}", err=True)
    where = redacted_url(database_url(settings.bank.url))
    say(f"  records: {where}, namespace {settings.bank.namespace} (agentcascade ledger, agentcascade serve)", err=True)
    if log.exists():
        say(f"  warnings: {log}", err=True)
    raise SystemExit(foreground.leave(status))


def watching(settings: CascadeConfig, cascade: str | None, upstreams: Mapping[str, str], port: int) -> CascadeConfig:
    """A configuration for a proxy that takes no step by itself and adds nothing to a request.

    Raises:
        ConfigError: It has several cascades, and none is named.
    """
    more: dict[str, Any] = dict(passing(settings, (), cascade))
    name = more["server"]["passthrough"]
    one = variants(settings)[name]
    prices = dict(one.server.prices)
    if one.teacher is not None and one.teacher.price:
        prices.setdefault(one.teacher.name.partition("/")[2] or one.teacher.name, one.teacher.price)
    server = one.server.model_copy(
        update={
            "host": "127.0.0.1",
            "port": port,
            "open": True,
            "passthrough": name,
            "upstreams": {**one.server.upstreams, **upstreams},
            "prices": prices,
            "max_body_bytes": max(BODY_BYTES, one.server.max_body_bytes),
            "shutdown_seconds": max(SETTLING_SECONDS, one.server.shutdown_seconds),
        }
    )
    changes: dict[str, Any] = {
        "mode": "shadow" if one.student is not None else "collect",
        "teacher": None,
        "server": server,
        "rollout": RolloutConfig(),
        "collect": CollectConfig(drop_observations=one.collect.drop_observations),
        "memory": MemoryConfig(),
        "prompt": one.prompt.model_copy(update={"teacher_sees_demonstrations": False, "teacher_sees_drafts": False}),
        "caching": False,
        "shadow": one.shadow.model_copy(update={"timeout_seconds": max(SHADOW_SECONDS, one.shadow.timeout_seconds)}),
        "sampling": one.sampling.model_copy(
            update={"timeout_seconds": max(SHADOW_SECONDS, one.sampling.timeout_seconds)}
        ),
        "cascades": {} if name == "default" else {name: {}},
    }
    if "retrieval" in more and "retrieval" not in one.model_fields_set:
        changes["retrieval"] = one.retrieval.model_copy(update=more["retrieval"])
    return one.model_copy(update=changes)


def check_student(settings: CascadeConfig) -> None:
    """Raises `ConfigError` for a student whose key is missing: before the program is run, not behind each step."""
    from agentcascade.assembly.components import OWN_CLASS
    from agentcascade.cli.doctor import missing_keys

    for model in (settings.student, *settings.students):
        if model is None or model.api_base or model.api_key or OWN_CLASS.fullmatch(model.name):
            continue
        if model.name.startswith(("offline/", "recorded/", "hosted_vllm/")):
            continue
        if (problem := missing_keys(model)) is not None:
            raise ConfigError(f"the student {model.name} cannot be asked: {problem}")


def _program(words: Sequence[str], any_program: bool) -> tuple[str, list[str]]:
    """(name of a known program or "", its arguments or a whole command). Raises `click.UsageError`."""
    from agentcascade.launch.programs import PROGRAMS

    if not words:
        raise click.UsageError(f"name a program: {', '.join(PROGRAMS)}, or -- COMMAND for any other")
    if any_program:
        return "", list(words)
    name, *rest = words
    if name not in PROGRAMS:
        raise click.UsageError(
            f"'{name}' is none of the programs that are known here: {did_you_mean(name, PROGRAMS)} "
            f"For any other that reads OPENAI_BASE_URL or ANTHROPIC_BASE_URL: agentcascade launch -- {name} …"
        )
    return name, rest[1:] if rest[:1] == ["--"] else rest


def _prepared(root: str, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Launch:
    """How the program is run. Raises `ConfigError` where it is not installed."""
    from agentcascade.launch.programs import PROGRAMS, other, without_http_proxy

    known = PROGRAMS.get(name)
    launch = (known.prepare if known else other)(root, arguments, environment)
    if shutil.which(launch.command[0], path=environment.get("PATH")) is None:
        install = f": {known.install}" if known else ""
        raise ConfigError(f"{launch.command[0]} is not installed, or not on PATH{install}")
    return launch._replace(environment={**without_http_proxy(environment), **launch.environment})


def _loaded(config: Path | None, url: str | None, student: str | None, base: str | None) -> CascadeConfig:
    overrides: ConfigKeywords = {"bank": {"url": url}} if url else {}
    if student:
        overrides["student"] = {"name": student, **({"api_base": base} if base else {})}
    elif base:
        raise click.UsageError("--student-base is an address of --student: name that one, too")
    path = config or config_path()
    settings = CascadeConfig.load(path, **overrides)
    if path is None and "prompt" not in settings.model_fields_set:
        settings = settings.model_copy(update={"prompt": settings.prompt.model_copy(update={"min_demonstrations": 0})})
    return settings


def _log_file() -> Path:
    """Where warnings go while the terminal is the program's."""
    from agentcascade._util.files import user_folder
    from agentcascade.types import now

    return (
        user_folder("XDG_STATE_HOME", ".local/state")
        / "agentcascade"
        / f"launch-{now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    )


def _say_summary(settings: CascadeConfig, since: Any) -> None:
    from agentcascade.launch.summary import summarize
    from agentcascade.models.pricing import PriceTable

    students = [m for m in (settings.student, *settings.students) if m is not None]
    prices: dict[str, Any] = {m.name: dict(m.price) for m in students if isinstance(m, ModelConfig) and m.price}
    with database(settings) as opened:
        summary = summarize(
            opened, since, settings.bank.namespace, PriceTable({**dict(settings.server.prices), **prices})
        )
    first, *others = summary.lines()
    say(f"agentcascade ({settings.mode}): {first}", err=True)
    for line in others:
        say(f"  {line}", err=True)
    if summary.spending and not students:
        say("  with --student MODEL: how often a cheaper model would have agreed, and what that saves", err=True)
