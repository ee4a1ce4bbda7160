"""Matplotlib figures in files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentcascade._util.control_characters import titled
from agentcascade.errors import MissingExtra


def escape_tex(name: str) -> str:
    """Escape a name for a figure whose texts may hold TeX."""
    return titled(name).replace("$", r"\$")


def plain_figure(height: float = 4.5) -> Any:
    """A new figure. Raises `MissingExtra`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "bench", "a plot") from error
    return Figure(figsize=(7, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure in the format of the path's suffix; the same figure gives the same file."""
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


@contextmanager
def figure_axes(path: Path, rows: int = 1, height: float = 4.5) -> Iterator[Any]:
    """Axes of a new figure (a list for more than one row), which is written to `path` at the end."""
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise MissingExtra("matplotlib", "bench", "a plot") from error
    with rc_context({"text.parse_math": False}):  # a ``$`` in a name is a dollar, not TeX
        figure = plain_figure(height)
        axes = figure.subplots(rows, squeeze=False)[:, 0]
        for one in axes:
            one.grid(alpha=0.25)
        yield axes[0] if rows == 1 else axes
        save_figure(figure, path)
