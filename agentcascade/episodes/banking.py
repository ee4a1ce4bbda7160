"""Why a finished episode was not banked, in words: what `finish` says beside its truth value."""

from __future__ import annotations

from agentcascade.types import Mode


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
