"""What of a finished episode is banked, and why it is not: what `finish` says beside its truth value."""

from __future__ import annotations

from collections.abc import Sequence

from agentcascade.types import Mode, Step


def why_not_banked(*, banked: bool, success: bool, mode: Mode, steps: int) -> str:
    """Why an episode became no demonstrations.

    Args:
        banked: Whether it did: then there is no reason.
        success: Whether it reached its goal.
        mode: That its steps were taken in.
        steps: That could be banked.

    Returns:
        The reason; empty where it was banked.
    """
    if banked:
        return ""
    if not success:
        return "the episode did not reach its goal, and failures are not banked"
    if mode != "collect":
        taken = "its steps may be a student's" if mode == "cascade" else "it has no drafts of its steps"
        return f"only episodes of mode 'collect' are banked, this one is of mode '{mode}': {taken}"
    if not steps:
        return (
            "no step of it can be banked: none was recorded, or none has an action that could be read (actions.format)"
        )
    return "the bank holds one with the same goal, plan and steps already"


def without_failed(steps: Sequence[Step], marks: Sequence[str]) -> tuple[Step, ...]:
    """`steps` without the actions that led to an observation containing one of `marks`.

    The world did not change, so what was observed before the failed action also introduces the one after it.
    """
    kept: list[Step] = []
    for step in steps:
        if kept and any(mark in step.observation for mark in marks):
            kept[-1] = step.model_copy(update={"observation": kept[-1].observation})
        else:
            kept.append(step)
    return tuple(kept)
