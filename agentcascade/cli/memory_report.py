"""What ``agentcascade memory train`` prints of a trained router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from agentcascade.memory.combinations import COMBINATIONS

if TYPE_CHECKING:
    from agentcascade.bench.memory.training import TrainingOutcome


def results_table(outcome: TrainingOutcome) -> Table:
    """What the held-out conversations say of the router and its peers."""
    unit = {"milliseconds": "ms", "": "cost"}.get(outcome.cost_unit, outcome.cost_unit)
    table = Table("policy", "score", "95 %", unit, "above fixed tiers", box=None)
    for p in outcome.points:
        gap = ""
        if p.above_hull is not None and p.above_hull_ci is not None:
            gap = f"{p.above_hull:+.3f} ({p.above_hull_ci[0]:+.3f} to {p.above_hull_ci[1]:+.3f})"
        interval = f"{p.score_ci[0]:.3f}-{p.score_ci[1]:.3f}"
        table.add_row(p.name, f"{p.score:.4f}", interval, f"{p.cost:.4g}", gap)
    if outcome.oracle is not None:
        table.add_row("oracle", f"{outcome.oracle:.4f}")
    return table


def results_notes(outcome: TrainingOutcome) -> list[str]:
    """What the table's words mean."""
    notes = ["of the conversations held out for the test; " + ", ".join(outcome.test_groups[:8])]
    if any(p.above_hull is not None for p in outcome.points):
        notes.append(
            f"above fixed tiers: score beyond the hull of all {COMBINATIONS}, which mixtures of them reach at equal "
            "cost"
        )
    if outcome.oracle is not None:
        notes.append("oracle: the best tiers of every question, known only afterwards")
    return notes
