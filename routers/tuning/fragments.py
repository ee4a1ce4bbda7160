"""``rule.yaml``: the part of a configuration that acts by a tuned rule, and such a part read back as a rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from agentcascade.errors import ConfigError, did_you_mean
from agentcascade.routers.step.consistency import AgreementThreshold, AlwaysStudent, AlwaysTeacher, Unanimity
from agentcascade.routers.step.consistency import RandomMix as RandomRouter
from agentcascade.routers.step.scores import SIGNALS, ScoreRouter
from agentcascade.routers.step.scores import Grouped as GroupedRouter
from agentcascade.routers.tuning.columns import Arm
from agentcascade.routers.tuning.costs import Sampling
from agentcascade.routers.tuning.families import Votes
from agentcascade.routers.tuning.rules import Chain, Grouped, RandomMix, Rule, Scored, TeacherAlone, Threshold

ROUTERS: dict[str, Any] = {
    "teacher": AlwaysTeacher,
    "student": AlwaysStudent,
    "random": RandomRouter,
    "unanimity": Unanimity,
    "threshold": AgreementThreshold,
    "scored": ScoreRouter,
    "grouped": GroupedRouter,
}
"""Those that can be replayed"""


def fragment(rule: Rule, arm: Arm | None = None, sampling: Sampling = "one-call") -> dict[str, Any]:
    """Sections of a configuration."""
    made: dict[str, Any] = {"router": dict(rule.router)}
    if isinstance(rule, Chain):
        first, *others = rule.links
        made = {"router": dict(first.router), "students": [_link(i, link) for i, link in enumerate(others, 2)]}
    if not isinstance(rule, TeacherAlone):
        made["sampling"] = {"staged": "always" if sampling == "staged" else "never"}
        if _needs_logprobs(rule):
            made["sampling"]["logprobs"] = True
        if arm is not None and arm.temperature is not None:
            made["sampling"]["temperature"] = arm.temperature
        if arm is not None and arm.k is not None:
            made["retrieval"] = {"k": arm.k}
    return made


def _needs_logprobs(rule: Rule) -> bool:
    if not isinstance(rule, Scored) or not isinstance(rule.score, Votes):
        return False
    weights = (rule.score.model or {}).get("weights")
    return rule.score.name == "logprob" or bool(weights and weights[SIGNALS.index("logprob")])


def _link(number: int, rule: Threshold) -> dict[str, Any]:
    return {"name": f"student-{number}", "router": dict(rule.router)}


def dump(sections: Mapping[str, Any], comment: str) -> str:
    """YAML under a comment of several lines."""
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    return lines + yaml.safe_dump(dict(sections), sort_keys=False, allow_unicode=True)


def read(path: Path) -> Rule:
    """The rule of a configuration or of a part of one. Raises `ConfigError`."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as a rule: {error}") from error
    router = data.get("router") if isinstance(data, dict) else None
    if not isinstance(router, dict) or not isinstance(router.get("name"), str):
        raise ConfigError(
            f"{path} holds no rule: it needs e.g. 'router: {{name: threshold, options: {{n: 3, threshold: 1}}}}'"
        )
    rule = rule_of(router["name"], router.get("options") or {})
    links = [rule_of(**(link.get("router") or {"name": "unanimity"})) for link in data.get("students") or ()]
    if not links:
        return rule
    votes = tuple(link for link in (rule, *links) if isinstance(link, Threshold))
    if len(votes) <= len(links):
        raise ConfigError(f"{path}: only chains of thresholds can be replayed")
    return Chain(votes)


def rule_of(name: str, options: Mapping[str, Any] | None = None) -> Rule:
    """A router's settings as a rule that can be replayed. Raises `ConfigError`, as the router itself would."""
    if name not in ROUTERS:
        raise ConfigError(f"router '{name}' cannot be replayed: {did_you_mean(name, ROUTERS)}")
    try:
        router = ROUTERS[name](**(options or {}))
    except TypeError as error:
        raise ConfigError(f"router.options of '{name}': {error}") from None
    match name:
        case "teacher":
            return TeacherAlone()
        case "student":
            return Threshold(1, 1)
        case "random":
            return RandomMix(router.p)
        case "scored":
            return Scored(Votes(router.score, router.n, router.model or None), router.threshold)
        case "grouped":
            return Grouped(router.by, router.n, router.needed, router.default)
    return Threshold(router.n, router.needed)
