"""``agentcascade init``: a commented configuration file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from agentcascade._util.files import write_atomically
from agentcascade.cli.terminal import say


@click.command("init")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default="agentcascade.yaml")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(path: Path, force: bool) -> None:
    """Write a commented configuration file to PATH (agentcascade.yaml), and beside it the schema that editors read."""
    import json

    from agentcascade.config.schema import FILE, MODELINE, configuration_schema

    if path.exists() and not force:
        raise click.ClickException(f"{path} exists already: choose another path, or add --force to overwrite it")
    write_atomically(path, MODELINE + template())  # it may be given keys, so it is its owner's alone to read
    write_atomically(path.with_name(FILE), json.dumps(configuration_schema(), indent=1, sort_keys=True) + "\n")
    say(f"wrote {path}: name your models in it, then run `agentcascade doctor`")


def template() -> str:
    return files("agentcascade.cli").joinpath("agentcascade.yaml").read_text(encoding="utf-8")
