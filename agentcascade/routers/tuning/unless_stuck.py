"""A rule that leaves the steps of a stuck run to the teacher, without asking the student (`router.stuck`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentcascade.config.stuck import StuckConfig
from agentcascade.errors import InvalidRequest
from agentcascade.routers.tuning.columns import Columns
from agentcascade.routers.tuning.rules import Outcome, Rule
from agentcascade.routers.tuning.verified import Verified


@dataclass(frozen=True)
class UnlessStuck:
    """`rule` at every step at which the run is not stuck.

    It takes a part of the steps that `rule` takes, so on any log its risk among all steps, or episodes, is no larger.
    What it spares the student's own runs, a log of the teacher's cannot show.
    """

    rule: Rule
    settings: StuckConfig = field(default_factory=StuckConfig)

    @property
    def name(self) -> str:
        return f"{self.rule.name}, unless stuck"

    @property
    def samples(self) -> tuple[int, ...]:
        return self.rule.samples

    @property
    def router(self) -> Mapping[str, Any]:
        return {**self.rule.router, "stuck": self.settings.model_dump(mode="json", exclude_defaults=True)}

    @property
    def logprobs(self) -> bool:
        return self.rule.logprobs

    def on(self, log: Columns) -> Outcome:
        if log.runs is None:
            raise InvalidRequest("signals need the runs that steps belong to, and this log was made without them")
        stuck = log.runs.stuck(self.settings)
        free = (~stuck).astype(float)
        outcome = self.rule.on(log)
        return Outcome(
            accept=outcome.accept * free,
            right={name: values * free for name, values in outcome.right.items()},
            taken=outcome.taken & ~stuck,
            fine={name: values & ~stuck for name, values in outcome.fine.items()},
            asked=tuple(
                asked._replace(reach=free * asked.reach, staged=None if asked.staged is None else asked.staged * free)
                for asked in outcome.asked
            ),
            verified=outcome.verified * free,
        )


def unwrapped(rule: Rule) -> Rule:
    """The rule that decides where the run is not stuck and no verifier is asked."""
    inner = rule.rule if isinstance(rule, UnlessStuck) else rule
    return inner.rule if isinstance(inner, Verified) else inner
