"""Matplotlib figures of reports as SVG texts, from arrays and labels."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agentcascade._util.control_characters import titled
from agentcascade.errors import MissingExtra

Interval = tuple[float, float]


@contextmanager
def svg_axes(svgs: list[str], height: float = 4.0) -> Iterator[Any]:
    """The axes of a new figure, whose SVG is appended to `svgs` at the end."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "tune", "a report") from error
    style = {"svg.hashsalt": "agentcascade", "svg.fonttype": "none", "font.family": "sans-serif"}
    with rc_context({**style, "text.parse_math": False}):  # a ``$`` in a name is a dollar, not TeX
        figure = Figure(figsize=(7.5, height), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        yield axes
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    svgs.append(text[text.index("<svg") :])


def plot_frontier(
    points: Sequence[tuple[float, float, bool]],
    named: Mapping[str, tuple[float, float]],
    chosen: tuple[float, float] | None,
    bound: float | None,
    line: tuple[tuple[float, float], tuple[float, float]] | None,
    labels: tuple[str, str],
) -> str:
    """Plot the frontier: rules as (cost, risk, certified), named and chosen ones, the bound, a line of random mixes."""
    svgs: list[str] = []
    with svg_axes(svgs, 4.6) as axes:
        for certified, colour, label in ((False, "0.7", "not certified"), (True, "tab:green", "certified")):
            group = [(x, y) for x, y, c in points if c is certified]
            if group:
                axes.scatter(*zip(*group), s=22, color=colour, label=label, zorder=2)
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
    return svgs[0]


def plot_reliability(groups: Sequence[tuple[float, float, Interval, int]], labels: tuple[str, str]) -> str:
    """Reliability diagram of groups as (agreement, share that is right, its interval, steps)."""
    svgs: list[str] = []
    with svg_axes(svgs) as axes:
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="as sure as it is right")
        for level, share, (low, high), steps in groups:
            error = [[max(0.0, share - low)], [max(0.0, high - share)]]
            axes.errorbar([level], [share], yerr=error, fmt="o", color="tab:blue", capsize=3)
            axes.annotate(f"{steps:,}", (level, share), textcoords="offset points", xytext=(6, -11), fontsize=8)
        axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(-0.02, 1.05), ylim=(-0.02, 1.05))
        axes.legend(fontsize=8)
    return svgs[0]


def plot_curves(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    labels: tuple[str, str],
    *,
    bands: Mapping[str, Sequence[Interval]] | None = None,
    level: tuple[float, str] | None = None,
    log_x: bool = False,
    mark: float | None = None,
) -> str:
    """Line plot by name, with `bands` around some, a horizontal `level` and a vertical `mark`."""
    svgs: list[str] = []
    with svg_axes(svgs) as axes:
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
    return svgs[0]


def plot_bars(rows: Sequence[tuple[str, float, Interval]], label: str) -> str:
    """Horizontal bar plot with intervals, the first row on top."""
    svgs: list[str] = []
    with svg_axes(svgs, 0.8 + 0.42 * len(rows)) as axes:
        for i, (_, value, (low, high)) in enumerate(reversed(rows)):
            error = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.barh([i], [value], xerr=error, capsize=3, color="tab:blue" if value >= 0 else "tab:orange")
        axes.set_yticks(range(len(rows)), [titled(name) for name, _, _ in reversed(rows)])
        axes.axvline(0, color="0.3", linewidth=1)
        axes.set(xlabel=label)
    return svgs[0]
