"""Ladder of rungs (`ladder:`): models at efforts, asked from the first up; what it stands for in the other sections.

A chain of students and a plain cascade are ladders: all rungs but the last are `student` and `students`, the last is
the `teacher`. AdaCtrl (arXiv 2505.18822) and AutoThink give easy questions little thinking, and hard ones more, within
one model; a ladder climbs further, to the next.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from agentcascade.config.effort import parse_effort
from agentcascade.config.sections import (
    LinkConfig,
    ModelConfig,
    RouterConfig,
    RungConfig,
    StudentConfig,
    of_whole_run,
)

REPLACED = ("student", "students", "teacher")
"""Sections that a ladder stands for."""
JUDGED = ("samples", "weight", "router")
"""Fields of a rung whose answers are voted on: not of the last."""


def sections_of(rungs: Sequence[RungConfig], router: RouterConfig, given: Collection[str]) -> dict[str, Any]:
    """`student`, `students`, `teacher` and `router` that a ladder stands for; {} without a rung.

    Args:
        rungs: From the cheapest up.
        router: Judges the rungs that have none of their own.
        given: Sections that the configuration sets itself.

    Raises:
        ValueError: It is no ladder; the message says which rung is at fault and why.
    """
    if not rungs:
        return {}
    if both := [name for name in REPLACED if name in given]:
        raise ValueError(
            f"ladder and {both[0]} are both set: all rungs but the last are students, the last is the teacher; leave "
            f"{both[0]} out, or the ladder"
        )
    if len(rungs) < 2:
        raise ValueError("a ladder has at least two rungs: a student, and a teacher above it")
    check_rungs(rungs)
    first, *middle = rungs[:-1]
    for i, rung in enumerate(middle, 1):
        if rung.router is not None and (own := of_whole_run(rung.router)):
            raise ValueError(
                f"ladder.{i}.router.{own} is of the whole run, whichever rung is asked: set router.{own} of the cascade"
            )
    if first.router is not None:
        if "router" in given and first.router != router:
            raise ValueError("ladder.0.router and router are both set, and judge the same rung: leave one out")
        router = first.router
    judged = RouterConfig(name=router.name, options=router.options)
    links = [LinkConfig(**_fields(rung, "router"), router=rung.router or judged) for rung in middle]
    return {
        "student": StudentConfig(**_fields(first, "router")),
        "students": tuple(links),
        "teacher": ModelConfig(**_fields(rungs[-1], *JUDGED)),
        "router": router,
    }


def check_rungs(rungs: Sequence[RungConfig]) -> None:
    """Raises `ValueError` for rungs that no climb can have: one that is there already, or below the one before it."""
    last = len(rungs) - 1
    if judged := [name for name in JUDGED if name in rungs[-1].model_fields_set]:
        raise ValueError(f"ladder.{last}.{judged[0]}: the last rung takes what is left, and nothing judges it")
    for i, rung in enumerate(rungs):
        for j, below in enumerate(rungs[:i]):
            if below.name != rung.name:
                continue
            if below.effort == rung.effort:
                raise ValueError(
                    f"ladder.{i}: '{rung.name}' at effort {rung.effort or 'of its own'} is rung {j} already: give it "
                    "another effort; more samples of one rung are router.options.n"
                )
            before, after = (_tokens(one.effort) for one in (below, rung))
            if before is not None and after is not None and after <= before:
                raise ValueError(
                    f"ladder.{i}: '{rung.name}' at effort {rung.effort} thinks no more than rung {j} at effort "
                    f"{below.effort}: a ladder climbs, put the cheaper rung first"
                )


def _tokens(effort: str | int | None) -> float | None:
    return None if effort is None else parse_effort(effort).expected_tokens()


def _fields(rung: RungConfig, *without: str) -> dict[str, Any]:
    return {name: getattr(rung, name) for name in rung.model_fields_set if name not in without}
