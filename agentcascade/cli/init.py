"""``agentcascade init``: a commented configuration, by an interview or by options, and the schema that editors read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from agentcascade.cli.presets import ABOUT, FULL, MODES
from agentcascade.cli.terminal import say


@click.command("init")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default="agentcascade.yaml")
@click.option(
    "--preset",
    type=click.Choice(list(ABOUT)),
    help="openai, anthropic, vllm, mixed: a short file; full: every key. Default: asked, or full without a terminal.",
)
@click.option("--teacher", metavar="MODEL", help="In place of the preset's.")
@click.option("--student", metavar="MODEL", help="Likewise.")
@click.option("--api-base", metavar="URL", help="Of a student on your own machine (preset vllm).")
@click.option("--mode", type=click.Choice(MODES), help="Default: collect (preset full: its template has cascade).")
@click.option("--yes", is_flag=True, help="Ask nothing: take the defaults. A file that is there is not overwritten.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(path: Path, preset: str | None, yes: bool, force: bool, **options: str | None) -> None:
    """Write a commented configuration to PATH (agentcascade.yaml), and beside it the schema that editors read.

    At a terminal a few questions are asked, each with a default. Keys are never written: they stay in the environment.
    """
    from agentcascade.cli import interview
    from agentcascade.cli.presets import PRESETS

    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not yes
    may_replace = force or not path.exists()
    if not may_replace and not (asks and click.confirm(f"{path} exists already. Overwrite it?", default=False)):
        raise click.ClickException(f"{path} exists already: choose another path, or add --force to overwrite it")
    if preset is None and not asks:
        preset = interview.guessed_preset() if yes or given else FULL
    if preset == FULL and given:
        raise click.UsageError(
            f"--{next(iter(given)).replace('_', '-')} goes with the other presets: full is a template"
        )
    if asks:
        answers = interview.ask(preset, given)
    elif preset == FULL:
        answers = None
    else:
        answers = interview.with_given(PRESETS[preset or "openai"], given)
        if preset == "vllm" and "student" not in given:
            answers = interview.with_served(answers)
    written = write(path, answers)
    say(f"wrote {written}" + (": name your models in it, then run `agentcascade doctor`" if answers is None else ""))
    if answers is None:
        return
    for line in interview.key_lines(answers):
        say(line)
    if asks and click.confirm("Run `agentcascade doctor` now?", default=True):
        examine(path)
    else:
        named = "" if str(path) == "agentcascade.yaml" else f" --config {path}"
        say(f"next: `agentcascade doctor{named}` says whether everything is there; docs/start.md goes on from here")


def write(path: Path, answers: Any) -> Path:
    """Write the file and its schema; what is written was loaded first. Raises `ConfigError`, and writes nothing."""
    import json

    import yaml

    from agentcascade._util.files import write_atomically
    from agentcascade.cli.presets import configuration, full
    from agentcascade.config.load import check
    from agentcascade.config.schema import FILE, configuration_schema

    text = full() if answers is None else configuration(answers)
    check(yaml.safe_load(text), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text, follow=True)  # it may be given keys, so it is its owner's alone to read
    write_atomically(path.with_name(FILE), json.dumps(configuration_schema(), indent=1, sort_keys=True) + "\n")
    return path


def examine(path: Path) -> None:
    """Run ``agentcascade doctor``; what it finds is no failure of what was written."""
    from agentcascade.cli.doctor import command as doctor

    try:
        doctor.callback(config=path, call=False)  # type: ignore[misc]
    except SystemExit as ended:
        if ended.code:
            say(f"mend what is marked ✗, then run `agentcascade doctor --config {path}` again")
