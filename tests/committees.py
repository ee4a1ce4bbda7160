"""Committees of scripted models."""

from __future__ import annotations

from typing import Any

from agentcascade.actions.base import RegexActions
from agentcascade.actions.voting import Seat
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.routers.step.consistency import AgreementThreshold, Unanimity
from agentcascade.step.context import FurtherStudent, StepContext
from tests.cascades import Model, Recorder, act


def committee(
    *members: Model,
    needed: int | None = None,
    seats: tuple[Seat, ...] = (),
    router: Any = None,
    teacher: Model | None = None,
    actions: Any = None,
    sampling: dict[str, Any] | None = None,
    **config: Any,
) -> Cascade:
    seats = (*seats, *[Seat()] * (len(members) - len(seats)))
    n = sum(seat.votes for seat in seats)
    first = {"name": members[0].name, "samples": seats[0].samples, "weight": seats[0].weight}
    settings = CascadeConfig(student=first, sampling={"across": "students", **(sampling or {})}, **config)
    return Cascade(
        StepContext(
            config=settings,
            router=router or AgreementThreshold(n, needed=needed),
            count=lambda text: len(text.split()),
            teacher=teacher or Model("t", act("teach")),
            student=members[0],
            students=tuple(FurtherStudent(m, Unanimity(), seat) for m, seat in zip(members[1:], seats[1:])),
            actions=actions or RegexActions(),
            recorder=Recorder(),
        )
    )
