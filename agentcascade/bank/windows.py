"""Windows of trajectories: the matched step with some steps before and after it, as a demonstration."""

from __future__ import annotations

from agentcascade.types import Demonstration, Trajectory


def cut_window(trajectory: Trajectory, match: int, score: float, *, before: int, after: int) -> Demonstration:
    """The steps from `before` ahead of position `match` to `after` behind it, clipped to the trajectory."""
    start, end = max(0, match - before), match + after + 1
    return Demonstration(
        trajectory=trajectory.id,
        goal=trajectory.goal,
        plan=trajectory.plan,
        steps=trajectory.steps[start:end],
        start=start,
        match=match,
        length=len(trajectory.steps),
        score=score,
    )
