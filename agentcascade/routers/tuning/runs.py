"""Runs of a log: what was observed and done before each of its steps, for rules that look at how a run goes.

Whoever took the logged steps (in a shadow, the teacher) shaped these runs, and a rule is judged on them as they were:
where the student acts, later situations differ, and its own circles are in no log of the teacher's steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from agentcascade.config.stuck import StuckConfig
from agentcascade.errors import InvalidRequest
from agentcascade.step.stuck import PART, Watch, events
from agentcascade.steplog.types import LoggedStep
from agentcascade.types import Step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Runs:
    """The episodes of a log, and for each of N rows its episode and step."""

    episodes: Mapping[str, Mapping[int, LoggedStep]]
    """By cluster and step"""
    clusters: NDArray[np.str_]
    """(N,)"""
    steps: Ints
    """(N,)"""
    _found: dict[StuckConfig, dict[str, list[bool]]] = field(default_factory=dict)

    def take(self, rows: Ints | Bools) -> Runs:
        """The chosen rows, of the same whole episodes."""
        return replace(self, clusters=self.clusters[rows], steps=self.steps[rows])

    def stuck(self, settings: StuckConfig) -> Bools:
        """(N,), whether `router.stuck` with these settings gives the step to the teacher.

        Raises `InvalidRequest` where the log does not tell: steps before one are missing, or what was done at them.
        """
        if settings.over_plan is not None:
            raise InvalidRequest("signal over_plan cannot be read off a log, which has no plans: leave it out")
        known = self._found.setdefault(settings, {})
        for cluster in np.unique(self.clusters):
            if cluster not in known:
                known[cluster] = self._follow(str(cluster), settings)
        return np.array([known[cluster][step] for cluster, step in zip(self.clusters, self.steps)], bool)

    def _follow(self, cluster: str, settings: StuckConfig) -> list[bool]:
        run = self.episodes[cluster]
        last = max(run)
        missing = next((step for step in range(last) if step not in run), None)
        if missing is not None:
            raise InvalidRequest(
                f"signals need every step of an episode, and '{cluster}' has step {last} but not {missing}: log with "
                "shadow.rate 1, or leave --rules signals out"
            )
        if last and all(step.teacher is None for step in run.values()):
            raise InvalidRequest(
                f"signals need the action that was taken at each step, and no step of '{cluster}' has the teacher's"
            )
        found: list[bool] = []
        for start in range(0, last + 1, PART):
            watch = Watch(settings, start=start)
            part = (
                Step(observation=run[i].observation, action=run[i].teacher or "")
                for i in range(start, min(start + PART, last + 1))
            )
            found += [watch.observe(event) is not None for event in events(part, settings)]
        return found


def read_runs(rows: Sequence[LoggedStep], steps: Sequence[LoggedStep]) -> Runs:
    """The runs behind `rows`, whose steps are among `steps`."""
    wanted = {row.cluster for row in rows}
    episodes: dict[str, dict[int, LoggedStep]] = {}
    for step in (*rows, *steps):
        cluster = step.cluster
        if cluster in wanted:
            episodes.setdefault(cluster, {}).setdefault(step.step, step)
    return Runs(
        episodes,
        np.array([row.cluster for row in rows], dtype=object),
        np.array([row.step for row in rows], np.int64),
    )
