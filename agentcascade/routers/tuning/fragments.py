"""``rule.yaml``: the part of a configuration that acts by a tuned rule, and such a part read back as a rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from agentcascade import registry
from agentcascade._util.bounds import load_yaml
from agentcascade.actions.voting import Seat
from agentcascade.config.effort import effort_of, plain_name
from agentcascade.config.ladder import sections_of
from agentcascade.config.sections import RouterConfig, RungConfig, StudentConfig
from agentcascade.config.stuck import StuckConfig
from agentcascade.config.verifier import VerifierConfig
from agentcascade.errors import ConfigError
from agentcascade.protocols import Router
from agentcascade.routers.committee import make_committee_router
from agentcascade.routers.tuning.columns import Arm
from agentcascade.routers.tuning.committees import Committee
from agentcascade.routers.tuning.costs import Sampling
from agentcascade.routers.tuning.rules import Chain, Replayable, Rule, Threshold
from agentcascade.routers.tuning.unless_stuck import UnlessStuck
from agentcascade.routers.tuning.verified import Verified

WINDOW_KEYS = ("window_before", "window_after")
SEAT_KEYS = ("name", "samples", "weight")


def fragment(rule: Rule, arm: Arm | None = None, sampling: Sampling = "one-call") -> dict[str, Any]:
    """Sections of a configuration."""
    if isinstance(rule, UnlessStuck):
        inner = fragment(rule.rule, arm, sampling)
        return inner | {"router": {**inner["router"], "stuck": rule.router["stuck"]}}
    if isinstance(rule, Verified):
        inner = fragment(rule.rule, arm, sampling)
        return inner | {"verifier": {"name": rule.settings.name, **rule.section}}
    sections: dict[str, Any] = {"router": dict(rule.router)}
    if isinstance(rule, Chain):
        first, *others = rule.links
        known = rule.students or [f"student-{i}" for i, _ in enumerate(rule.links, 1)]
        links = [_named(name) | {"router": dict(link.router)} for name, link in zip(known[1:], others)]
        sections = {"router": dict(first.router), "students": links}
        if rule.students:
            sections["student"] = _named(rule.students[0])
    if isinstance(rule, Committee):
        student, *students = (
            {"name": name, "samples": seat.samples, "weight": seat.weight}
            for name, seat in zip(rule.members, rule.seats)
        )
        sections |= {"student": student, "students": students}
    if rule.samples:
        sections["sampling"] = {"staged": "always" if sampling == "staged" else "never"}
        if isinstance(rule, Committee):
            sections["sampling"]["across"] = "students"
        if rule.logprobs:
            sections["sampling"]["logprobs"] = True
        if arm is not None and arm.temperature is not None:
            sections["sampling"]["temperature"] = arm.temperature
        if arm is not None and arm.vary is not None:
            sections["sampling"]["vary"] = arm.vary
        if arm is not None and arm.history is not None:
            sections["history"] = _history(arm.history)
        if arm is not None and arm.k is not None:
            sections["retrieval"] = {"k": arm.k}
            if arm.k and arm.window is not None:
                sections["retrieval"] |= dict(zip(WINDOW_KEYS, map(int, arm.window.split("/"))))
    return sections


def _history(setting: str) -> dict[str, Any]:
    """The section that a log's setting names; its model's key and price are not in a log."""
    keep, every, carry, made = setting.split("/", 3)
    tier, _, model = made.partition(":")
    section = {"keep": int(keep), "every": int(every), "carry": int(carry), "tier": tier}
    return section | ({"model": {"name": model}} if model else {})


def _named(model: str) -> dict[str, Any]:
    """A rung of a ladder as records name it, ``NAME@high``, in a section's words."""
    effort = effort_of(model)
    return {"name": model} if effort is None else {"name": plain_name(model), "effort": str(effort)}


def dump(sections: Mapping[str, Any], comment: str) -> str:
    """YAML under a comment of several lines."""
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    return lines + yaml.safe_dump(dict(sections), sort_keys=False, allow_unicode=True)


def read(path: Path) -> Rule:
    """The rule of a configuration or of a part of one. Raises `ConfigError`."""
    try:
        data = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a rule: {error}") from error
    if isinstance(data, dict) and data.get("ladder"):
        data = _climbed(path, data)
    router = data.get("router") if isinstance(data, dict) else None
    if not isinstance(router, dict) or not isinstance(router.get("name"), str):
        raise ConfigError(
            f"{path} holds no rule: it needs e.g. 'router: {{name: threshold, options: {{n: 3, threshold: 1}}}}'"
        )
    rule = _verified(path, data, _unwatched(path, data, router))
    if router.get("stuck") is None:
        return rule
    try:
        return UnlessStuck(rule, StuckConfig.model_validate(router["stuck"]))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(("router", "stuck", *map(str, first["loc"])))
        raise ConfigError(f"{path}: {where}: {first['msg']}") from None


def _verified(path: Path, data: Mapping[str, Any], rule: Rule) -> Rule:
    """The rule with the verifier that the configuration has. Raises `ConfigError`."""
    section = data.get("verifier")
    if section is None:
        return rule
    try:
        settings = VerifierConfig.model_validate(section)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(("verifier", *map(str, first["loc"])))
        raise ConfigError(f"{path}: {where}: {first['msg']}") from None
    if not isinstance(rule, Threshold):
        raise ConfigError(
            f"{path}: a verifier can be replayed beside the votes of one student alone (unanimity, threshold, "
            f"student), not beside '{rule.name}': leave the section verifier out"
        )
    return Verified(rule, settings, frozenset(_section(data, "tools").get("side_effects") or ()))


def _unwatched(path: Path, data: Mapping[str, Any], router: Mapping[str, Any]) -> Rule:
    """The rule for runs that are not stuck."""
    if _section(data, "sampling").get("across") == "students":
        return _committee(path, data, router)
    rule = rule_of(router["name"], router.get("options") or {})
    links = [rule_of(**(link.get("router") or {"name": "unanimity"})) for link in data.get("students") or ()]
    if not links:
        return rule
    votes = tuple(link for link in (rule, *links) if isinstance(link, Threshold))
    if len(votes) <= len(links):
        raise ConfigError(f"{path}: only chains of thresholds can be replayed")
    return Chain(votes)


def _climbed(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the students that its ladder stands for. Raises `ConfigError`."""
    try:
        rungs = [RungConfig.model_validate(rung) for rung in data["ladder"]]
        router = RouterConfig.model_validate(data.get("router") or {})
        sections = sections_of(rungs, router, [name for name in data if data[name]])
    except (ValidationError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: ladder: {str(error).splitlines()[0]}") from None
    named = {"name", "options"}
    links = [{"name": link.name, "router": link.router.model_dump(include=named)} for link in sections["students"]]
    return {**data, "router": sections["router"].model_dump(include=named | {"stuck"}), "students": links}


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = data.get(name)
    return section if isinstance(section, Mapping) else {}


def _committee(path: Path, data: Mapping[str, Any], router: Mapping[str, Any]) -> Rule:
    students = [_section(data, "student"), *(data.get("students") or ())]
    if len(students) < 2 or any(not isinstance(s, Mapping) or not s.get("name") for s in students):
        raise ConfigError(f"{path}: a committee (sampling.across: students) needs `student` and `students` with names")
    try:
        checked = [StudentConfig.model_validate({k: s[k] for k in SEAT_KEYS if k in s}) for s in students]
    except ValidationError as error:
        raise ConfigError(f"{path}: {error.errors(include_url=False)[0]['msg']} (samples and weight)") from None
    seats = tuple(Seat(student.samples, student.weight) for student in checked)
    votes = sum(seat.votes for seat in seats)
    own = make_committee_router(router["name"], router.get("options") or {}, votes)
    return Committee(tuple(student.name for student in checked), seats, _rule(own, router["name"]))


def rule_of(name: str, options: Mapping[str, Any] | None = None) -> Rule:
    """The rule of a router, by the name that it is registered under and its options.

    Raises:
        ConfigError: as the router itself would, and where it has no `as_rule`.
    """
    return _rule(registry.construct("routers", name, "router.name", options or {}), name)


def _rule(router: Router, name: str) -> Rule:
    if not isinstance(router, Replayable):
        raise ConfigError(
            f"router '{name}' cannot be replayed: {type(router).__name__} has no method as_rule, which says how it "
            "decides on a log (agentcascade.routers.tuning.rules.Replayable)"
        )
    return router.as_rule()
