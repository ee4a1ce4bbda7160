"""Committees of logged students: their samples as columns, and the rule on the votes of all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.actions.voting import Seat, next_members
from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.routers.agreement import Agreement
from agentcascade.routers.tuning.columns import ABSENT, UNKNOWN, Columns, arm_of, arms, columns, failed
from agentcascade.routers.tuning.rules import Asked, Outcome, Rule, Threshold
from agentcascade.steplog.types import LoggedStep
from agentcascade.types import LoggedSample, Situation, Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentcascade.routers.tuning.columns import Floats

NOWHERE = Situation(goal="")


def committee(steps: Sequence[LoggedStep], names: Sequence[str] = ()) -> Columns:
    """The samples of several students as those of one committee, with each member's own columns as `members`.

    Members are those that answered most steps together, or those called `names` (a provider's prefix may be left out),
    in the order of the log, and the steps are those that they all answered. Raises `InvalidRequest`.
    """
    answered = Counter(tuple(dict.fromkeys(student.model for student in step.students)) for step in steps)
    members = next((models for models, _ in answered.most_common() if len(models) > 1), ())
    if names:
        known = list(dict.fromkeys(model for models in answered for model in models))
        wanted = [_model_called(name, known) for name in names]
        members = tuple(model for model in known if model in wanted)
    if len(members) < 2:
        raise InvalidRequest("a committee needs samples of at least two students, by name: see `student` in the log")
    complete = []
    for step in steps:
        by_name = {student.model: student for student in step.students}
        if all(name in by_name and not failed(by_name[name]) for name in members):
            complete.append(step.model_copy(update={"students": tuple(by_name[name] for name in members)}))
    if not complete:
        raise InvalidRequest(f"the log has no step that all of {', '.join(members)} answered")
    arm = arms(complete)[0]
    complete = [step for step in complete if arm_of(step, step.students[0]) == arm]
    each = tuple(columns(complete, i) for i in range(len(members)))
    joint = columns([_joined(step, [member.most for member in each]) for step in complete], among=steps)
    codes = joint.codes.copy()
    codes[np.concatenate([member.codes for member in each], axis=1) == ABSENT] = ABSENT
    return replace(joint, codes=codes, members=each, arm=arm._replace(student=" + ".join(members)))


def alone(member: Columns) -> Committee:
    """The rule by which one student takes every step with its first sample, on the log of its committee."""
    return Committee((member.arm.student,), (Seat(),), Threshold(1, 1))


def _joined(step: LoggedStep, widths: Sequence[int]) -> LoggedStep:
    """All students' samples as those of one, each student's in as many places as `widths` say."""
    nothing = LoggedSample(action=None)
    samples = [
        sample
        for student, width in zip(step.students, widths)
        for sample in (*student.samples, *[nothing] * (width - len(student.samples)))
    ]
    first = step.students[0].model_copy(update={"samples": tuple(samples), "n": len(samples)})
    return step.model_copy(update={"students": (first,)})


def _model_called(name: str, models: Sequence[str]) -> str:
    """The one of `models` that a rule calls `name`, with or without a provider's prefix. Raises `InvalidRequest`."""
    if name in models:
        return name
    provider, _, bare = name.rpartition("/")
    alike = [m for m in models if (bare == m if provider else bare == m.rpartition("/")[2])]
    if len(alike) != 1:
        raise InvalidRequest(f"the log has no samples of '{name}': {did_you_mean(name, models)}")
    return alike[0]


@dataclass(frozen=True)
class Committee:
    """`rule` on the votes of all members, in the log's order: each gives its first samples, each of so many votes.

    It is evaluated on the samples as they were drawn, so that a log gives the decisions that the cascade would make.
    """

    members: tuple[str, ...]
    seats: tuple[Seat, ...]
    rule: Rule

    @property
    def name(self) -> str:
        names = (f"{_bare(name)}{_of(seat)}" for name, seat in zip(self.members, self.seats))
        return f"{self.rule.name}: {' + '.join(names)}"

    @property
    def samples(self) -> tuple[int, ...]:
        return tuple(seat.samples for seat in self.seats)

    @property
    def router(self) -> Mapping[str, Any]:
        if isinstance(self.rule, Threshold):
            return {"name": "threshold", "options": {"needed": self.rule.needed}}
        return self.rule.router

    @property
    def logprobs(self) -> bool:
        return self.rule.logprobs

    def samples_on(self, log: Columns) -> tuple[int, ...]:
        """Of each of the log's students; 0 for those that are no members."""
        return tuple(seat.samples if seat is not None else 0 for seat in self._seats(log))

    def on(self, log: Columns) -> Outcome:
        seats = self._seats(log)
        votes = _votes(log, seats)
        outcome = self.rule.on(votes)
        reached = self._reached(votes, [seat for seat in seats if seat is not None])
        parts = iter(reached)
        return replace(
            outcome,
            accept=outcome.taken.astype(float),
            right={
                name: np.where(np.isnan(right), np.nan, outcome.fine[name].astype(float))
                for name, right in outcome.right.items()
            },
            asked=tuple(
                Asked(1.0, seat.samples, staged=next(parts)) if seat is not None else Asked(0.0, 0) for seat in seats
            ),
        )

    def _seats(self, log: Columns) -> list[Seat | None]:
        """Of each of the log's students."""
        if not log.members:
            raise InvalidRequest("a committee is replayed on the samples of several students: see columns.committee")
        known = [member.arm.student for member in log.members]
        seats = {_model_called(name, known): seat for name, seat in zip(self.members, self.seats)}
        return [seats.get(name) for name in known]

    def _reached(self, votes: Columns, seats: Sequence[Seat]) -> list[Floats | None]:
        """(N,) of each member, 1 where it is asked when that ends with the verdict; None: it is always asked."""
        if not isinstance(self.rule, Threshold):
            return [None] * len(seats)
        rows, which = np.unique(votes.codes, axis=0, return_inverse=True)
        n, needed, whole = self.rule.n, self.rule.needed, tuple(seats)
        asked = np.array([_asked(n, needed, tuple(row.tolist()), whole) for row in rows])
        order = np.arange(len(seats))
        return list((order[:, None] < asked[which.reshape(-1)][None, :]).astype(float))


@lru_cache(maxsize=200_000)
def _asked(n: int, needed: int, codes: tuple[int, ...], seats: tuple[Seat, ...]) -> int:
    """How many members are asked, in their order, until the verdict is known: as the cascade asks them."""
    router, asked = Agreement(n, needed), 0
    while asked < len(seats):
        drawn = sum(seat.votes for seat in seats[:asked])
        counts: dict[str, int] = {}
        for code in codes[:drawn]:
            if code >= 0:
                counts[str(code)] = counts.get(str(code), 0) + 1
        votes = Tally(counts=counts, total=drawn)
        if drawn and router.judge(NOWHERE, votes, n - drawn) is not None:
            break
        asked += next_members(router, NOWHERE, votes, n, seats[asked:])
    return asked


def _votes(log: Columns, seats: Sequence[Seat | None]) -> Columns:
    """One column for each vote, in order; classes are numbered by first appearance among these, as live."""
    key = "votes", tuple(seats)
    cache: dict[Any, Columns] = log.__dict__.setdefault("_committees", {})
    if key not in cache:
        places: list[int] = []
        start = 0
        for member, seat in zip(log.members, seats):
            if seat is not None:
                places += [start + i for i in range(seat.samples) for _ in range(seat.weight)]
            start += member.most
        cache[key] = _renumbered(log, places)
    return cache[key]


def _renumbered(log: Columns, places: Sequence[int]) -> Columns:
    chosen = log.codes[:, places]
    rows, most = np.arange(len(log)), len(places)
    first = np.full((len(log), log.most + 1), most, np.int64)
    for place in reversed(range(most)):
        valid = chosen[:, place] >= 0
        first[rows[valid], chosen[valid, place]] = place
    order = np.argsort(first, axis=1, kind="stable")
    number = np.argsort(order, axis=1)
    number[np.take_along_axis(first, np.arange(log.most + 1)[None, :], axis=1) == most] = most

    def numbered(codes: NDArray[np.int16]) -> NDArray[np.int16]:
        wide = codes if codes.ndim == 2 else codes[:, None]
        new = np.where(wide < 0, wide, np.take_along_axis(number, np.maximum(wide, 0).astype(np.int64), axis=1))
        return (new if codes.ndim == 2 else new[:, 0]).astype(np.int16)

    right = None
    if log.right is not None:
        right = np.zeros((len(log), max(most, log.most) + 1), bool)
        np.put_along_axis(right, number[:, : log.most], log.right, axis=1)
        right[:, most:] = False
        right = right[:, :most]
    tool = np.full((len(log), most), -1, np.int16)
    width = min(most, log.most)
    tool[:, :width] = np.take_along_axis(np.pad(log.tool, ((0, 0), (0, 1)), constant_values=-1), order, axis=1)[
        :, :width
    ]
    return replace(
        log,
        codes=numbered(chosen),
        gold=numbered(log.gold) if right is None else _first_right(right, log.gold < 0),
        right=right,
        teacher=numbered(log.teacher),
        tool=tool,
        score=None,
        logprob=log.logprob[:, places] if log.logprob.shape[1] else log.logprob,
        members=(),
    )


def _first_right(right: NDArray[np.bool_], unknown: NDArray[np.bool_]) -> NDArray[np.int16]:
    """(N,), the first class that is right, the number of classes where none is, -1 where it is `unknown`."""
    first = np.where(right.any(axis=1), right.argmax(axis=1), right.shape[1])
    return np.where(unknown, UNKNOWN, first).astype(np.int16)


def _bare(name: str) -> str:
    return name.rpartition("/")[2] or "student"


def _of(seat: Seat) -> str:
    samples, weight = (f" × {n}" if n > 1 else "" for n in seat)
    return f"{samples}{f' weight {seat.weight}' if weight else ''}"
