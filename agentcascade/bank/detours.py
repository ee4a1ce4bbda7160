"""Detours in banked trajectories: loops and failed actions are cut where the world, replayed, is won without them.

After Retro-Search (arXiv 2504.04383: shorter paths out of traces that were right) and DED (arXiv 2508.09883: few good
demonstrations beat many). Only what the world confirms is cut: the original must replay
alike and win, and so must what is left. What a loop found out is kept if a later action needs it, so that no
demonstration knows what it has not seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from agentcascade.protocols import Environment
from agentcascade.types import Step, Trajectory

MAX_REPLAYS = 24
"""Of one trajectory."""
MAX_STEPS = 400
"""Of a trajectory whose loops are looked for."""
_WORD, _THING = re.compile(r"\w+"), re.compile(r"[^\W\d_]+ \d+")

Outcome = Literal["cut", "nothing to cut", "does not replay alike", "was not won", "too long"]


class Improvement(NamedTuple):
    """What became of a trajectory. `steps` are those that are left, `kept` their positions before."""

    outcome: Outcome
    steps: tuple[Step, ...]
    kept: tuple[int, ...]
    replays: int
    unlike: int | None = None
    """The step whose observation was another one."""


class Replayed(NamedTuple):
    """Observations of a replay, one for each action that was taken, and whether it won."""

    observations: list[str]
    won: bool


def replay(environment: Environment, task: str, actions: Sequence[str], see: Callable[[str], str]) -> Replayed:
    """Take `actions` in the world, from the task's beginning to its end.

    Args:
        environment: The world.
        task: Where it finds the task.
        actions: In order; what comes after the end of the task is not taken.
        see: What an agent sees of an observation, as the bank holds it.

    Raises:
        EnvironmentFailed: The world cannot play the task.
    """
    observation, observations, done = environment.reset(task), list[str](), False
    for action in actions:
        if done:
            break
        observations.append(see(observation))
        observation, done = environment.step(action)
    return Replayed(observations, environment.success)


def without_detours(
    trajectory: Trajectory,
    environment: Environment,
    task: str,
    *,
    marks: Sequence[str] = (),
    see: Callable[[str], str] = lambda observation: observation,
) -> Improvement:
    """The trajectory without the loops and failed actions that the world does not need.

    Args:
        trajectory: A successful one.
        environment: The world that it was played in.
        task: Where that finds its task.
        marks: Texts in an observation that say that the action before it failed.
        see: What an agent sees of an observation, as the bank holds it.

    Raises:
        EnvironmentFailed: The world cannot play the task.
    """
    steps, kept = trajectory.steps, tuple(range(len(trajectory.steps)))
    if len(steps) > MAX_STEPS:
        return Improvement("too long", steps, kept, 0)
    original = replay(environment, task, [s.action for s in steps], see)
    for index, (step, seen) in enumerate(zip(steps, original.observations)):
        if step.observation.split() != seen.split():
            return Improvement("does not replay alike", steps, kept, 1, index)
    if not original.won:
        return Improvement("was not won", steps, kept, 1)
    replays, failed = 1, set[tuple[int, ...]]()
    steps, kept = steps[: len(original.observations)], kept[: len(original.observations)]
    while replays < MAX_REPLAYS:
        for start, end in detours(steps, marks):
            left = (*kept[:start], *kept[end:])
            if left in failed or not _knows_enough(steps, start, end):
                continue
            replays += 1
            shorter = [*steps[:start], *steps[end:]]
            again = replay(environment, task, [s.action for s in shorter], see)
            if again.won:
                steps = tuple(
                    step.model_copy(update={"observation": seen}) for step, seen in zip(shorter, again.observations)
                )
                kept = left[: len(steps)]
                break
            failed.add(left)
            if replays >= MAX_REPLAYS:
                break
        else:
            break
    cut = len(steps) < len(trajectory.steps)
    return Improvement("cut" if cut else "nothing to cut", steps, kept, replays)


def detours(steps: Sequence[Step], marks: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Ranges of steps that may be left out, longest first: between two equal observations, and single failed ones."""
    first: dict[str, list[int]] = {}
    ranges = []
    for end, step in enumerate(steps):
        if end and any(mark in step.observation for mark in marks):
            ranges.append((end - 1, end))  # two failures alike are no loop
            continue
        ranges += [(start, end) for start in first.get(step.observation, ())]
        first.setdefault(step.observation, []).append(end)
    yield from sorted(ranges, key=lambda r: (r[0] - r[1], r[0]))


def _knows_enough(steps: Sequence[Step], start: int, end: int) -> bool:
    """Whether no later action names what was found out in the range alone.

    What an action named before it was seen was no discovery: the agent knew it, or guessed.
    """
    known = _names([*(s.observation for s in steps[: start + 1]), *(s.action for s in steps[:start])])
    lost = set[str]()
    for step, following in zip(steps[start:end], steps[start + 1 : end + 1]):
        known |= _names([step.action]) - lost
        lost |= _names([following.observation]) - known
    for step, later in zip(steps[end:], [*steps[end + 1 :], None]):
        if _names([step.action]) & lost:
            return False
        lost -= _names([later.observation]) if later else set()
    return True


def _names(texts: Sequence[str]) -> set[str]:
    """Words, numbers, and things such as "mug 1"."""
    return {name.casefold() for text in texts for pattern in (_WORD, _THING) for name in pattern.findall(text)}
