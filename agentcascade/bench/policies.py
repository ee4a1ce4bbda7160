"""The policies that a benchmark compares, as changes to one base configuration.

With several students (`--member`) ``cascade`` is their committee, ``K of M`` that of the first M, of whose votes K must
agree, ``alone NAME`` one of the further members, and ``chain`` all of them asked in turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import LinkConfig, ModelConfig, RouterConfig, StudentConfig
from agentcascade.errors import BenchError, did_you_mean

POLICIES = ("teacher", "student", "student+demos", "cascade", "cascade-no-demos", "random")
"""In running order: `random` needs the cascade's teacher share."""
SHADOW, TUNED = "shadow", "tuned"
"""Policies that are run on demand: the teacher plays and the student is sampled for a log; a tuned rule"""
CHAIN, ORACLE = "chain", "oracle"
"""All students in turn; the teacher exactly where the student alone is wrong, reckoned from their episodes"""
OPTIONAL = (SHADOW, TUNED, CHAIN, ORACLE)
COMMITTEE = re.compile(r"([1-9]\d?) of ([1-9]\d?)")
ALONE = "alone "
SECTIONS = ("router", "sampling", "retrieval", "prompt", "student", "students")

SEAT = ("samples", "weight")
"""What a member gives to a committee"""


def check_policies(names: tuple[str, ...], members: Sequence[str] = (), samples: int = 1) -> tuple[str, ...]:
    """Check policy names; returns them in running order, without repeats.

    Args:
        names: of policies.
        members: names of all students where there are several.
        samples: that each of them gives to a committee.

    Raises:
        BenchError: for an unknown policy, and for one that lacks another, or members.
    """
    own = [f"{ALONE}{short_name(member)}" for member in members[1:]]
    committees = [name for name in dict.fromkeys(names) if COMMITTEE.fullmatch(name)]
    for name in committees:
        _check_committee(name, members, samples)
    known = (SHADOW, TUNED, "teacher", "student", *own, *committees, *POLICIES[2:], CHAIN, ORACLE)
    for name in names:
        if name not in known:
            raise BenchError(f"there is no policy '{name}': {did_you_mean(name, known)}")
    if "random" in names and "cascade" not in names:
        raise BenchError("policy 'random' mixes at the cascade's teacher share: run 'cascade' too")
    if CHAIN in names and not members:
        raise BenchError("policy 'chain' asks several students in turn: name further ones, --member NAME")
    if ORACLE in names and not {"teacher", "student"} <= set(names):
        raise BenchError("policy 'oracle' is reckoned from those of teacher and student: run both too")
    return tuple(p for p in known if p in names)


def _check_committee(name: str, members: Sequence[str], samples: int) -> None:
    needed, size = map(int, name.split(" of "))
    if size < 2 or size > len(members):
        raise BenchError(
            f"policy '{name}' is a committee of {size}, and there are {len(members) or 1} students: it takes 2 or "
            "more, --member NAME for each beside --student"
        )
    if not 2 <= needed <= size * samples:
        raise BenchError(f"policy '{name}': 2 votes or more must agree, and no more than the {size * samples} it has")


def committees_of(size: int) -> tuple[str, ...]:
    """Every committee of the first members, smallest first: ``2 of 2``, ``2 of 3``, ``3 of 3`` …"""
    return tuple(f"{needed} of {of}" for of in range(2, size + 1) for needed in range(2, of + 1))


def short_name(model: str) -> str:
    """A model's name without its providers."""
    return model.rpartition("/")[2]


def uses_demonstrations(policy: str) -> bool:
    """Whether a policy's students are shown demonstrations, where there are any."""
    return policy in ("student+demos", "cascade", "random", SHADOW, TUNED, CHAIN) or bool(COMMITTEE.fullmatch(policy))


def apply_rule(base: CascadeConfig, rule: Mapping[str, Any]) -> CascadeConfig:
    """Apply a tuned rule, the sections of a configuration that `agentcascade tune` writes, to `base`.

    Raises `ConfigError` for what is wrong in it, `BenchError` for sections that no rule has, and for one of other
    students than those of `base`.
    """
    for name in rule:
        if name not in SECTIONS:
            raise BenchError(f"rule: section '{name}' is not part of a rule: {did_you_mean(name, SECTIONS)}")
    seated = _seated(base, rule)
    unset = {"teacher", "student", "students"} | (set() if base.ladder else {"ladder"})  # an empty one is an error
    settings = base.model_dump(mode="json", exclude=unset)
    sections = [name for name in rule if name not in ("student", "students")]
    merged = {name: rule[name] if name == "router" else {**settings[name], **rule[name]} for name in sections}
    validated = CascadeConfig.model_validate(settings | merged)
    return base.model_copy(update={name: getattr(validated, name) for name in sections} | seated)


def members_of(rule: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the members of a committee's rule, in its order; none of any other rule. Raises `BenchError`."""
    if rule.get("sampling", {}).get("across") != "students":
        return ()
    members = [rule.get("student"), *(rule.get("students") or ())]
    if len(members) < 2 or not all(isinstance(m, Mapping) and isinstance(m.get("name"), str) for m in members):
        raise BenchError("rule: a committee (sampling.across: students) needs `student` and `students`, each by name")
    return tuple(str(member["name"]) for member in members if member)


def _seated(base: CascadeConfig, rule: Mapping[str, Any]) -> dict[str, Any]:
    """The changes of a committee's rule to the students of `base`: who sits, in which order, with how many votes."""
    names = members_of(rule)
    if not names:
        if "students" in rule:
            raise BenchError(
                "rule: it is a chain's, whose students it does not name: play --policy chain, or see what it would do "
                "with `agentcascade replay --rule`"
            )
        if base.students and "sampling" in rule:  # as `tune` writes it, of the first student of its log alone
            raise BenchError(
                "rule: it is one student's, and this run has several: leave out --member, and name with --student the "
                "one that it was tuned on"
            )
        return {}
    known = {model.name: model for model in (base.student, *base.students) if model is not None}
    seats = []
    for name, member in zip(names, (rule["student"], *rule["students"])):
        model = next((m for m in known.values() if name in (m.name, short_name(m.name))), None)
        if model is None:
            raise BenchError(
                f"rule: its member '{name}' is no student of this run, --student or --member: "
                f"{did_you_mean(name, known)}"
            )
        given = model.model_dump(exclude_unset=True, exclude={"router"})
        try:
            seats.append(LinkConfig.model_validate(given | {k: member[k] for k in SEAT if k in member}))
        except ValidationError as error:
            why = error.errors(include_url=False)[0]
            raise BenchError(f"rule: {'.'.join(map(str, why['loc']))} of '{name}': {why['msg']}") from None
    first = StudentConfig.model_validate(seats[0].model_dump(exclude_unset=True))
    return {"student": first, "students": tuple(seats[1:])}


def configure_policy(policy: str, base: CascadeConfig, *, teacher_share: float | None, seed: int) -> CascadeConfig:
    """Configuration of a policy; `teacher_share` is the share of steps that `random` gives to the teacher."""
    changes: dict[str, Any] = {"seed": seed, "mode": "cascade"}
    no_demonstrations = {"retrieval": base.retrieval.model_copy(update={"k": 0})}
    if found := COMMITTEE.fullmatch(policy):
        needed, size = map(int, found.groups())
        rule = RouterConfig(name="threshold", options={"needed": needed})
        changes |= {"students": base.students[: size - 1], "router": rule}
        return base.model_copy(update=changes)
    if policy.startswith(ALONE):
        chosen = next(link for link in base.students if f"{ALONE}{short_name(link.name)}" == policy)
        changes |= {"mode": "student", "teacher": None, **no_demonstrations, **_alone(base, chosen)}
        return base.model_copy(update=changes)
    match policy:
        case "demos":
            changes |= {"mode": "collect"}
        case "teacher":
            changes |= {"mode": "teacher", **no_demonstrations}
        case "student":
            changes |= {"mode": "student", "teacher": None, **no_demonstrations, **_alone(base, base.student)}
        case "shadow":
            changes |= {"mode": "shadow"}
        case "student+demos":
            changes |= {"mode": "student", "teacher": None, **_alone(base, base.student)}
        case "cascade-no-demos":
            changes |= no_demonstrations
        case "random":
            options = {"p": teacher_share, "seed": seed}
            changes |= {"router": RouterConfig(name="random", options=options), **_alone(base, base.student)}
        case "chain":
            n = base.student.samples if base.student is not None else 1
            rule = RouterConfig(name="unanimity", options={"n": n})
            links = tuple(link.model_copy(update={"router": rule, "samples": 1}) for link in base.students)
            changes |= {"router": rule, **_alone(base, base.student), "students": links}
    return base.model_copy(update=changes)


def _alone(base: CascadeConfig, student: ModelConfig | None) -> dict[str, Any]:
    """The changes that make of a committee one of its members; none where there is no committee."""
    if not base.students or student is None:
        return {}
    sampling = base.sampling.model_copy(update={"across": "samples"})
    return {"student": student.model_copy(update={"samples": 1}), "students": (), "sampling": sampling}
