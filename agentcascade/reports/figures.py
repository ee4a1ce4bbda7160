"""The figures of reports, as SVG. Arrays and labels in, text out; nothing here knows of logs or databases."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agentcascade._util.control_characters import titled
from agentcascade.errors import MissingExtra

Interval = tuple[float, float]


@contextmanager
def drawn(made: list[str], height: float = 4.0) -> Iterator[Any]:
    """The axes of a new figure; its SVG is added to `made` at the end."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "tune", "a report") from error
    looks = {"svg.hashsalt": "agentcascade", "svg.fonttype": "none", "font.family": "sans-serif"}
    with rc_context({**looks, "text.parse_math": False}):  # a ``$`` in a name is a dollar, not TeX
        figure = Figure(figsize=(7.5, height), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        yield axes
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    made.append(text[text.index("<svg") :])


def frontier(
    points: Sequence[tuple[float, float, bool]],
    named: Mapping[str, tuple[float, float]],
    chosen: tuple[float, float] | None,
    bound: float | None,
    line: tuple[tuple[float, float], tuple[float, float]] | None,
    labels: tuple[str, str],
) -> str:
    """Rules as (cost, risk, certified), some by name, the chosen one, the bound, and a line of random mixes."""
    made: list[str] = []
    with drawn(made, 4.6) as axes:
        for certified, colour, label in ((False, "0.7", "not certified"), (True, "tab:green", "certified")):
            own = [(x, y) for x, y, c in points if c is certified]
            if own:
                axes.scatter(*zip(*own), s=22, color=colour, label=label, zorder=2)
        if line is not None:
            axes.plot(*zip(*line), color="tab:gray", linestyle=":", label="random mix of student and teacher")
        for name, (x, y) in named.items():
            axes.scatter([x], [y], s=46, marker="D", color="tab:blue", zorder=3)
            axes.annotate(titled(name), (x, y), textcoords="offset points", xytext=(7, 5), fontsize=9)
        if chosen is not None:
            axes.scatter([chosen[0]], [chosen[1]], s=120, marker="*", color="tab:red", label="chosen", zorder=4)
        if bound is not None:
            axes.axhline(bound, color="tab:red", linewidth=1, linestyle="--", label=f"allowed: {bound:g}")
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=-0.005)
        axes.legend(fontsize=8)
    return made[0]


def reliability(groups: Sequence[tuple[float, float, Interval, int]], labels: tuple[str, str]) -> str:
    """Groups as (agreement, share that is right, its interval, steps), against the diagonal."""
    made: list[str] = []
    with drawn(made) as axes:
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="as sure as it is right")
        for level, share, (low, high), steps in groups:
            error = [[max(0.0, share - low)], [max(0.0, high - share)]]
            axes.errorbar([level], [share], yerr=error, fmt="o", color="tab:blue", capsize=3)
            axes.annotate(f"{steps:,}", (level, share), textcoords="offset points", xytext=(6, -11), fontsize=8)
        axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(-0.02, 1.05), ylim=(-0.02, 1.05))
        axes.legend(fontsize=8)
    return made[0]


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    labels: tuple[str, str],
    *,
    bands: Mapping[str, Sequence[Interval]] | None = None,
    level: tuple[float, str] | None = None,
    log_x: bool = False,
    mark: float | None = None,
) -> str:
    """Lines by name, as points; `bands` around some; a horizontal `level` with its name; a vertical `mark`."""
    made: list[str] = []
    with drawn(made) as axes:
        for name, points in lines.items():
            if points:
                (drawn_line,) = axes.plot(*zip(*points), marker="o", markersize=3, linewidth=1.4, label=titled(name))
                if bands and name in bands:
                    x = [p[0] for p in points]
                    axes.fill_between(x, *zip(*bands[name]), alpha=0.15, color=drawn_line.get_color())
        if level is not None:
            axes.axhline(level[0], color="tab:red", linewidth=1, linestyle="--", label=level[1])
        if mark is not None:
            axes.axvline(mark, color="0.5", linewidth=1, linestyle=":")
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # its own is TeX
        axes.set(xlabel=labels[0], ylabel=labels[1])
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    return made[0]


def bars(rows: Sequence[tuple[str, float, Interval]], label: str) -> str:
    """Horizontal bars with intervals, the first on top."""
    made: list[str] = []
    with drawn(made, 0.8 + 0.42 * len(rows)) as axes:
        for i, (_, value, (low, high)) in enumerate(reversed(rows)):
            error = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.barh([i], [value], xerr=error, capsize=3, color="tab:blue" if value >= 0 else "tab:orange")
        axes.set_yticks(range(len(rows)), [titled(name) for name, _, _ in reversed(rows)])
        axes.axvline(0, color="0.3", linewidth=1)
        axes.set(xlabel=label)
    return made[0]
