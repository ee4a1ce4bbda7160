"""Measured tokens and acceptance of recorded steps, which a forecast goes by in place of assumptions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise

from agentcascade.bank.windows import cut_window
from agentcascade.economics.break_even import BilledSteps, billed_steps
from agentcascade.economics.forecast import StudentTokens
from agentcascade.ledger.recorded_steps import ShadowVerdict
from agentcascade.prompts.demonstrations import MARK
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.prompts.transcripts import render_demonstration
from agentcascade.protocols import TokenCounter
from agentcascade.storage import Database
from agentcascade.storage.trajectories import newest_first, read_trajectories
from agentcascade.types import Call, Decision, Trajectory

ENOUGH, FEW = 20, 5
"""Steps from which on a share of them is told, and a mean of their tokens."""
RECENT_TRAJECTORIES = 40
WINDOWS = 200
"""Windows of them that are counted, at most."""
TEACHER, STUDENT = ("act",), ("sample", "shadow")
"""Purposes of the calls that answer a step."""


@dataclass(frozen=True)
class Measured:
    """Means over recorded steps; None where too few say something.

    Args:
        steps: That the figures are of.
        episodes: That they belong to.
        acceptance: Share of the steps of mode cascade whose action the student gave, else what the router would have
            taken of the shadows (`shadowed`).
        shadowed: Whether `acceptance` is of shadows.
        dollars: A step's bill in mode cascade.
        teacher_alone: What the teacher alone would have cost for these steps.
        prompt: Tokens of a prompt of the teacher. Where it was asked at some steps alone, what the student's prompts at
            all steps have beyond those at these is added.
        new: By how many it grows from step to step.
        teacher_answer: Tokens of the teacher's answer.
        teacher_reasoning: Of the thinking before it.
        answer: Tokens of one student answer.
        reasoning: Of the thinking before it.
        demonstration: By how many tokens each demonstration made the student's prompt longer than the teacher's, at the
            steps that both answered.
        episode_steps: Steps of an episode.
        students: By name, the tokens of those that answered at `FEW` steps; prompts of those that were shown no
            demonstration.
        deferred: What the teacher's answer to a deferred step cost, for one to any step.
    """

    steps: int = 0
    episodes: int = 0
    acceptance: float | None = None
    shadowed: bool = False
    dollars: Decimal | None = None
    teacher_alone: Decimal | None = None
    prompt: float | None = None
    new: float | None = None
    teacher_answer: float | None = None
    teacher_reasoning: float | None = None
    answer: float | None = None
    reasoning: float | None = None
    demonstration: float | None = None
    episode_steps: float | None = None
    students: Mapping[str, StudentTokens] = field(default_factory=dict)
    deferred: float = 1.0


def measure(
    recorded: Sequence[Decision],
    *,
    teacher: str,
    students: Collection[str],
    shadowed: Iterable[ShadowVerdict] = (),
) -> Measured:
    """Means over recorded steps, those of the named models alone.

    Args:
        recorded: Decisions with their bills; calls of shadows may be among them.
        teacher: Name of the teacher: what another one read and wrote says nothing of its tokens.
        students: Names of the students.
        shadowed: What the router made of shadows.
    """
    taught = [(d, c) for d in recorded for c in d.calls if c.purpose in TEACHER and c.model == teacher]
    sampled = [(d, c) for d in recorded for c in d.calls if c.purpose in STUDENT and c.model in students]
    cascade = [
        d for d in bought(recorded) if d.mode == "cascade" and any(c.model in {teacher, *students} for c in d.calls)
    ]
    episodes = {(d.namespace, d.episode): d.step for d in sorted(recorded, key=lambda d: d.step)}
    verdicts = {verdict.decision: verdict for verdict in shadowed}
    acceptance, from_shadows = _acceptance(cascade, list(verdicts.values()))
    bills = [(d.dollars, d.teacher_dollars) for d in cascade]
    known = [(spent, alone) for spent, alone in bills if spent is not None and alone is not None]
    whole = len(known) == len(bills) >= ENOUGH
    answers = sum(_answers(d, c, verdicts.get(d.id)) for d, c in sampled)
    return Measured(
        steps=len(recorded),
        episodes=len(episodes),
        acceptance=acceptance,
        shadowed=from_shadows,
        dollars=sum((spent for spent, _ in known), Decimal(0)) / len(known) if whole else None,
        teacher_alone=sum((alone for _, alone in known), Decimal(0)) / len(known) if whole else None,
        prompt=_teacher_prompt(taught, sampled),
        new=_growth(taught),
        teacher_answer=_mean([c.usage.output / c.requests for _, c in taught]),
        teacher_reasoning=_mean([c.usage.reasoning / c.requests for _, c in taught]),
        answer=sum(c.usage.output for _, c in sampled) / answers if answers >= FEW else None,
        reasoning=sum(c.usage.reasoning for _, c in sampled) / answers if answers >= FEW else None,
        demonstration=_demonstration(taught, sampled),
        episode_steps=sum(last + 1 for last in episodes.values()) / len(episodes) if len(recorded) >= FEW else None,
        students=_by_student(sampled, verdicts),
    )


Billed = tuple[Decision, Call]


def _by_student(sampled: Sequence[Billed], verdicts: Mapping[str, ShadowVerdict]) -> dict[str, StudentTokens]:
    by_name: dict[str, list[Billed]] = {}
    for decision, call in sampled:
        by_name.setdefault(call.model, []).append((decision, call))
    return {name: _tokens(calls, verdicts) for name, calls in by_name.items() if len(calls) >= FEW}


def _tokens(calls: Sequence[Billed], verdicts: Mapping[str, ShadowVerdict]) -> StudentTokens:
    answers = sum(_answers(d, c, verdicts.get(d.id)) for d, c in calls)
    shown = any(decision.demonstrations for decision, _ in calls)
    return StudentTokens(
        None if shown else _mean(list(_prompts(calls).values())),
        sum(c.usage.output for _, c in calls) / answers,
        sum(c.usage.reasoning for _, c in calls) / answers,
    )


def _prompts(of: Sequence[Billed]) -> dict[str, float]:
    """Decision → tokens of the prompt that its last such call sent."""
    return {decision.id: call.usage.prompt / call.requests for decision, call in of}


def _teacher_prompt(taught: Sequence[Billed], sampled: Sequence[Billed]) -> float | None:
    teacher, student = _prompts(taught), _prompts(sampled)
    found = _mean(list(teacher.values()))
    both = _mean([student[id] for id in teacher.keys() & student.keys()])
    if found is None or both is None:
        return found
    return max(1.0, found + sum(student.values()) / len(student) - both)


def _demonstration(taught: Sequence[Billed], sampled: Sequence[Billed]) -> float | None:
    teacher, student = _prompts(taught), _prompts(sampled)
    shown = {d.id: len(d.demonstrations) for d, _ in sampled if d.demonstrations}
    each = [(student[id] - teacher[id]) / number for id, number in shown.items() if id in teacher]
    return None if (found := _mean(each)) is None else max(0.0, found)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if len(values) >= FEW else None


def _acceptance(cascade: Sequence[Decision], shadowed: Sequence[ShadowVerdict]) -> tuple[float | None, bool]:
    if len(cascade) >= ENOUGH:
        return sum(d.answered_by == "student" for d in cascade) / len(cascade), False
    if len(shadowed) >= ENOUGH:
        weights = sum(1 / s.propensity for s in shadowed)
        return sum(s.accepted / s.propensity for s in shadowed) / weights, True
    return None, False


def _answers(decision: Decision, call: Call, shadow: ShadowVerdict | None) -> float:
    """Answers that a call gave: of those of its step, as many as of each other call for samples."""
    alike = sum(c.purpose == call.purpose for c in decision.calls)
    given = decision.samples if call.purpose == "sample" else shadow.samples if shadow is not None else 0
    return max(given, alike) / alike


def _growth(taught: Sequence[Billed]) -> float | None:
    """Tokens that a prompt of the teacher has more than that of the step before."""
    by_episode: dict[tuple[str, str], dict[int, float]] = {}
    for decision, call in taught:
        prompts = by_episode.setdefault((decision.namespace, decision.episode), {})
        prompts[decision.step] = call.usage.prompt / call.requests
    grown, between = 0.0, 0
    for prompts in by_episode.values():
        for one, other in pairwise(sorted(prompts)):
            if prompts[other] >= prompts[one]:  # else its agent has cut the history
                grown, between = grown + prompts[other] - prompts[one], between + other - one
    return grown / between if between >= FEW else None


def recorded_bills(recorded: Sequence[Decision]) -> BilledSteps | None:
    """Bills of the steps of mode cascade beside what the teacher alone would have cost; None for fewer than `ENOUGH`.

    Steps whose dollars or counterfactual are not known are left out, and those with an answer of the response cache.
    """
    known = [
        d for d in bought(recorded) if d.mode == "cascade" and d.dollars is not None and d.teacher_dollars is not None
    ]
    if len(known) < ENOUGH:
        return None
    alone = sum((d.teacher_dollars for d in known if d.teacher_dollars is not None), Decimal(0)) / len(known)
    return billed_steps(alone, [(d.answered_by == "student", d.dollars) for d in known])


def bought(recorded: Sequence[Decision]) -> list[Decision]:
    """The steps whose calls were all bought: what the response cache gave says nothing of what such steps cost."""
    return [d for d in recorded if not any(c.cached_response for c in d.calls)]


def recent_trajectories(database: Database, namespace: str | None = None) -> list[Trajectory]:
    """The newest trajectories of a bank. Raises `StorageError`."""
    with database.begin() as connection:
        newest = connection.execute(newest_first(namespace).limit(RECENT_TRAJECTORIES)).scalars().all()
        return list(read_trajectories(connection, newest).values())


def frame_tokens(count: TokenCounter, prompts: Prompts = DEFAULT) -> int:
    """Tokens of what stands around all demonstrations of a prompt, the mark that ends them included."""
    return count(prompts.render("demonstrations", examples="", mark=MARK if prompts.quoting.on else ""))


def window_tokens(
    trajectories: Sequence[Trajectory], count: TokenCounter, prompts: Prompts = DEFAULT
) -> Callable[[int, int], float]:
    """(steps before, steps after) → mean tokens of a demonstration with such a window, as a prompt quotes it.

    Every step of the trajectories may be the one that matches; of many, `WINDOWS` are counted, evenly spread.
    """
    places = [(t, i) for t in trajectories for i in range(len(t.steps))]
    stride = max(1, len(places) // WINDOWS)
    heading = count(prompts.render("heading", number="1")) + 2
    known: dict[tuple[int, int], float] = {}

    def mean(before: int, after: int) -> float:
        if (before, after) not in known:
            windows = (cut_window(t, i, 0.0, before=before, after=after) for t, i in places[::stride])
            sizes = [count(render_demonstration(window, prompts)) + heading for window in windows]
            known[before, after] = sum(sizes) / len(sizes)
        return known[before, after]

    return mean
