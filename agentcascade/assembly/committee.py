"""Committee of a configuration (`sampling.across: students`): who sits in it, and the router of as many votes."""

from __future__ import annotations

from agentcascade.actions.voting import Seat
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import StudentConfig
from agentcascade.errors import ConfigError
from agentcascade.protocols import Router
from agentcascade.routers.committee import make_committee_router


def seat_of(student: StudentConfig | None) -> Seat:
    """What a student gives to a committee."""
    return Seat() if student is None else Seat(student.samples, student.weight)


def check_committee(config: CascadeConfig) -> None:
    """Raises `ConfigError` for students who are no committee, and for a committee's settings where there is none."""
    students = {"student": config.student, **{f"students.{i}": link for i, link in enumerate(config.students)}}
    if config.ladder:  # names of what was written
        students = {f"ladder.{i}": rung for i, rung in enumerate(config.ladder)}
    if config.sampling.across == "samples":
        for where, student in students.items():
            if seat_of(student) != Seat():
                raise ConfigError(
                    f"{where}: samples and weight are those of a committee: set sampling.across to students, or leave "
                    "them out (how many samples one student gives is router.options.n)"
                )
        return
    if config.ladder:
        raise ConfigError(
            "ladder and sampling.across students exclude each other: rungs are asked one after the other, a committee "
            "votes at once; leave sampling.across out, or name `student`, `students` and `teacher` instead"
        )
    if not config.students:
        raise ConfigError(
            "sampling.across is students, and there is one student: name further `students`, or leave it out for "
            "several samples of the one"
        )
    for i, link in enumerate(config.students):
        if "router" in link.model_fields_set:
            raise ConfigError(
                f"students.{i}.router: all votes of a committee are judged by `router`: leave it out, or leave "
                "sampling.across out for a chain"
            )


def committee_router(config: CascadeConfig) -> Router:
    """The configured router, whose `n` is how many votes the committee has. Raises `ConfigError`."""
    votes = sum(seat_of(student).votes for student in (config.student, *config.students))
    return make_committee_router(config.router.name, config.router.options, votes)
