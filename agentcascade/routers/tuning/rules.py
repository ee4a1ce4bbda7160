"""Rules that say, from a student's samples, who takes a step; what each does on a log; how it is configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from agentcascade.routers.tuning.columns import Columns
from agentcascade.routers.tuning.subsets import staged, winning

if TYPE_CHECKING:
    from agentcascade.routers.tuning.columns import Bools, Floats

Reference = Literal["gold", "teacher"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a rule does at each of N steps.

    `accept` and `right` are averaged over all draws that the logged samples allow; `taken` and `fine` are of the draw
    that was made, the first n samples: independent of each other between steps, so that exact tests hold.
    """

    accept: Floats
    """(N,), probability that the student's action is taken"""
    right: dict[str, Floats]
    """by reference: (N,), probability that it is taken and is what the reference says"""
    taken: Bools
    fine: dict[str, Bools]
    asked: tuple[Asked, ...]
    verified: Floats | float = 0.0
    """(N,), probability that the candidate is put to the verifier"""


class Asked(NamedTuple):
    """A student's part: how likely it is asked at each step, and for how many samples."""

    reach: Floats | float
    n: int
    votes: Threshold | None = None
    """Whose verdict could come earlier, when samples are bought in stages"""
    staged: Floats | None = None
    """(N,), how likely it is asked where a committee's members are asked until the verdict is known"""


class Rule(Protocol):
    """One way to decide, with all its settings."""

    @property
    def name(self) -> str: ...

    @property
    def samples(self) -> tuple[int, ...]:
        """That are asked of each student."""
        ...

    @property
    def router(self) -> Mapping[str, Any]:
        """The section `router` of the configuration that acts by this rule."""
        ...

    @property
    def logprobs(self) -> bool:
        """Whether it needs the log-probabilities of samples."""
        ...

    def on(self, log: Columns) -> Outcome: ...


@runtime_checkable
class Replayable(Protocol):
    """A router that can be replayed on a log: all that tuning needs of it, it carries itself."""

    def as_rule(self) -> Rule:
        """The rule that decides as this router does."""
        ...


@dataclass(frozen=True)
class Threshold:
    """Accept when `needed` of `n` samples agree (unanimity: all of them); n = 1 accepts whatever is valid."""

    n: int
    needed: int
    logprobs: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return f"{self.needed} of {self.n}"

    @property
    def samples(self) -> tuple[int, ...]:
        return (self.n,)

    @property
    def router(self) -> Mapping[str, Any]:
        share = self.needed * 10**6 // self.n / 10**6  # never rounded up: 0.666667 of 3 would be 3 votes
        return {"name": "threshold", "options": {"n": self.n, "threshold": share}}

    def on(self, log: Columns) -> Outcome:
        kinds, which = log.kinds
        accept = np.empty(len(kinds))
        right = {"gold": np.full(len(kinds), np.nan), "teacher": np.full(len(kinds), np.nan)}
        for i, (of, gold, teacher) in enumerate(kinds):
            chance = {size: winning(of, size, self.n, self.needed) for size in {*of[1]}}
            accept[i] = sum(chance[size] for size in of[1])
            for name, sizes in (("gold", gold), ("teacher", teacher)):
                if sizes is not None:
                    right[name][i] = sum(chance[size] for size in sizes)
        draw = log.draw(self.n)
        taken = draw.votes >= self.needed
        return Outcome(
            accept=accept[which],
            right={name: values[which] for name, values in right.items()},
            taken=taken,
            fine={"gold": taken & log.is_right(draw.top), "teacher": taken & (draw.top == log.teacher)},
            asked=(Asked(1.0, self.n, self),),
        )

    def waves(self, log: Columns) -> tuple[Floats, Floats]:
        """(samples, requests), (N,) each, expected when sampled in stages: exact, and slow for large n."""
        kinds, which = log.kinds
        found = np.array([staged(of, self.n, self.needed) for of, _, _ in kinds])
        return found[which, 0], found[which, 1]


@dataclass(frozen=True)
class TeacherAlone:
    """The teacher takes every step; the student is not asked."""

    name: str = "teacher"
    samples: tuple[int, ...] = ()
    logprobs: bool = False

    @property
    def router(self) -> Mapping[str, Any]:
        return {"name": "teacher"}

    def on(self, log: Columns) -> Outcome:
        none, nothing = np.zeros(len(log)), np.zeros(len(log), bool)
        labels = {"gold": log.gold, "teacher": log.teacher}
        return Outcome(
            accept=none,
            right={name: np.where(values < 0, np.nan, none) for name, values in labels.items()},
            taken=nothing,
            fine=dict.fromkeys(labels, nothing),
            asked=(),
        )


@dataclass(frozen=True)
class RandomMix:
    """The student takes a step with its first sample, but with probability `p` the teacher does: the baseline."""

    p: float
    logprobs: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return f"random {self.p:.2f}"

    @property
    def samples(self) -> tuple[int, ...]:
        return (1,)

    @property
    def router(self) -> Mapping[str, Any]:
        return {"name": "random", "options": {"p": self.p}}

    def on(self, log: Columns) -> Outcome:
        alone, share = Threshold(1, 1).on(log), 1 - self.p
        chosen = np.random.default_rng(0).random(len(log)) < share
        return Outcome(
            accept=alone.accept * share,
            right={name: values * share for name, values in alone.right.items()},
            taken=alone.taken & chosen,
            fine={name: values & chosen for name, values in alone.fine.items()},
            asked=(Asked(share, 1, Threshold(1, 1)),),
        )


class Score(Protocol):
    """A number for each step: the higher, the safer is the student's majority among its first n samples."""

    @property
    def name(self) -> str: ...

    @property
    def n(self) -> int: ...

    @property
    def logprobs(self) -> bool:
        """Whether it needs the log-probabilities of samples."""
        ...

    def of(self, log: Columns) -> Floats: ...

    def router(self, threshold: float) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Scored:
    """Accept the majority of the first n samples when its score is at least `threshold`.

    A score may look at more than votes, so it is evaluated on the samples as they were drawn.
    """

    score: Score
    threshold: float

    @property
    def name(self) -> str:
        return f"{self.score.name}, n = {self.score.n}, at least {self.threshold:.3g}"

    @property
    def samples(self) -> tuple[int, ...]:
        return (self.score.n,)

    @property
    def logprobs(self) -> bool:
        return self.score.logprobs

    @property
    def router(self) -> Mapping[str, Any]:
        return self.score.router(self.threshold)

    def on(self, log: Columns) -> Outcome:
        draw = log.draw(self.score.n)
        taken = (draw.votes > 0) & (self.score.of(log) >= self.threshold)
        return _drawn(log, taken, draw.top, self.score.n)


def _drawn(log: Columns, taken: Bools, top: Any, n: int) -> Outcome:
    fine = {"gold": taken & log.is_right(top), "teacher": taken & (top == log.teacher)}
    right = {
        name: np.where(labels < 0, np.nan, fine[name].astype(float))
        for name, labels in (("gold", log.gold), ("teacher", log.teacher))
    }
    return Outcome(accept=taken.astype(float), right=right, taken=taken, fine=fine, asked=(Asked(1.0, n),))


@dataclass(frozen=True)
class Grouped:
    """A threshold of its own for each type of action or of goal; `needed` above n: always the teacher."""

    by: Literal["tool", "category"]
    n: int
    needed: Mapping[str, int] = field(hash=False)
    default: int
    logprobs: ClassVar[bool] = False

    @property
    def name(self) -> str:
        own = ", ".join(f"{group or '-'}: {needed}" for group, needed in sorted(self.needed.items()))
        return f"by {self.by}, {self.default} of {self.n}; {own}"

    @property
    def samples(self) -> tuple[int, ...]:
        return (self.n,)

    @property
    def router(self) -> Mapping[str, Any]:
        options = {"by": self.by, "n": self.n, "default": self.default, "needed": dict(self.needed)}
        return {"name": "grouped", "options": options}

    def on(self, log: Columns) -> Outcome:
        draw = log.draw(self.n)
        needed = np.array([self.needed.get(name, self.default) for name in log.names[self.by]] + [self.n + 1])
        if self.by == "tool":  # of the majority's action
            groups = np.where(draw.top < 0, -1, log.tool[np.arange(len(log)), draw.top])
        else:
            groups = log.category
        return _drawn(log, draw.votes >= needed[groups], draw.top, self.n)


@dataclass(frozen=True)
class Chain:
    """Students in turn, each with a threshold of its own; where none of them is accepted, the teacher."""

    links: tuple[Threshold, ...]
    students: tuple[str, ...] = field(default=(), compare=False)
    """Their names, where these are known"""
    logprobs: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return ", then ".join(link.name for link in self.links)

    @property
    def samples(self) -> tuple[int, ...]:
        return tuple(link.n for link in self.links)

    @property
    def router(self) -> Mapping[str, Any]:
        return self.links[0].router

    def on(self, log: Columns) -> Outcome:
        students = (log, *log.others)
        left, open_ = np.ones(len(log)), np.ones(len(log), bool)
        right = {name: np.zeros(len(log)) for name in ("gold", "teacher")}
        fine = {name: np.zeros(len(log), bool) for name in ("gold", "teacher")}
        asked = []
        for link, student in zip(self.links, students):
            own = link.on(student)
            for name in right:
                right[name] = right[name] + left * own.right[name]
                fine[name] = fine[name] | (open_ & own.fine[name])
            asked.append(Asked(left, link.n, link))
            left, open_ = left * (1 - own.accept), open_ & ~own.taken
        return Outcome(accept=1 - left, right=right, taken=~open_, fine=fine, asked=tuple(asked))
