"""Terminal output: the one way from a command to the terminal. What others wrote is shown, and never obeyed.

Goals, model names and errors come from banks, clients and providers. Printed as they are, they could clear the screen,
write to the clipboard, hide text or forge lines. Every command prints through `say` and `console`
(`tests/unit/test_terminal.py` checks); control characters are written out, and rich's markup is off.
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from agentcascade._util.control_characters import visible
from agentcascade.errors import without_secrets

if TYPE_CHECKING:
    from rich.console import Console


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a line. JSON stays the same data: control characters are written as JSON writes them."""
    click.echo(visible(str(text)), err=err, nl=nl)


def console(*, stderr: bool = False, width: int = 120) -> Console:
    """A rich console without markup, emoji and control characters, `width` wide where nobody says how wide it is."""
    from rich.console import Console

    class Safe(Console):
        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(visible(text), **options)

    options: dict[str, Any] = {"stderr": stderr, "markup": False, "emoji": False, "highlight": False}
    safe_console = Safe(**options)
    return safe_console if safe_console.is_terminal else Safe(width=width, **options)


def marked(to: Console, mark: str, style: str, text: str, *, dim: bool = False) -> None:
    """A line that begins with a mark of ours in a style of its own."""
    from rich.text import Text

    to.print(Text.assemble((mark, style), " ", (visible(text), "dim" if dim else "")), soft_wrap=True)


def cleaned(error: click.ClickException) -> click.ClickException:
    """The same error with a message that may be printed."""
    vars(error)["message"] = visible(without_secrets(error.message))
    return error


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of Python's own: an error that nobody foresaw may quote a key, or a hostile text."""
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(visible(without_secrets(text)))
