"""The cheapest rule whose risk is certified: Learn then Test over chains of rules, on one's own log.

With probability at least `confidence` over the log, no certified rule has a true risk above `max_risk`, whatever the
distribution of steps, as long as future episodes are like those of the log (Angelopoulos et al. 2021). So the cheapest
certified one may be chosen after looking.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.routers.tuning import costs, families, multiple
from agentcascade.routers.tuning.columns import Arm, Columns, arm_of, arms, chain, columns, failed
from agentcascade.routers.tuning.committees import committee
from agentcascade.routers.tuning.conformal import conformal
from agentcascade.routers.tuning.costs import SAMPLINGS, Bill, Sampling
from agentcascade.routers.tuning.families import CHAIN, COMMITTEE, FAMILIES
from agentcascade.routers.tuning.pvalues import FUNCTIONS, TESTS, Test, upper_bound
from agentcascade.routers.tuning.replay import Replayed, drawn, replay
from agentcascade.routers.tuning.risks import Losses, Risk
from agentcascade.routers.tuning.rules import Rule
from agentcascade.steplog.types import LoggedStep

MORE = 4096
"""Logs this many times as long are the longest that are considered when more data are asked for."""


@dataclass(frozen=True)
class Settings:
    """What to certify, and what to try. Raises `InvalidRequest` naming the value."""

    max_risk: float
    confidence: float = 0.95
    risk: Risk = field(default_factory=Risk)
    method: Literal["test", "conformal"] = "test"
    test: Test | Literal["auto"] = "auto"
    multiplicity: multiple.Multiplicity = "sequence"
    rules: tuple[str, ...] = ("consistency",)
    """Families to try: of `families.FAMILIES`, or the name of a registered router that has one"""
    sizes: tuple[int, ...] = ()
    """Numbers of samples to try; default: up to 10, as far as the log goes"""
    sampling: Sampling | Literal["auto"] = "auto"
    discounts: bool = True
    sample_cost: float = Bill.sample_cost
    draft_tokens: int = 0
    """Most tokens of a student's drafts in a deferred step's prompt, as in `prompt`; 0: the teacher sees none"""
    error_cost: float = 0.0
    """What an accepted action that goes wrong costs beyond its step, in teacher answers: the detour that follows it"""
    fit_share: float = 0.5
    """Of the episodes, to fit rules that need it"""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.max_risk < 1:
            raise InvalidRequest(f"max_risk is {self.max_risk}: it is a share above 0 and below 1, e.g. 0.05")
        if not 0.5 <= self.confidence < 1:
            raise InvalidRequest(f"confidence is {self.confidence}: it is a probability from 0.5 up to 1, e.g. 0.95")
        if not 0.05 <= self.fit_share <= 0.95:
            raise InvalidRequest(f"fit_share is {self.fit_share}: it is a share of the episodes, 0.05 to 0.95")
        if not self.rules:
            raise InvalidRequest(f"rules is empty: choose among {', '.join(FAMILIES)}")
        for name in self.rules:
            families.family(name)
        if self.test not in (*TESTS, "auto"):
            raise InvalidRequest(f"test '{self.test}' is unknown: {did_you_mean(self.test, (*TESTS, 'auto'))}")
        for n in self.sizes:
            if n < 1:
                raise InvalidRequest(f"sizes has {n}: a number of samples is at least 1")
        costs.check(self.sample_cost)
        if not 0 <= self.error_cost < float("inf"):
            raise InvalidRequest(f"error_cost is {self.error_cost}: it is a number of teacher answers, from 0")


@dataclass(frozen=True)
class Candidate:
    """A rule that was tried, on the steps that it was tested on."""

    family: str
    chain: int
    replayed: Replayed
    p: float | None
    level: float
    certified: bool
    upper: float | None = None
    """Upper bound of its risk at the same confidence, were it the only rule that was tried"""

    @property
    def rule(self) -> Rule:
        return self.replayed.rule


@dataclass(frozen=True)
class Tuned:
    """What came of it. `chosen` is None where no rule is certified, or none that is cheaper than the teacher."""

    settings: Settings
    test: str
    steps: int
    episodes: int
    left_out: dict[str, int]
    candidates: list[Candidate]
    chosen: Candidate | None
    sampling: Sampling
    unit: str
    teacher_cost: float
    more_episodes: int | None = None
    """About how many more would certify the most promising rule, where none is certified; None: none would"""
    most: int = 0
    rarest: float = 1.0
    """The smallest probability with which a step was logged"""

    @property
    def certified(self) -> list[Candidate]:
        return [c for c in self.candidates if c.certified]


@dataclass(frozen=True)
class _Chain:
    family: str
    log: Columns
    rules: list[Rule]


def tune(steps: Sequence[LoggedStep], settings: Settings) -> Tuned:
    """Replay, test, choose. Raises `InvalidRequest` for a log without the labels that the risk needs."""
    usable, left_out = _usable(steps, settings)
    every = [columns(usable, arm=arm, among=steps) for arm in arms(usable)]
    logs = [log for log in every if log.clusters >= max(2, 0.01 * len(usable))] or every[:1]
    chained = chain(usable) if CHAIN in settings.rules else None
    seated = committee(usable) if COMMITTEE in settings.rules else None
    tuned = search(logs, settings, left_out=left_out, chained=chained, seated=seated)
    return replace(
        tuned,
        steps=len(usable),
        episodes=len({s.cluster for s in usable}),  # arms may share episodes
        rarest=min(s.propensity for s in usable),
    )


def search(
    logs: Sequence[Columns],
    settings: Settings,
    *,
    left_out: dict[str, int] | None = None,
    chained: Columns | None = None,
    seated: Columns | None = None,
) -> Tuned:
    """The same on columns, one log for each way in which the student was asked, every step labelled."""
    together = {name: log for name, log in ((CHAIN, chained), (COMMITTEE, seated)) if log is not None}
    settings = replace(settings, risk=_bounded(settings.risk, [*logs, *together.values()]))
    alone = [name for name in settings.rules if name not in (CHAIN, COMMITTEE)]
    made = [c for log in logs for c in _chains(log, alone, settings)]
    for name, log in together.items():
        made += _chains(log, [name], settings)
    bills = _bills(settings)
    candidates = []
    for i, (one, verdicts) in enumerate(zip(made, _tested(made, settings))):
        for rule, verdict in zip(one.rules, verdicts):
            asked = bills if verdict.certified else bills[:1]
            candidates.append(Candidate(one.family, i, replay(one.log, rule, asked, settings.risk), *verdict))
    worth = [(_spent(c.replayed, settings), -c.replayed.acceptance, i) for i, c in enumerate(candidates) if c.certified]
    cheapest = min((w for w in worth if w[0] < 1), default=None)
    chosen = candidates[cheapest[2]] if cheapest is not None else None
    best: Sampling = bills[0].sampling
    if chosen is not None:
        by = chosen.replayed.by_sampling
        best = min((b.sampling for b in bills), key=lambda s: by.get(s, np.inf))
        chosen = replace(chosen, upper=_upper(made[chosen.chain].log, chosen.rule, settings))
    conformal_ = settings.method == "conformal"
    return Tuned(
        settings=settings,
        test="conformal" if conformal_ else " and ".join(sorted({_test(c.log, settings) for c in made})),
        steps=sum(len(log) for log in logs),
        episodes=sum(log.clusters for log in logs),
        left_out=left_out or {},
        candidates=candidates,
        chosen=chosen,
        sampling=best,
        unit=bills[0].unit(logs[0]),
        teacher_cost=float(np.nanmean(bills[0].teacher(logs[0]))),
        more_episodes=None if any(c.certified for c in candidates) else _more(made, settings),
        most=max(log.most for log in logs),
    )


def _bounded(risk: Risk, logs: Sequence[Columns]) -> Risk:
    """All rules are tested with one bound on the steps of an episode."""
    if risk.longest is not None or risk.weigh == "episodes" or risk.kind == "episode-loss":
        return risk
    return replace(risk, longest=max(int(log.by_cluster(np.ones(len(log))).max()) for log in logs))


def _spent(seen: Replayed, settings: Settings) -> float:
    """A step's cost with what its mistakes cost later, as a share of the teacher's."""
    kind = "teacher-disagreement" if seen.risks["wrong"] is None else "wrong"
    return seen.cost / seen.teacher_cost + settings.error_cost * (seen.risks[kind] or 0.0)


def _usable(steps: Iterable[LoggedStep], settings: Settings) -> tuple[list[LoggedStep], dict[str, int]]:
    """Shadows with the label that the risk needs, and how many others there were."""
    kind, usable = settings.risk.kind, []
    left_out: dict[str, int] = {}
    steps = list(steps)
    teachers = any(s.teacher is not None for s in steps)
    for step in steps:
        reason = None
        if step.kind == "audit":
            reason = "audits, which are of accepted steps alone"
        elif not step.students:
            reason = "steps without a student"
        elif failed(step.students[0]):
            reason = "shadows that failed"
        elif kind == "wrong" and step.gold is None:
            reason = "steps whose right answer (gold) is not known"
        elif kind == "teacher-disagreement" and not teachers:
            reason = "steps without a teacher's action"
        elif kind == "episode-loss" and step.gold is None and not teachers:
            reason = "steps with neither gold nor a teacher's action"
        if reason is None:
            usable.append(step)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    if kind == "episode-loss" or settings.risk.by_episode:
        _whole(usable, "episode-loss" if kind == "episode-loss" else "weigh episodes")
    if not usable:
        why = "; ".join(f"{number} {reason}" for reason, number in left_out.items()) or "it is empty"
        raise InvalidRequest(f"the log has no step that risk '{kind}' can be measured on: {why}")
    return usable, left_out


def _whole(steps: Iterable[LoggedStep], what: str) -> None:
    """Raises `InvalidRequest` where a part of an episode would pass for all of it."""
    ways: dict[str, Arm] = {}
    for step in steps:
        if step.propensity < 1:
            raise InvalidRequest(f"{what} needs every step of its episodes: log them with shadow.rate 1")
        way = arm_of(step, step.students[0])
        if ways.setdefault(step.cluster, way) != way:
            raise InvalidRequest(
                f"{what} needs episodes whose steps were all sampled alike, but '{step.cluster}' has steps at {way} "
                f"and at {ways[step.cluster]}: log with one of shadow.temperatures and one of shadow.ks"
            )


def _chains(log: Columns, names: Iterable[str], settings: Settings) -> list[_Chain]:
    sizes, kind = _sizes(log, settings), settings.risk.kind
    chosen = {name: families.family(name) for name in names}
    halves = (
        list(families.parts(log, settings.fit_share, settings.seed)) if any(f.fitted for f in chosen.values()) else []
    )
    made: list[_Chain] = []
    for name, family in chosen.items():
        fitting, testing = halves if family.fitted else (log, log)
        made += [_Chain(name, testing, rules) for rules in family.rules(fitting, sizes, kind, settings.seed)]
    return made


def _sizes(log: Columns, settings: Settings) -> list[int]:
    most = min(student.most for student in log.students)
    return [n for n in settings.sizes or families.SIZES if n <= most] or [most]


def _test(log: Columns, settings: Settings) -> Test:
    """The exact test, where a cluster's loss is one thing or the other."""
    alike = bool((log.weight == log.weight[0]).all())
    exact = settings.risk.kind == "episode-loss" or (log.singletons and alike)
    if settings.test == "binomial" and not exact:
        raise InvalidRequest(
            "the binomial test needs one step an episode, all logged with the same probability: choose betting"
        )
    if settings.test == "auto":
        return "binomial" if exact else "betting"
    return settings.test


def _of_test(test: Test, losses: Losses) -> tuple[np.ndarray, np.ndarray]:
    """The exact test needs draws that are one thing or the other; the others take averages over all draws."""
    return (losses.drawn_loss, losses.drawn_base) if test == "binomial" else (losses.loss, losses.base)


def _tested(made: list[_Chain], settings: Settings) -> list[list[multiple.Tested]]:
    if settings.method == "conformal":
        pairs = [(c.log, c.rules) for c in made]
        return conformal(pairs, settings.risk, settings.max_risk, _bills(settings)[0], settings.seed)

    def p(i: int, j: int) -> float:
        test = _test(made[i].log, settings)
        return FUNCTIONS[test](*_of_test(test, drawn(made[i].log, made[i].rules[j], settings.risk)), settings.max_risk)

    return multiple.certify([len(c.rules) for c in made], p, 1 - settings.confidence, settings.multiplicity)


def _upper(log: Columns, rule: Rule, settings: Settings) -> float:
    test = _test(log, settings)
    return upper_bound(test, *_of_test(test, drawn(log, rule, settings.risk)), 1 - settings.confidence)


def _bills(settings: Settings) -> list[Bill]:
    samplings = SAMPLINGS[:2] if settings.sampling == "auto" else (settings.sampling,)
    return [Bill(s, settings.discounts, settings.sample_cost, draft_tokens=settings.draft_tokens) for s in samplings]


def _more(made: list[_Chain], settings: Settings) -> int | None:
    """Episodes that are lacking, were further ones like those of the log: for the rule that needs fewest."""
    found: list[int] = []
    delta = (1 - settings.confidence) / len(made)
    for one in made:
        test = _test(one.log, settings)
        loss, base = _of_test(test, drawn(one.log, one.rules[0], settings.risk))
        low, high = 1, MORE  # so many times the log do not suffice, do suffice
        if FUNCTIONS[test](loss, base, settings.max_risk, high) > delta:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            enough = FUNCTIONS[test](loss, base, settings.max_risk, middle) <= delta
            low, high = (low, middle) if enough else (middle, high)
        found.append(one.log.clusters * (high - 1))
    return min(found, default=None)
