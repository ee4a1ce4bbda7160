"""The teacher's prompt cache under a rule: at a deferred step it holds what the teacher was sent at its last one.

A log's teacher was asked at every step, so its recorded usage is that of a warm cache. Under a rule the student takes
steps in between: what was sent since is new to the teacher, and all of it where the cache has expired. The dollars of
that are exact in expectation over who took the steps before, as the rule accepts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agentcascade.models.quirks import model_quirks
from agentcascade.steplog.types import LoggedStep
from agentcascade.types import Usage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

MOST_STEPS = 256
"""Steps back to which the teacher's last one is looked for; before them its cache is cold, whatever the times say."""
NEGLIGIBLE = 1e-6
"""Probability below which it is not looked for further back."""


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """What the teacher's cache held at each of N logged steps, and what a token costs more that it does not hold."""

    prompt: Floats
    """(N,), tokens of the teacher's prompt"""
    cached: Floats
    """(N,), of these, that were read from the cache"""
    dearer: Floats
    """(N,), dollars by which a token that is not read from the cache costs more"""
    at: Floats
    """(N,), seconds; NaN where the time is not known"""
    seconds: Floats
    """(N,), that the cache is kept after its last use"""
    block: Floats
    """(N,), tokens in multiples of which the provider counts a prefix as read; 1 where it counts each"""

    def take(self, rows: Bools | Ints) -> TeacherCache:
        """The chosen steps."""
        return TeacherCache(*(values[rows] for values in vars(self).values()))

    def cold_dollars(self, accept: Floats, starts: Ints) -> Floats:
        """(N,), expected dollars by which a deferred step costs more than the log's warm teacher.

        Args:
            accept: (N,), probability that the student takes the step.
            starts: (C,), the first step of each episode, whose steps stand in a row.
        """
        n = len(self.prompt)
        if not n or not (self.cached * self.dearer).any():
            return np.zeros(n)
        lengths = np.diff(np.append(starts, n))
        place = np.arange(n) - np.repeat(starts, lengths)
        head = np.minimum(self.cached, np.repeat(self.cached[starts], lengths))  # what other episodes left there
        held = np.zeros(n)
        reached = np.ones(n)  # probability that the teacher took none of the steps since
        for back in range(1, min(int(lengths.max(initial=1)), MOST_STEPS + 1)):
            rows = np.flatnonzero((place >= back) & (reached > NEGLIGIBLE))
            if not len(rows):
                break
            before = rows - back
            kept = self.prompt[before] // self.block[rows] * self.block[rows]
            sent = np.where(self.prompt[before] <= self.prompt[rows], kept, 0.0)  # else it was cut
            warm = ~(self.at[rows] - self.at[before] > self.seconds[rows])
            found = np.maximum(head[rows], np.where(warm, np.minimum(self.cached[rows], sent), 0.0))
            held[rows] += reached[rows] * (1 - accept[before]) * found
            reached[rows] *= accept[before]
        held += reached * head
        return np.maximum(0.0, self.cached - held) * self.dearer


def teacher_cache(steps: Sequence[LoggedStep]) -> TeacherCache | None:
    """The teacher's cache at the steps of a log; None where nothing was read from one."""
    if not any(step.teacher_usage is not None and step.teacher_usage.cached_input for step in steps):
        return None
    table: NDArray[np.float64] = np.zeros((6, len(steps)))
    table[3], table[5] = np.nan, 1
    for i, step in enumerate(steps):
        usage, price = step.teacher_usage, step.teacher_price
        if usage is None or price is None:
            continue
        whole, cached, quirks = usage.prompt, usage.cached_input, model_quirks(step.teacher_model)
        written = usage.cache_write > 0 or quirks.prompt_cache == "marked"
        read, new = (price.dollars(Usage(**{name: max(1, whole)})) for name in _classes(written))
        table[:3, i] = whole, cached, max(0.0, float(new - read)) / max(1, whole)
        table[3, i] = step.created_at.timestamp() if step.created_at is not None else np.nan
        table[4:, i] = quirks.cache_seconds, quirks.cache_block
    return TeacherCache(*table)


def _classes(written: bool) -> tuple[str, str]:
    return "cached_input", "cache_write" if written else "input"
