"""The policies that a benchmark compares, as changes to one base configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import RouterConfig
from agentcascade.errors import BenchError, did_you_mean

POLICIES = ("teacher", "student", "student+demos", "cascade", "cascade-no-demos", "random")
"""In running order: `random` needs the cascade's teacher share."""
SHADOW, TUNED = "shadow", "tuned"
"""Policies that are run on demand: the teacher plays and the student is sampled for a log; a tuned rule"""
OPTIONAL = (SHADOW, TUNED)
SECTIONS = ("router", "sampling", "retrieval", "prompt")


def check_policies(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check policy names; returns them in running order without repeats. Raises `BenchError` for an unknown one."""
    for name in names:
        if name not in (*POLICIES, *OPTIONAL):
            raise BenchError(f"there is no policy '{name}': {did_you_mean(name, (*POLICIES, *OPTIONAL))}")
    if "random" in names and "cascade" not in names:
        raise BenchError("policy 'random' mixes at the cascade's teacher share: run 'cascade' too")
    return tuple(p for p in (*OPTIONAL, *POLICIES) if p in names)


def apply_rule(base: CascadeConfig, rule: Mapping[str, Any]) -> CascadeConfig:
    """Apply a tuned rule, the sections of a configuration that `agentcascade tune` writes, to `base`.

    Raises `ConfigError` for what is wrong in it, `BenchError` for sections that no rule has.
    """
    for name in rule:
        if name not in SECTIONS:
            raise BenchError(f"rule: section '{name}' is not part of a rule: {did_you_mean(name, SECTIONS)}")
    settings = base.model_dump(mode="json", exclude={"teacher", "student"})
    merged = {name: rule[name] if name == "router" else {**settings[name], **rule[name]} for name in rule}
    validated = CascadeConfig.model_validate(settings | merged)
    return base.model_copy(update={name: getattr(validated, name) for name in rule})


def configure_policy(policy: str, base: CascadeConfig, *, teacher_share: float | None, seed: int) -> CascadeConfig:
    """Configuration of a policy; `teacher_share` is the share of steps that `random` gives to the teacher."""
    changes: dict[str, Any] = {"seed": seed, "mode": "cascade"}
    no_demonstrations = {"retrieval": base.retrieval.model_copy(update={"k": 0})}
    match policy:
        case "demos":
            changes |= {"mode": "collect"}
        case "teacher":
            changes |= {"mode": "teacher", **no_demonstrations}
        case "student":
            changes |= {"mode": "student", "teacher": None, **no_demonstrations}
        case "shadow":
            changes |= {"mode": "shadow"}
        case "student+demos":
            changes |= {"mode": "student", "teacher": None}
        case "cascade-no-demos":
            changes |= no_demonstrations
        case "random":
            options = {"p": teacher_share, "seed": seed}
            changes |= {"router": RouterConfig(name="random", options=options)}
    return base.model_copy(update=changes)
