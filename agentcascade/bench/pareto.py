"""Pareto plot of a run: accuracy against dollars, with the front of the policies that one could choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from agentcascade.bench.plots import escape_tex, plain_figure, save_figure
from agentcascade.bench.policies import ALONE, COMMITTEE, ORACLE, SHADOW, short_name
from agentcascade.bench.statistics import PolicyResult

WIDE = 30
"""From so many times the cheapest policy's dollars on, the axis of dollars shows square roots, which keeps zero"""
_TEACHER, _MODEL, _COMMITTEE, _OTHER = ("s", "black"), ("o", "0.45"), ("D", "tab:blue"), ("o", "tab:orange")


def plot_pareto(rows: Sequence[PolicyResult], run: Mapping[str, Any], paths: Sequence[Path]) -> None:
    """Plot a run's policies to every path, in the format of its suffix.

    Policies without a known price are left out, as is the one that fills a log; the oracle is drawn hollow and is no
    part of the front, since nobody can play it.

    Args:
        rows: one for each policy.
        run: its settings, which name models and suite.
        paths: of files to write.
    """
    figure = plain_figure()
    axes = figure.add_subplot()
    points = [
        (1000 * r.dollars_per_episode, r) for r in rows if r.dollars_per_episode is not None and r.policy != SHADOW
    ]
    points.sort(key=lambda point: (point[0], -point[1].accuracy))
    for dollars, row in points:
        marker, colour = mark_of(row.policy, run)
        low, high = row.accuracy_ci
        axes.errorbar(
            dollars,
            row.accuracy,
            yerr=[[max(0, row.accuracy - low)], [max(0, high - row.accuracy)]],
            fmt=marker,
            color=colour,
            markerfacecolor="white" if row.policy == ORACLE else colour,
            ecolor="0.7",
            capsize=3,
            zorder=2,
        )
    front = front_of([(dollars, row.accuracy) for dollars, row in points if row.policy != ORACLE])
    axes.plot(*zip(*front), color="tab:blue", linewidth=1, alpha=0.6, zorder=1) if front else None
    axes.set(
        title=escape_tex(f"{run['suite']} ({run['models_are']} models), 95 % intervals"),
        xlabel="dollars per 1,000 episodes",
        ylabel="accuracy",
    )
    prices = [dollars for dollars, _ in points] or [0.0]
    if max(prices) > WIDE * min(prices):
        axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        axes.set_xlabel(f"{axes.get_xlabel()} (square-root scale)")
    axes.set_xlim(0, 1.25 * max(prices) or 1)
    if points:
        bottom, top = min(r.accuracy_ci[0] for _, r in points), max(r.accuracy_ci[1] for _, r in points)
        axes.set_ylim(bottom - 0.1 * (top - bottom) - 0.02, top + 0.1 * (top - bottom) + 0.02)
    axes.grid(alpha=0.25)
    _label(
        figure,
        axes,
        [(dollars, row.accuracy, label_of(row.policy, run)) for dollars, row in points],
        [r for _, r in points],
    )
    for path in paths:
        save_figure(figure, path)


def front_of(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points (dollars, accuracy), cheapest first, those that are better than all that cost no more."""
    front, best = [], -1.0
    for dollars, accuracy in points:
        if accuracy > best:
            best = accuracy
            front.append((dollars, accuracy))
    return front


def label_of(policy: str, run: Mapping[str, Any]) -> str:
    """A policy's name in the plot: with the model where it is one's alone, with the votes where it is a committee's."""
    models = run.get("models", {})
    if policy in ("teacher", "student") and policy in models:
        return f"{policy}: {short_name(models[policy]['name'])}"
    if policy.startswith(ALONE):
        return policy.removeprefix(ALONE)
    if policy == "cascade" and (members := _members(run)):
        size = members * run.get("samples", 1)
        return f"cascade: {run.get('needed') or size // 2 + 1} of {size}"
    return {"random": "random mix", ORACLE: "oracle"}.get(policy, policy)


def mark_of(policy: str, run: Mapping[str, Any]) -> tuple[str, str]:
    """Marker and colour of a policy."""
    if policy == "teacher":
        return _TEACHER
    if policy.startswith((ALONE, "student")):
        return _MODEL
    return _COMMITTEE if policy.startswith("cascade") or COMMITTEE.fullmatch(policy) else _OTHER


def _members(run: Mapping[str, Any]) -> int:
    """How many students vote together; 0 where there is one."""
    further = sum(role.startswith("member ") for role in run.get("models", {}))
    return further + 1 if further else 0


def _label(figure: Any, axes: Any, points: Sequence[tuple[float, float, str]], rows: Sequence[PolicyResult]) -> None:
    """Name every point where its name covers no other name, point or interval, as near as that goes."""
    figure.draw_without_rendering()
    ends = [[axes.transData.transform((x, end))[1] for end in row.accuracy_ci] for (x, _, _), row in zip(points, rows)]
    bars = [(axes.transData.transform((x, y))[0], *end) for (x, y, _), end in zip(points, ends)]
    at = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in at]
    taken += [(x - 1, low, x + 1, high) for x, low, high in bars]
    frame = axes.get_window_extent()
    for (x, y, name), place in zip(points, at):
        text = axes.annotate(escape_tex(name), (x, y), textcoords="offset points", xytext=(0, 0), fontsize=9)
        box = text.get_window_extent()
        width, height, scale = box.width, box.height, 72 / figure.dpi
        best = None
        for dx, dy in _offsets(width, height):
            left, low = place[0] + dx, place[1] + dy
            spot = (left, low, left + width, low + height)
            over = sum(_overlap(spot, other) for other in taken)
            outside = spot[0] < frame.x0 or spot[2] > frame.x1 or spot[1] < frame.y0 or spot[3] > frame.y1
            cost = over + outside * width * height
            if best is None or cost < best[0]:
                best = cost, dx, dy, spot
            if not cost:
                break
        assert best is not None
        _, dx, dy, spot = best
        text.set_position((dx * scale, dy * scale))
        if abs(dy) > 20:  # far off: a line says whose name it is
            end = (min(max(0, dx), dx + width) * scale, (dy if dy > 0 else dy + height) * scale)
            axes.annotate(
                "", (x, y), xytext=end, textcoords="offset points", arrowprops={"arrowstyle": "-", "color": "0.6"}
            )
        taken.append(spot)


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Places of a text's lower left corner about its point, nearest first."""
    for far, (side, up) in product((1, 2, 4, 7, 11, 15), ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))):
        x = 8 if side > 0 else -8 - width if side < 0 else -width / 2
        yield x, far * 4 if up > 0 else -far * 4 - height


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)
