"""The command line. A command's module is imported when the command runs, so that ``--help`` stays fast."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from agentcascade._version import __version__
from agentcascade.cli.groups import NamingGroup

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETES = "_AGENTCASCADE_COMPLETE"
"""Environment variable by which a shell asks for completions."""
COMMANDS = {
    "audit": ("audit", "Say whether the certified risk still holds."),
    "bank": ("bank", "List, show, export, import and prune demonstrations."),
    "batch": ("batch", "See, await and cancel what was sent by providers' batch interfaces."),
    "bench": ("bench", "Run a benchmark under several policies."),
    "completion": ("completion", "Complete commands and names by the Tab key."),
    "db": ("db", "Upgrade, prune and vacuum the database."),
    "doctor": ("doctor", "Say what is installed, what is missing and what answers."),
    "env": ("env", "Install the environments that benchmarks play in."),
    "explain": ("explain", "Say why a step was deferred, or not, and what would have taken it."),
    "init": ("init", "Write a commented configuration file."),
    "judge": ("judge", "Check a judge on known outcomes, and judge stored episodes."),
    "keys": ("keys", "Create, list and revoke API keys of the proxy."),
    "launch": ("launch", "Run an agent's program as it is, and say what a cascade would save."),
    "ledger": ("ledger", "Say what was spent and what was saved."),
    "log": ("log", "Import, export and show logs of steps."),
    "memory": ("memory", "Keep histories, ask them, and train what decides their cost."),
    "replay": ("replay", "Say what rules would have done on a log."),
    "report": ("report", "Write a report with plots, from a log, a run or the database."),
    "serve": ("serve", "Serve an OpenAI-compatible proxy and a dashboard."),
    "students": ("students", "Serve students on your own machines with vLLM."),
    "tour": ("tour", "See a cascade at work in two minutes, on recorded answers."),
    "tune": ("tune", "Choose the cheapest rule whose risk is certified on a log."),
    "switch": ("switch", "Send every step to the teacher, and back."),
}
"""Command name: module in this package, and its line in the help."""


class LazyGroup(NamingGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"agentcascade.cli.{COMMANDS[name][0]}").command
        if COMPLETES in os.environ:
            from agentcascade.cli.completion_values import complete_values

            complete_values(name, command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Commands by their names alone: no module of theirs is imported."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=line) for name, (_, line) in sorted(COMMANDS.items())]
        return [item for item in found if item.value.startswith(incomplete)] + (
            super(click.Group, self).shell_complete(ctx, incomplete) if incomplete.startswith("-") else []
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(COMMANDS.items())])

    def invoke(self, ctx: click.Context) -> Any:
        from agentcascade.cli.terminal import cleaned
        from agentcascade.errors import AgentCascadeError

        try:
            return super().invoke(ctx)
        except AgentCascadeError as error:
            raise cleaned(click.ClickException(str(error))) from None
        except click.ClickException as error:
            raise cleaned(error) from None
        except OSError as error:
            if not isinstance(error.filename, str) or not error.strerror:
                raise
            said = f"{error.filename}: {error.strerror}. Check the path and its permissions, or choose another"
            raise cleaned(click.ClickException(said)) from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        from agentcascade.cli.terminal import show_traceback

        sys.excepthook = show_traceback
        return super().main(*args, **kwargs)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agentcascade")
def main() -> None:
    """Make LLM agents cheaper: demonstrations for a cheap student, a teacher where it disagrees with itself."""
