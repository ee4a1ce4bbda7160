"""``agentcascade switch``: every step to the teacher, now, in every process; and back."""

from __future__ import annotations

from pathlib import Path

import click

from agentcascade.cli.settings import database, database_options, load_config
from agentcascade.cli.terminal import say


@click.command("switch")
@click.argument("position", type=click.Choice(["teacher", "normal", "show"]))
@click.option("--reason", default="", help="Shown by `switch show`.")
@database_options
def command(position: str, reason: str, config: Path | None, url: str | None) -> None:
    """The kill switch: `teacher` sends every step to the teacher within about a second, `normal` ends that."""
    from agentcascade.storage.switch import Switch

    with database(load_config(config, url)) as opened:
        switch = Switch(opened)
        if position != "show":
            switch.set(position == "teacher", reason)
        stated_reason = switch.reason
    if stated_reason is None:
        say("normal: the configured modes count")
    else:
        say("teacher: every step goes to the teacher" + (f" ({stated_reason})" if stated_reason else ""))
