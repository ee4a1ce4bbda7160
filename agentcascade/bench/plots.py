"""Matplotlib figures in files, and the Pareto plot of accuracy against dollars per episode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentcascade._util.control_characters import titled
from agentcascade.bench.statistics import PolicyResult
from agentcascade.errors import MissingExtra


def escape_tex(name: str) -> str:
    """Escape a name for a figure whose texts may hold TeX."""
    return titled(name).replace("$", r"\$")


@contextmanager
def figure_axes(path: Path, rows: int = 1, height: float = 4.5) -> Iterator[Any]:
    """Axes of a new figure (a list for more than one row), which is written to `path` at the end."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "bench", "a plot") from error
    with rc_context({"text.parse_math": False}):  # a ``$`` in a name is a dollar, not TeX
        figure = Figure(figsize=(7, height), layout="constrained")
        axes = figure.subplots(rows, squeeze=False)[:, 0]
        for one in axes:
            one.grid(alpha=0.25)
        yield axes[0] if rows == 1 else axes
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def plot_pareto(rows: Sequence[PolicyResult], title: str, paths: Sequence[Path]) -> None:
    """Plot the Pareto front to every path, in the format of its suffix. Policies without a known price are left out."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "bench", "the Pareto plot") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    priced = sorted((r for r in rows if r.dollars_per_episode is not None), key=lambda r: r.dollars_per_episode or 0)
    frontier, best = [], -1.0
    for row in priced:
        low, high = row.accuracy_ci
        dollars = row.dollars_per_episode or 0.0
        axes.errorbar(
            dollars,
            row.accuracy,
            yerr=[[max(0, row.accuracy - low)], [max(0, high - row.accuracy)]],
            fmt="o",
            capsize=3,
        )
        axes.annotate(escape_tex(row.policy), (dollars, row.accuracy), textcoords="offset points", xytext=(7, 6))
        if row.accuracy > best:
            best = row.accuracy
            frontier.append((dollars, row.accuracy))
    axes.plot(*zip(*frontier), color="0.6", linewidth=1, zorder=0) if frontier else None
    axes.set(title=escape_tex(title), xlabel="dollars per episode", ylabel="accuracy", ylim=(-0.03, 1.08))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.margins(x=0.15)
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
