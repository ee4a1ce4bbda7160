"""``agentcascade students``: vLLM students on one's own machines."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentcascade.cli.groups import NamingGroup
from agentcascade.cli.students_engine import engine_options, engine_settings
from agentcascade.cli.students_sample import sample
from agentcascade.cli.terminal import say

if TYPE_CHECKING:
    from agentcascade.vllm.registry import Student


@click.group(cls=NamingGroup)
def command() -> None:
    """Serve students on your own machines with vLLM."""


command.add_command(sample)


def _dollars(context: click.Context, parameter: click.Parameter, value: str | None) -> Decimal | None:
    if value is None:
        return None
    with suppress(InvalidOperation):
        amount = Decimal(value)
        if amount.is_finite() and amount > 0:
            return amount
    raise click.BadParameter(f"'{value}' is not a number of dollars above 0")


@command.command(context_settings={"ignore_unknown_options": False})
@click.argument("model")
@engine_options
@click.option("--name", help="What requests call it. Default: the last part of MODEL.")
@click.option("--replicas", type=click.IntRange(1), default=1, show_default=True, help="Engines; each needs a GPU.")
@click.option("--port", type=click.IntRange(1, 65535), help="Of a single replica. Default: a free one.")
@click.option("--tool-parser", help="As vLLM names it, e.g. hermes: the student may call tools.")
@click.option(
    "--hour-dollars", callback=_dollars, help="What an hour of these machines costs: tokens are priced by it."
)
@click.option("--detach", is_flag=True, help="Return when it is ready; end it with `agentcascade students stop`.")
@click.option("--quiet", is_flag=True, help="Do not show what the engine logs.")
@click.argument("extra", nargs=-1)
def serve(model: str, name: str | None, replicas: int, port: int | None, extra: Sequence[str], **options: Any) -> None:
    """Start MODEL (a folder, or a name of the hub) and wait until it answers; what follows `--` goes to vLLM.

    A configuration then says `student: {name: hosted_vllm/NAME}`: address and price are found. With --hour-dollars the
    price of a token is measured at the start; without it dollars stay unknown.
    """
    from agentcascade._util.files import cache_folder
    from agentcascade.errors import ConfigError
    from agentcascade.vllm.engine import Engine, launch_command
    from agentcascade.vllm.registry import Registry, Replica, Student, start_ticks

    if port is not None and replicas > 1:
        raise click.UsageError("--port is of a single replica")
    called = name or Path(model).name
    registry = Registry()
    running_student = registry.all().get(called)
    if running_student is not None and running_student.alive:
        raise ConfigError(f"student '{called}' is running already: stop it, or give this one another --name")
    settings = engine_settings(model, called, options, extra, tool_parser=options["tool_parser"])
    command_ = launch_command(options["vllm"])
    for number in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, number):
            signal.signal(getattr(signal, number), _interrupt)
    engines: list[Engine] = []
    ready = False
    try:
        for i in range(replicas):
            log = cache_folder("students") / f"{called}-{i}.log"
            engines.append(Engine(command_, settings, log, port, bound=not options["detach"]))
        for engine in engines:
            engine.wait(options["wait"], None if options["quiet"] else lambda line: say(line, err=True))
        student = Student(
            name=called,
            model=model,
            replicas=tuple(
                Replica(api_base=e.api_base, pid=e.process.pid, log=str(e.log), started=start_ticks(e.process.pid))
                for e in engines
            ),
            hour_dollars=options["hour_dollars"],
        )
        if options["hour_dollars"] is not None:
            student = _priced(student, options["hour_dollars"])
        registry.put(student)
        _tell(student)
        ready, running = True, list(engines)
        while not options["detach"]:
            time.sleep(0.5)
            for engine in [e for e in running if e.process.poll() is not None]:
                running.remove(engine)
                say(f"an engine of '{called}' died: see {engine.log}", err=True)
            if not running:
                raise ConfigError(f"student '{called}' has died: see {engines[0].log}")
    except KeyboardInterrupt:
        say("stopping", err=True)
    finally:
        if not (ready and options["detach"]):
            for engine in engines:
                engine.stop()
            if ready:
                registry.drop(called)


def _interrupt(number: int, _: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough
    raise KeyboardInterrupt


def _tell(student: Student) -> None:
    bases = ", ".join(replica.api_base for replica in student.replicas)
    say(f"{student.name} answers at {bases}")
    say(f"student: {{name: hosted_vllm/{student.name}}}")
    if student.price is None:
        say("its tokens have no price: `agentcascade students bench` gives them one")
    else:
        price = student.price
        say(
            f"dollars per million tokens: input {price.input:.4f}, cached {price.cached_input:.4f}, "
            f"output {price.output:.4f}"
        )


def _priced(student: Student, hour_dollars: Decimal, **load: int) -> Student:
    import asyncio

    from agentcascade.vllm.throughput import measure_throughput

    measured = asyncio.run(measure_throughput(student.api_bases, student.name, **load))
    rates = f"reads {measured.input:,.0f}, from its cache {measured.cached_input:,.0f}, writes {measured.output:,.0f}"
    say(f"tokens a second: {rates}")
    return student.model_copy(update={"hour_dollars": hour_dollars, "price": measured.price(hour_dollars)})


@command.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--kind", type=click.Choice(("gpu", "cpu")), help="Default: gpu where there is an nvidia-smi.")
@click.option("--quiet", is_flag=True, help="Do not show what pip says.")
def install(folder: Path | None, kind: str | None, quiet: bool) -> None:
    """Install vLLM into a virtual environment of its own, by default where `serve` looks for it. Several GB."""
    from agentcascade.vllm import installation
    from agentcascade.vllm.engine import environment_folder

    where, chosen = (folder or environment_folder()).absolute(), kind or installation.detect_build()
    installation.install_vllm(where, chosen, (lambda line: None) if quiet else lambda line: say(line, err=True))
    say(f"vLLM ({chosen}) is in {where}" + (": name it with --vllm or AGENTCASCADE_VLLM" if folder else ""))


@command.command()
@click.argument("name")
def config(name: str) -> None:
    """Print the section of a configuration for a student that runs here, for use on another machine, too."""
    import yaml

    from agentcascade.models.quirks import HOSTED_VLLM
    from agentcascade.vllm.registry import Registry

    student = Registry().find(name)
    section: dict[str, Any] = {"name": HOSTED_VLLM + student.name, "api_base": student.api_bases[0]}
    if student.price is not None:
        rates = student.price.model_dump(exclude_none=True, exclude={"long_context"})
        section["price"] = {name: str(rate) for name, rate in rates.items()}
    say(yaml.safe_dump({"student": section}, sort_keys=False), nl=False)
    if len(student.api_bases) > 1:
        say("# one of its replicas; without api_base and price all of them are found on this machine")


@command.command("list")
def list_() -> None:
    """Say which students run here, how busy they are, and what share of prompts their caches answered."""
    from agentcascade.vllm.registry import Registry
    from agentcascade.vllm.throughput import read_gauges

    students = Registry().all()
    if not students:
        say("no student is running here")
    for student in students.values():
        price = "no price"
        if student.price is not None:
            price = f"${student.price.input:.4f}/{student.price.output:.4f} a million tokens"
        for replica in student.replicas:
            state = _state(read_gauges(replica.api_base)) if replica.alive else "dead"
            say(f"{student.name}  {replica.api_base}  {price}  {state}")


def _state(gauges: dict[str, float]) -> str:
    if not gauges:
        return "does not answer"
    queries, hits = (gauges.get(f"prefix_cache_{what}_total", 0.0) for what in ("queries", "hits"))
    cached = f", {hits / queries:.0%} of prompt tokens from cache" if queries else ""
    running, waiting = (gauges.get(f"num_requests_{what}", 0.0) for what in ("running", "waiting"))
    return f"{running:.0f} running, {waiting:.0f} waiting{cached}"


@command.command()
@click.argument("name")
def stop(name: str) -> None:
    """End a student that was started with --detach."""
    from agentcascade.errors import ConfigError, did_you_mean
    from agentcascade.vllm.engine import end_process_group
    from agentcascade.vllm.registry import Registry

    registry = Registry()
    students = registry.all()
    if name not in students:
        raise ConfigError(f"there is no student '{name}': {did_you_mean(name, students)}")
    for replica in students[name].replicas:
        if replica.alive:
            end_process_group(replica.pid, lambda replica=replica: not replica.alive)  # type: ignore[misc]
    registry.drop(name)
    say(f"{name} is stopped")


@command.command()
@click.argument("name")
@click.option("--hour-dollars", callback=_dollars, help="Default: what it was started with.")
@click.option("--at-once", type=click.IntRange(1), default=8, show_default=True, help="Requests under way per replica.")
@click.option("--prompt-words", type=click.IntRange(1), default=600, show_default=True)
@click.option("--tokens", type=click.IntRange(2), default=64, show_default=True, help="Of an answer.")
def bench(name: str, hour_dollars: Decimal | None, **load: int) -> None:
    """Measure a running student's throughput, and price its tokens by what an hour of its machines costs."""
    from agentcascade.vllm.registry import Registry

    registry = Registry()
    student = registry.find(name)
    dollars = hour_dollars or student.hour_dollars
    if dollars is None:
        raise click.UsageError("--hour-dollars says what an hour of these machines costs")
    student = _priced(student, dollars, **load)
    registry.put(student)
    _tell(student)
