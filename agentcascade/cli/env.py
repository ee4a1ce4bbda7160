"""``agentcascade env``: environments that need more than a package."""

from __future__ import annotations

import shutil

import click

from agentcascade.cli.groups import NamingGroup
from agentcascade.cli.terminal import say

KNOWN = ("appworld",)


@click.group(cls=NamingGroup)
def command() -> None:
    """Install the environments that benchmarks play in."""


@command.command()
@click.argument("name", type=click.Choice(KNOWN))
@click.option("--fresh", is_flag=True, help="Remove what there is of it, and make it anew.")
def install(name: str, fresh: bool) -> None:
    """Make environment NAME ready; what is there already is left alone.

    appworld: in a virtual environment of its own, with generated worlds where $APPWORLD_ROOT names no others.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from agentcascade.envs.appworld import installation

    if fresh:
        shutil.rmtree(installation.install_folder(), ignore_errors=True)
    columns = TextColumn("{task.description:<30}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns) as bar:
        shown = bar.add_task("", total=None)
        installation.install_appworld(
            lambda what, done, total: bar.update(shown, description=what, completed=done, total=total)
        )
        bar.update(shown, description="done", completed=1, total=1)
    say(f"{installation.install_folder()} has AppWorld {installation.VERSION}: agentcascade bench appworld")


@command.command("list")
def list_() -> None:
    """Say which environments are ready, and where."""
    from agentcascade.envs.appworld import installation
    from agentcascade.errors import EnvironmentFailed

    try:
        installation.interpreter()
        root = installation.appworld_root()
    except EnvironmentFailed as error:
        say(f"appworld  {error}")
    else:
        splits = ", ".join(f"{s} {len(installation.task_ids(root, s))}" for s in installation.splits(root))
        kind = "official" if installation.official_root() else "generated"
        say(f"appworld  {installation.VERSION}, {kind} worlds in {root}: {splits}")
