"""Windows of trajectories: the matched step with some steps before and after it, as a demonstration."""

from __future__ import annotations

from agentcascade.types import Demonstration, Trajectory
from agentcascade.types.base import unchecked

GIVEN = {"trajectory", "goal", "plan", "steps", "start", "match", "length", "score"}


def cut_window(trajectory: Trajectory, match: int, score: float, *, before: int, after: int) -> Demonstration:
    """The steps from `before` ahead of position `match` to `after` behind it, clipped to the trajectory."""
    start, steps = max(0, match - before), trajectory.steps
    values = {
        "trajectory": trajectory.id,
        "goal": trajectory.goal,
        "plan": trajectory.plan,
        "steps": steps[start : match + after + 1],
        "start": start,
        "match": match,
        "length": len(steps),
        "score": score,
        "tried": (),
    }
    return unchecked(Demonstration, values, GIVEN.copy())


def same_actions(one: Demonstration, other: Demonstration) -> bool:
    """Whether two windows show the same actions, one after the other."""
    return len(one.steps) == len(other.steps) and all(a.action == b.action for a, b in zip(one.steps, other.steps))
