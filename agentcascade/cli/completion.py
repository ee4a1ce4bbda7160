"""``agentcascade completion``: completion of commands, options and names by the shell, installed and taken away."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Literal, NamedTuple

import click

from agentcascade.cli.groups import NamingGroup
from agentcascade.cli.terminal import say

Shell = Literal["bash", "zsh", "fish"]
SHELLS: tuple[Shell, ...] = ("bash", "zsh", "fish")
PROGRAM, VARIABLE = "agentcascade", "_AGENTCASCADE_COMPLETE"
MARK = "# agentcascade completion"
"""Ends the line that is ours in a shell's start file."""
COMPINIT = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"
"""zsh's completion system, where no start file has loaded it."""

shell_option = click.option("--shell", type=click.Choice(SHELLS), help="Default: that of $SHELL.")


class Place(NamedTuple):
    """Where a shell finds its completion."""

    script: Path
    start: Path | None
    """File that sources the script; None where the shell finds it itself."""

    @property
    def line(self) -> str:
        """What the start file has of ours."""
        script = shlex.quote(str(self.script))
        return f"[ -r {script} ] && . {script}  {MARK}"


@click.group("completion", cls=NamingGroup)
def command() -> None:
    """Complete commands, options and names of your configuration by the Tab key, in bash, zsh and fish."""


@command.command()
@shell_option
def show(shell: Shell | None) -> None:
    """Print the script, for an installation of your own."""
    say(script_of(shell or own_shell()), nl=False)


@command.command()
@shell_option
def install(shell: Shell | None) -> None:
    """Write the script, and one line into the shell's start file that loads it. A second time changes nothing."""
    shell = shell or own_shell()
    place, text = place_of(shell), script_of(shell)
    changed = _written(place.script, text)
    if place.start is not None:
        changed |= _with_line(place.start, place.line)
    found = f"{place.script}" + (f", loaded by {place.start}" if place.start is not None else "")
    if not changed:
        say(f"completion for {shell} is installed already: {found}")
        return
    say(f"installed completion for {shell}: {found}")
    say(f"open a new {shell}, or begin with `{_now(shell, place)}`; `agentcascade completion uninstall` undoes it")


@command.command()
@shell_option
def uninstall(shell: Shell | None) -> None:
    """Take away what `install` wrote."""
    shell = shell or own_shell()
    place = place_of(shell)
    had_script = place.script.exists()
    place.script.unlink(missing_ok=True)
    had_line = place.start is not None and _with_line(place.start, None)
    say(f"completion for {shell} {'is taken away' if had_script or had_line else 'was not installed'}")


def own_shell() -> Shell:
    """The user's shell. Raises `click.ClickException` where it is none that can be completed."""
    name = Path(os.environ.get("SHELL", "")).name
    for shell in SHELLS:
        if name == shell:
            return shell
    raise click.ClickException(f"$SHELL is '{name}': name one with --shell, {', '.join(SHELLS)}")


def place_of(shell: Shell) -> Place:
    """Where completion of a shell is installed."""
    from agentcascade._util.files import user_folder

    home, config = Path.home(), user_folder("XDG_CONFIG_HOME", ".config")
    if shell == "fish":
        return Place(config / "fish" / "completions" / f"{PROGRAM}.fish", None)
    data = user_folder("XDG_DATA_HOME", ".local/share")
    bash = home / (".bash_profile" if sys.platform == "darwin" else ".bashrc")
    start = bash if shell == "bash" else Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    return Place(data / PROGRAM / f"completion.{shell}", start)


def script_of(shell: Shell) -> str:
    """The script that asks this program for completions. A shell that starts runs no Python for it."""
    from click.shell_completion import get_completion_class

    from agentcascade.cli import main

    kind = get_completion_class(shell)
    assert kind is not None
    # not `source()`, which runs bash to learn its version
    text = kind.source_template % kind(main, {}, PROGRAM, VARIABLE).source_vars()
    return f"{COMPINIT}{text}" if shell == "zsh" else text


def _now(shell: Shell, place: Place) -> str:
    return f"{'.' if shell == 'bash' else 'source'} {shlex.quote(str(place.script))}"


def _written(path: Path, text: str) -> bool:
    """Whether the file was another one before."""
    from agentcascade._util.files import write_atomically

    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text, follow=True)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written ({error.strerror}): use `completion show`") from None
    return True


def _with_line(start: Path, line: str | None) -> bool:
    """Whether a start file was changed so that this is its one line of ours; None: it is to have none.

    Everything else in the file stays as it is, to the byte.
    """
    from agentcascade._util.files import write_atomically

    file = start.resolve()
    try:
        text = file.read_bytes().decode("utf-8", "surrogateescape") if file.exists() else ""
        kept = [one for one in text.splitlines(keepends=True) if not one.rstrip().endswith(MARK)]
        ours = [one.rstrip() for one in text.splitlines() if one.rstrip().endswith(MARK)]
        if ours == ([] if line is None else [line]):
            return False
        if kept and line is not None and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        changed = "".join(kept) + ("" if line is None else f"{line}\n")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, changed, follow=True, errors="surrogateescape")
    except OSError as error:
        what = "take the line that ends in" if line is None else "add this line yourself:"
        raise click.ClickException(f"{file} cannot be written ({error.strerror}): {what} {line or MARK}") from None
    return True
