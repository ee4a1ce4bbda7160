"""Replay of tier routers on logged states: their probabilities, their exact value on a sweep, and simulated logs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from agentcascade.errors import InvalidRequest
from agentcascade.memory.combinations import COMBINATIONS, PLACES, STAGES
from agentcascade.memory.types import Probabilities, TierRouter
from agentcascade.routers.tier.log import TierLog
from agentcascade.routers.tier.outcome_table import Reward
from agentcascade.types import MODULES, TIERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentcascade.routers.tier.outcome_table import Floats, Ints

    Value: TypeAlias = "Literal['score', 'cost', 'reward'] | Reward | Callable[[Floats, Floats], Any]"


class RouterAnswers:
    """Cached probabilities of a router at the states of a log."""

    def __init__(self, log: TierLog, router: TierRouter, tradeoff: float) -> None:
        self.log = log
        self.router = router
        self.tradeoff = tradeoff
        self._known: dict[tuple[int, int, int], Probabilities] = {}

    def at(self, question: int, place: int, read: int) -> Probabilities:
        """Probabilities for the module at `place` of a question that would read row `read` of the log's vectors."""
        key = question, place, read
        if key not in self._known:
            module = MODULES[place]
            probabilities = self.router.probabilities(module, self.log.state_at(question, read), self.tradeoff)
            # Not "sum > ...": NaN must fail as well.
            if len(probabilities) != len(TIERS) or not (
                min(probabilities) >= 0 and math.isclose(sum(probabilities), 1, abs_tol=1e-4)
            ):
                raise InvalidRequest(
                    f"the router {self.router.name} gave {tuple(probabilities)} for {module}: "
                    f"{len(TIERS)} probabilities that sum to 1"
                )
            self._known[key] = probabilities
        return self._known[key]

    def rows(self) -> Floats:
        """Probabilities (N, modules, tiers) at the states of all rows."""
        probabilities = np.empty((len(self.log), len(MODULES), len(TIERS)))
        for place in range(len(MODULES)):
            reads = self.log.reads[:, STAGES[place]].astype(np.int64)
            span = len(self.log.vectors) + 1
            states, where = np.unique(self.log.question * np.int64(span) + reads + 1, return_inverse=True)
            pairs = zip((states // span).tolist(), (states % span - 1).tolist())
            probabilities[:, place] = np.array([self.at(question, place, read) for question, read in pairs])[where]
        return probabilities


def row_values(log: TierLog, value: Value, tradeoff: float) -> Floats:
    """Values (N,) of the rows that an estimate is of."""
    if value == "score" or value == "cost":
        raw_values: Any = getattr(log, value)
    elif value == "reward":
        raw_values = Reward.of(log.score, log.cost)(log.score, log.cost, tradeoff)
    elif isinstance(value, Reward):
        raw_values = value(log.score, log.cost, tradeoff)
    elif callable(value):
        raw_values = value(log.score, log.cost)
    else:
        raise InvalidRequest(f"value is {value!r}: 'score', 'cost', 'reward', a Reward, or a function of (score, cost)")
    values = np.asarray(raw_values, dtype=np.float64)
    if values.shape != log.score.shape or not np.isfinite(values).all():
        raise InvalidRequest("value gave no finite number for each row: check the function that it is")
    return values


@dataclass(frozen=True, eq=False)
class ExactValue:
    """Exact value of a router on the questions of a sweep."""

    value: float
    score: float
    cost: float
    values: Floats
    """(n,), of each question"""
    chances: Floats
    """(n, combinations), of each combination"""


def exact_value(sweep: TierLog, router: TierRouter, tradeoff: float = 0.0, value: Value = "score") -> ExactValue:
    """Exact value of a router on a sweep, summed over its paths through the table and their probabilities."""
    rows, final = sweep.table_rows(), len(MODULES) - 1
    answers, chances = RouterAnswers(sweep, router, tradeoff), np.zeros((len(rows), COMBINATIONS))
    for question, reads in enumerate(sweep.reads[rows]):
        for first, p_first in _possible_tiers(answers.at(question, 0, int(reads[0, 0]))):
            filtered_read = int(reads[PLACES[0] * first, 1])
            middle = [_possible_tiers(answers.at(question, place, filtered_read)) for place in range(1, final)]
            for path in product(*middle):
                number = PLACES[0] * first + sum(place * tier for place, (tier, _) in zip(PLACES[1:], path))
                chance = math.prod((p for _, p in path), start=p_first)
                last = answers.at(question, final, int(reads[number, 2]))
                chances[question, number : number + len(TIERS)] = [chance * p for p in last]

    def mean(of: Floats) -> Floats:
        means: Floats = (chances * of[rows]).sum(axis=1)
        return means

    values = mean(row_values(sweep, value, tradeoff))
    return ExactValue(
        float(values.mean()), float(mean(sweep.score).mean()), float(mean(sweep.cost).mean()), values, chances
    )


def _possible_tiers(probabilities: Probabilities) -> list[tuple[int, float]]:
    return [(tier, p) for tier, p in enumerate(probabilities) if p > 0]


def simulate_log(
    sweep: TierLog,
    behaviour: TierRouter | Literal["uniform"] = "uniform",
    seed: int = 0,
    *,
    tradeoff: float = 0.0,
    explore: float = 0.0,
    times: int = 1,
) -> TierLog:
    """Simulate the log of a memory under `behaviour`: `times` rows of each question of a sweep, with propensities.

    `explore` mixes in uniform tiers, as the memory itself does.
    """
    if not 0 <= explore <= 1 or times < 1:
        raise InvalidRequest(f"explore is {explore} and times is {times}: from 0 to 1, and 1 at least")
    rows, rng = sweep.table_rows(), np.random.default_rng(seed)
    answers = None if behaviour == "uniform" else RouterAnswers(sweep, behaviour, tradeoff)
    questions: Ints = np.repeat(np.arange(len(rows)), times)
    shape = len(questions), len(MODULES)
    tiers, propensities = np.zeros(shape, dtype=np.int64), np.full(shape, 1 / len(TIERS))
    draws = rng.random(shape)
    if answers is None:
        tiers = (draws * len(TIERS)).astype(np.int64)
    else:
        for row, question in enumerate(questions.tolist()):
            for place in range(len(MODULES)):
                # What is read depends only on the tiers before, so any combination that begins with them will do.
                read = int(sweep.reads[rows[question, tiers[row] @ PLACES], STAGES[place]])
                mixed = (1 - explore) * np.array(answers.at(question, place, read)) + explore / len(TIERS)
                mixed /= mixed.sum()
                tiers[row, place] = min(
                    len(TIERS) - 1, int(np.searchsorted(mixed.cumsum(), draws[row, place], side="right"))
                )
                propensities[row, place] = mixed[tiers[row, place]]
    logged = sweep.rows(rows[questions, tiers @ PLACES])
    about = {**sweep.about, "behaviour": behaviour if answers is None else answers.router.name, "seed": seed}
    return replace(logged, propensity=propensities.prod(axis=1), propensities=propensities, about=about)


def module_propensities(log: TierLog, propensity: NDArray[np.float64]) -> Floats | None:
    """Propensities (N, modules) by module where the log has them or all combinations were equally likely, else None."""
    if log.propensities is not None and not np.isnan(log.propensities).any():
        return log.propensities
    return np.full((len(log), len(MODULES)), 1 / len(TIERS)) if np.allclose(propensity, 1 / COMBINATIONS) else None
