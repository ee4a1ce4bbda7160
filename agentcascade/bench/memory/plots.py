"""Plots of the memory benchmarks: frontiers and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agentcascade.bench.frontier import PolicyPoint
from agentcascade.bench.plots import escape_tex, figure_axes
from agentcascade.routers.tier.ppo import PassMetrics


def plot_frontier(
    points: Sequence[PolicyPoint], path: Path, *, cost: str = "milliseconds", score: str = "evidence F1"
) -> Path:
    """Plot score against cost with intervals: fixed policies, and the routers' curve over λ."""
    with figure_axes(path) as axes:
        of_router = [p for p in points if "λ=" in p.name]
        others = [p for p in points if "λ=" not in p.name]
        for drawn, style, label in ((others, "o", "fixed and random"), (of_router, "s-", "router over λ")):
            ordered = sorted(drawn, key=lambda p: p.cost)
            if not ordered:
                continue
            errors = [[p.score - p.score_ci[0] for p in ordered], [p.score_ci[1] - p.score for p in ordered]]
            axes.errorbar([p.cost for p in ordered], [p.score for p in ordered], yerr=errors, fmt=style, label=label)
        for p in others:
            axes.annotate(escape_tex(p.name), (p.cost, p.score), fontsize=7, xytext=(3, 3), textcoords="offset points")
        scale = "log" if all(p.cost > 0 for p in points) else "symlog"
        axes.set(xlabel=escape_tex(f"{cost} a question"), ylabel=escape_tex(score), xscale=scale)
        axes.legend()
    return path


def plot_training(history: Sequence[PassMetrics], path: Path) -> Path:
    """Plot reward, cost and entropy by pass."""
    with figure_axes(path, rows=3, height=8) as (reward, cost, entropy):
        passes = [p.number for p in history]
        reward.plot(passes, [p.reward for p in history], label="training")
        reward.plot(passes, [p.validation for p in history], label="validation (greedy)")
        reward.set(ylabel="reward")
        reward.legend()
        cost.plot(passes, [p.cost for p in history], label="training")
        cost.plot(passes, [p.validation_cost for p in history], label="validation (greedy)")
        cost.set(ylabel="cost")
        entropy.plot(passes, [p.entropy for p in history])
        entropy.set(ylabel="entropy of a decision", xlabel="pass")
    return path
