"""Economics as commands say it: what a cascade costs beside its teacher, which acceptance it needs, what helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade.cli.terminal import marked
from agentcascade.errors import AgentCascadeError, describe

if TYPE_CHECKING:
    from rich.console import Console

    from agentcascade.economics.outlook import Outlook
    from agentcascade.step.context import StepContext


def say_recorded(to: Console, context: StepContext) -> None:
    """The outlook of a cascade, by what its database holds. What cannot be read is said, and is no failure."""
    from agentcascade.economics.outlook import outlook, recorded_outlook

    try:
        found = recorded_outlook(context)
    except (AgentCascadeError, OSError, ValueError) as error:
        marked(to, "!", "yellow", f"cascade {context.name}: recorded steps cannot be read ({describe(error)})")
        found = outlook(context)
    if found is not None:
        say_outlook(to, found)


def say_outlook(to: Console, outlook: Outlook) -> None:
    """The verdict with a mark of its own, then what it goes by."""
    verdict, *others = outlook.lines()
    mark, style = ("✓", "green") if outlook.pays else ("!", "yellow")
    marked(to, mark, style, verdict)
    for line in others:
        to.print(f"    {line}", style="dim", soft_wrap=True)
