"""A log as columns: what replay reads, for one student at one setting. N steps, at most M samples of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agentcascade.errors import InvalidRequest
from agentcascade.models.quirks import model_quirks
from agentcascade.routers.tuning.runs import Runs, read_runs
from agentcascade.routers.tuning.subsets import Pattern
from agentcascade.routers.tuning.teacher_cache import TeacherCache, teacher_cache
from agentcascade.steplog.types import LoggedStep, StudentSamples, action_type
from agentcascade.types import Usage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

Sizes = tuple[int, ...] | None
"""Of classes; None: not known"""
INVALID, ABSENT = -1, -2
UNKNOWN = -1


class Arm(NamedTuple):
    """How a student was asked: what a log may hold several of."""

    student: str = ""
    temperature: float | None = None
    k: int | None = None
    window: str | None = None
    vary: str | None = None
    history: str | None = None

    def __str__(self) -> str:
        return " ".join(p for p in (self.student, self.setting) if p) or "student"

    @property
    def setting(self) -> str:
        """Temperature, demonstrations and their windows, and how the history was bounded, as far as they are known."""
        parts = []
        parts += [f"T={self.temperature:g}"] if self.temperature is not None else []
        parts += [f"k={self.k}"] if self.k is not None else []
        parts += [f"window={self.window}"] if self.window and self.k != 0 else []
        parts += [f"vary={self.vary}"] if self.vary else []
        parts += [f"history={self.history}"] if self.history else []
        return " ".join(parts)


class Draw(NamedTuple):
    """The vote over the first n samples, as they were drawn."""

    votes: NDArray[np.int16]
    """(N,), of the class with the most; of equals, the one seen first"""
    top: NDArray[np.int16]
    """(N,), that class; -1 where no sample can be used"""
    counts: NDArray[np.int16]
    """(N, M), votes by class"""


@dataclass(frozen=True, eq=False)
class Columns:
    """Steps of one arm, those of one cluster in a row."""

    arm: Arm
    codes: NDArray[np.int16]
    """(N, M), each sample's class, numbered by first appearance; -1: no valid action, -2: not drawn"""
    gold: NDArray[np.int16]
    """(N,), the class that is right; M: none of them; -1: not known. Of several the one seen first"""
    teacher: NDArray[np.int16]
    """(N,), the teacher's class; M: none of them; -1: the teacher is not logged"""
    teacher_right: NDArray[np.int8]
    """(N,), whether the teacher's action is the right one; -1: not known"""
    success: NDArray[np.int8]
    """(N,), outcome of the step's episode; -1: not known"""
    cluster: NDArray[np.int64]
    """(N,), 0 to C - 1, never falling"""
    weight: Floats
    """(N,), 1 / propensity, scaled to a mean of 1"""
    position: NDArray[np.int32]
    """(N,), index of the step in its episode"""
    similarity: Floats
    """(N,), NaN where not known"""
    logprob: Floats
    """(N, M), NaN where not known; (N, 0) where none is"""
    category: NDArray[np.int32]
    tool: NDArray[np.int16]
    """(N, M), the type of each class' action; -1 where there is no such class"""
    dollars: dict[str, Floats] = field(default_factory=dict)
    """(N,) each, NaN where not known: prompt, again (it once more), sample, verify, teacher; plain_…: without caches;
    teacher_token: one more token of its prompt; sample_tokens: no dollars, the mean tokens of a sample"""
    score: Floats | None = None
    """(N, M), the verifier's of each class; NaN where not known; None where none is"""
    verifier: str = ""
    """Who gave them"""
    names: dict[str, list[str]] = field(default_factory=dict)
    """category, tool: what the numbers stand for"""
    right: Bools | None = None
    """(N, M), the classes that are right, where a step of the log has several; None: `gold` alone is"""
    others: tuple[Columns, ...] = ()
    """Further students at the same steps"""
    members: tuple[Columns, ...] = ()
    """Of a committee: each member by itself; `codes` are of all, one member's samples after the other's"""
    cache: TeacherCache | None = None
    """The teacher's prompt cache; None where nothing was read from it"""
    runs: Runs | None = None
    """What was observed and done before each step"""

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def most(self) -> int:
        """M"""
        return int(self.codes.shape[1])

    @property
    def students(self) -> tuple[Columns, ...]:
        """Those whose samples are paid for."""
        return self.members or (self, *self.others)

    @property
    def scores(self) -> Floats:
        """(N, M), the verifier's of each class; NaN where not known."""
        return np.full(self.codes.shape, np.nan) if self.score is None else self.score

    @cached_property
    def clusters(self) -> int:
        return int(self.cluster[-1]) + 1 if len(self) else 0

    @cached_property
    def starts(self) -> Ints:
        """(C,), the first step of each cluster."""
        return np.flatnonzero(np.diff(self.cluster, prepend=-1))

    @cached_property
    def singletons(self) -> bool:
        """Whether every cluster is one step."""
        return self.clusters == len(self)

    def enough(self, n: int) -> Bools:
        """(N,), whether so many samples were drawn."""
        return self.codes[:, n - 1] != ABSENT if n <= self.most else np.zeros(len(self), bool)

    def by_cluster(self, values: Floats) -> Floats:
        """(N,) to sums (C,)."""
        return np.add.reduceat(values, self.starts) if len(self) else np.zeros(0)

    @cached_property
    def sizes(self) -> NDArray[np.int16]:
        """(N, M), samples in each class."""
        counts = np.zeros((len(self), self.most), np.int16)
        rows = np.arange(len(self))
        for codes in self.codes.T:
            valid = codes >= 0
            counts[rows[valid], codes[valid]] += 1
        return counts

    def is_right(self, top: NDArray[np.int16]) -> Bools:
        """(N,), whether class `top` of each step is right, as far as that is known; -1 is no class."""
        if self.right is None:
            return np.asarray(top == self.gold)
        return (top >= 0) & self.right[np.arange(len(self)), np.maximum(top, 0)]

    @cached_property
    def kinds(self) -> tuple[list[tuple[Pattern, Sizes, Sizes]], Ints]:
        """Steps that no vote can tell apart: (pattern, sizes of right classes, of the teacher's), and (N,) which."""
        drawn = (self.codes != ABSENT).sum(axis=1, dtype=np.int16)
        ordered = -np.sort(-self.sizes, axis=1)
        padded = np.concatenate([self.sizes, np.zeros((len(self), 1), np.int16)], axis=1)
        rows = np.arange(len(self))
        right, teacher = (
            np.where(label < 0, UNKNOWN, padded[rows, label])[:, None] for label in (self.gold, self.teacher)
        )
        if self.right is not None:
            sizes = -np.sort(-np.where(self.right, self.sizes, 0), axis=1)
            right = np.where(self.gold[:, None] < 0, UNKNOWN, sizes)
        table = np.column_stack([drawn, teacher, right, ordered])
        found, which = np.unique(table, axis=0, return_inverse=True)
        end = 2 + right.shape[1]
        kinds = [
            ((int(row[0]), tuple(int(s) for s in row[end:] if s)), _sizes(row[2:end]), _sizes(row[1:2]))
            for row in found
        ]
        return kinds, which.reshape(-1)

    def draw(self, n: int) -> Draw:
        """The vote over the first n samples of every step."""
        made: dict[int, Draw] = self.__dict__.setdefault("_draws", {})
        if n not in made:
            counts = np.zeros((len(self), self.most), np.int16)
            rows = np.arange(len(self))
            for codes in self.codes.T[:n]:
                valid = codes >= 0
                counts[rows[valid], codes[valid]] += 1
            top = counts.argmax(axis=1).astype(np.int16)
            votes = counts[rows, top]
            made[n] = Draw(votes, np.where(votes > 0, top, -1).astype(np.int16), counts)
        return made[n]

    def take(self, rows: Bools | Ints) -> Columns:
        """The chosen steps, whole clusters or not."""
        chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        _, cluster = np.unique(self.cluster[chosen], return_inverse=True)
        parts = {
            name: getattr(self, name)[chosen]
            for name in (
                *("codes", "gold", "teacher", "teacher_right", "success", "weight", "position", "similarity"),
                *("logprob", "category", "tool"),
            )
        }
        dollars = {name: values[chosen] for name, values in self.dollars.items()}
        return Columns(
            arm=self.arm,
            cluster=cluster.astype(np.int64),
            dollars=dollars,
            names=self.names,
            others=tuple(other.take(chosen) for other in self.others),
            members=tuple(member.take(chosen) for member in self.members),
            cache=None if self.cache is None else self.cache.take(chosen),
            runs=None if self.runs is None else self.runs.take(chosen),
            right=None if self.right is None else self.right[chosen],
            score=None if self.score is None else self.score[chosen],
            verifier=self.verifier,
            **parts,
        )


def _sizes(row: NDArray[np.int16]) -> Sizes:
    """Sizes of classes, without the empty ones; None where they are not known."""
    return None if row[0] == UNKNOWN else tuple(int(size) for size in row if size)


def arms(steps: Sequence[LoggedStep]) -> list[Arm]:
    """Every way in which a step's first student was asked and answered, most steps first.

    Raises `InvalidRequest` where no step has a sample. A shadow that failed drew none: it says nothing of any rule.
    """
    counts: dict[Arm, int] = {}
    for step in steps:
        for drawn in step.students[:1]:
            if failed(drawn):
                continue
            counts[arm_of(step, drawn)] = counts.get(arm_of(step, drawn), 0) + 1
    if not counts:
        raise InvalidRequest("no step of the log has a student's sample: every shadow failed, look at its failures")
    return sorted(counts, key=lambda a: (-counts[a], str(a)))


def failed(drawn: StudentSamples) -> bool:
    """Whether the student could not be asked at all."""
    return drawn.n == 0 and not drawn.samples


def arm_of(step: LoggedStep, drawn: object) -> Arm:
    names = "temperature", "k", "window", "vary", "history"
    return Arm(getattr(drawn, "model", ""), *(getattr(drawn, name, None) for name in names))


def columns(
    steps: Sequence[LoggedStep], student: int = 0, arm: Arm | None = None, *, among: Sequence[LoggedStep] = ()
) -> Columns:
    """The `student`-th student of every step, or of those whose first student was asked as `arm` says.

    `among` are all steps of the log, where `steps` are a part: an episode's run is made of them all.

    Raises `InvalidRequest` where nothing is left.
    """
    chosen = [
        s
        for s in steps
        if len(s.students) > student
        and not failed(s.students[student])
        and (arm is None or arm_of(s, s.students[0]) == arm)
    ]
    if not chosen:
        raise InvalidRequest(f"the log has no step with samples of student {student + 1}{f' at {arm}' if arm else ''}")
    first: dict[str, int] = {}
    for step in chosen:
        first.setdefault(step.cluster, len(first))
    chosen.sort(key=lambda s: (first[s.cluster], s.step))
    most = max(1, *(len(s.students[student].samples) for s in chosen))
    shape = len(chosen), most
    codes = np.full(shape, ABSENT, np.int16)
    logprob = np.full(shape, np.nan)
    score = np.full(shape, np.nan)
    labels = {name: np.full(len(chosen), UNKNOWN, np.int16) for name in ("gold", "teacher")}
    taught = np.full(len(chosen), UNKNOWN, np.int8)
    right = np.zeros(shape, bool)
    tool = np.full(shape, -1, np.int16)
    tools: dict[str, int] = {}
    teachers = any(s.teacher is not None for s in chosen)
    for i, step in enumerate(chosen):
        known: dict[str, int] = {}
        for j, sample in enumerate(step.students[student].samples):
            codes[i, j] = INVALID if sample.action is None else known.setdefault(sample.action, len(known))
            if sample.score is not None and sample.action is not None:
                score[i, codes[i, j]] = sample.score
            if sample.logprob is not None:
                logprob[i, j] = sample.logprob
        drawn = step.students[student]
        codes[i, len(drawn.samples) : most if drawn.n is None else drawn.n] = INVALID
        if step.gold is not None:
            fine = [known[key] for key in known if key in step.right]
            labels["gold"][i] = min(fine, default=most)
            right[i, fine] = True
            taught[i] = step.teacher in step.right if teachers else UNKNOWN
        if teachers:
            labels["teacher"][i] = most if step.teacher is None else known.get(step.teacher, most)
        for action, j in known.items():
            tool[i, j] = tools.setdefault(action_type(action), len(tools))
    weight = np.array([1 / s.propensity for s in chosen])
    names, category = np.unique(np.array([s.category for s in chosen]), return_inverse=True)
    return Columns(
        arm=arm or Arm(chosen[0].students[student].model),
        codes=codes,
        gold=labels["gold"],
        teacher=labels["teacher"],
        teacher_right=taught,
        right=right if any(step.also_right for step in chosen) else None,
        success=np.array([UNKNOWN if s.success is None else s.success for s in chosen], np.int8),
        cluster=np.array([first[s.cluster] for s in chosen], np.int64),
        weight=weight / weight.mean(),
        position=np.array([s.step for s in chosen], np.int32),
        similarity=np.array([_or_nan(s.students[student].similarity) for s in chosen]),
        logprob=logprob if not np.isnan(logprob).all() else np.empty((len(chosen), 0)),
        score=None if np.isnan(score).all() else score,
        verifier=next((name for s in chosen if (name := s.students[student].verifier)), ""),
        category=category.astype(np.int32).reshape(-1),
        tool=tool,
        dollars=_dollars(chosen, student),
        cache=teacher_cache(chosen),
        runs=read_runs(chosen, [*steps, *among]),
        names={"tool": list(tools), "category": [str(name) for name in names]},
    )


def chain(steps: Sequence[LoggedStep]) -> Columns:
    """The first student's columns with those of all others beside them, of the steps that every student answered.

    Where the first student was asked in several ways, of the steps where it was asked as it was most often.
    """
    students = min(len(s.students) for s in steps)
    if students < 2:
        raise InvalidRequest("a chain needs samples of at least two students at every step: see `student` in the log")
    whole = steps
    steps = [s for s in steps if not any(failed(drawn) for drawn in s.students[:students])]
    arm = arms(steps)[0]
    first, *others = (columns(steps, i, arm, among=whole) for i in range(students))
    names = [steps[0].students[i].model for i in range(1, students)]
    named = (replace(other, arm=arm._replace(student=name)) for other, name in zip(others, names))
    return replace(first, others=tuple(named))


def _dollars(steps: Sequence[LoggedStep], student: int) -> dict[str, Floats]:
    names = (
        "prompt",
        "again",
        "sample",
        "teacher",
        "verify",
        "plain_prompt",
        "plain_teacher",
        "sample_tokens",
        "teacher_token",
    )
    found = {name: np.full(len(steps), np.nan) for name in names}
    for i, step in enumerate(steps):
        drawn = step.students[student]
        if drawn.verifier_dollars is not None:
            found["verify"][i] = drawn.verifier_dollars
        price, usage = drawn.price, drawn.prompt
        if price is not None and usage is not None:
            plain = Usage(input=usage.prompt)
            cached = price.cached_input is not None and usage.prompt >= model_quirks(drawn.model).cache_minimum
            found["prompt"][i] = price.dollars(usage)
            found["plain_prompt"][i] = price.dollars(plain)
            found["again"][i] = price.dollars(Usage(cached_input=usage.prompt) if cached else plain)
        tokens = [s.tokens for s in drawn.samples if s.tokens is not None]
        if tokens:
            found["sample_tokens"][i] = sum(tokens) / len(tokens)
        if price is not None and tokens:
            found["sample"][i] = float(price.dollars(Usage(output=1_000_000))) * sum(tokens) / len(tokens) / 1e6
        if step.teacher_price is not None and step.teacher_usage is not None:
            taught = step.teacher_usage
            found["teacher_token"][i] = float(step.teacher_price.dollars(Usage(input=1_000_000))) / 1e6
            found["teacher"][i] = step.teacher_price.dollars(taught)
            plain = Usage(input=taught.prompt, output=taught.output, reasoning=taught.reasoning)
            found["plain_teacher"][i] = step.teacher_price.dollars(plain)
    return found


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
