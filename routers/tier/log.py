"""Tier choices that were made, what came of them and what they cost: what routers are trained and judged on."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.errors import InvalidRequest, describe, did_you_mean
from agentcascade.memory.types import State
from agentcascade.routers.tier.outcome_table import COMBINATIONS, PLACES
from agentcascade.types import MODULES, TIERS, ModuleName, Tier

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentcascade.memory.types import Vector

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

FORMAT = 1
STAGES = (0, 1, 1, 1, 2)
"""By module: which column of `TierLog.reads` it was chosen on."""
UNKNOWN = (
    "the log lacks propensities: log with memory.router random or memory.explore above 0, which record them, "
    "or pass assume_uniform=True if all 243 combinations were drawn alike"
)


@dataclass(frozen=True, eq=False)
class TierLog:
    """N rows on n questions. Raises `InvalidRequest` for what cannot be learned from, naming row and field."""

    questions: list[str]
    groups: list[str]
    """By question: the conversation or tenant, which is never split between training and test."""
    query: Vector
    """(n, d), unit vectors of the questions"""
    question: NDArray[np.int32]
    """(N,), index of each row's question"""
    tiers: NDArray[np.int8]
    """(N, 5), 0 to 2, in the order of `MODULES`"""
    propensity: Floats | None
    """(N,), joint probability with which the tiers were chosen; NaN where it is not known"""
    score: Floats
    """(N,), 0 to 1"""
    cost: Floats
    """(N,), in ``about["cost_unit"]``"""
    reads: NDArray[np.int32]
    """(N, 3), rows of `vectors` that were read at the filter, by the extractors, by the summary; -1: not known"""
    vectors: NDArray[np.float16]
    """(m, d)"""
    metrics: dict[str, Floats] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    propensities: Floats | None = None
    """(N, 5), the factors of `propensity` by module, where a log has them"""

    def __post_init__(self) -> None:
        rows, asked = len(self.question), len(self.questions)
        if not rows:
            raise InvalidRequest("the log is empty: collect one with `agentcascade memory train --data ...`")
        shapes: dict[str, tuple[Any, Any]] = {
            "groups": (len(self.groups), asked),
            "query": (self.query.shape[:1], (asked,)),
            "tiers": (self.tiers.shape, (rows, 5)),
            "score": (self.score.shape, (rows,)),
            "cost": (self.cost.shape, (rows,)),
            "reads": (self.reads.shape, (rows, 3)),
            "vectors": (self.vectors.shape[1:], self.query.shape[1:]),
            **{f"metric {name}": (values.shape, (rows,)) for name, values in self.metrics.items()},
        }
        if self.propensity is not None:
            shapes["propensity"] = (self.propensity.shape, (rows,))
        if self.propensities is not None:
            shapes["propensities"] = (self.propensities.shape, (rows, 5))
        for name, (found, wanted) in shapes.items():
            if found != wanted:
                raise InvalidRequest(
                    f"the log's {name} has size {found}, not {wanted}: embed and log all of it with one encoder"
                )
        if not np.isfinite(self.query).all():
            worst = int(np.argmin(np.isfinite(self.query).all(axis=1)))
            raise InvalidRequest(f"question {worst}: its vector holds values that are no numbers: embed it again")
        self._check("question", (self.question < 0) | (self.question >= asked), "names no question")
        self._check("tiers", (self.tiers < 0) | (self.tiers > 2), "are not all 0, 1 or 2 (low, mid, high)")
        self._check("reads", (self.reads < -1) | (self.reads >= len(self.vectors)), "name no vector: use -1")
        self._check("score", ~np.isfinite(self.score), "is no number: leave the row out, or score it again")
        self._check("score", (self.score < 0) | (self.score > 1), "is not between 0 and 1: scale it")
        self._check("cost", ~np.isfinite(self.cost), "is no number: leave the row out")
        for name in ("propensity", "propensities"):
            if (values := getattr(self, name)) is not None:
                bad = ~np.isnan(values) & ((values <= 0) | (values > 1 + 1e-9))
                self._check(name, bad, "is no probability above 0: leave it out where it is not known")
        if self.propensity is not None and self.propensities is not None:
            apart = np.abs(self.propensities.prod(axis=1) / self.propensity - 1) > 1e-6
            self._check("propensity", apart, "is not the product of the propensities by module: leave one out")

    def _check(self, name: str, bad: Any, complaint: str) -> None:
        if bad.any():
            row = int(np.argmax(bad if bad.ndim == 1 else bad.any(axis=1)))
            raise InvalidRequest(f"row {row}: {name} {getattr(self, name)[row]} {complaint}")

    def __len__(self) -> int:
        return len(self.question)

    @property
    def combinations(self) -> Ints:
        """(N,), 0 to 242: the five tiers as digits, the filter's first."""
        found: Ints = self.tiers.astype(np.int64) @ PLACES
        return found

    @property
    def is_sweep(self) -> bool:
        """Whether every question has each of the 243 combinations once."""
        cells = len(self.questions) * COMBINATIONS
        return len(self) == cells and bool((np.bincount(self._cells(), minlength=cells) == 1).all())

    def _cells(self) -> Ints:
        found: Ints = self.question.astype(np.int64) * COMBINATIONS + self.combinations
        return found

    def table_rows(self) -> Ints:
        """(n, 243), the row of every combination of every question. Raises `InvalidRequest` without a sweep."""
        if not self.is_sweep:
            raise InvalidRequest(
                f"the log has {len(self)} rows of {len(self.questions)} questions, not all {COMBINATIONS} "
                "combinations of each, which this needs: log a sweep, or use an estimate"
            )
        rows = np.empty(len(self), dtype=np.int64)
        rows[self._cells()] = np.arange(len(self))
        return rows.reshape(-1, COMBINATIONS)

    def tables(self) -> tuple[Floats, Floats]:
        """Scores and costs (n, 243) of a sweep."""
        rows = self.table_rows()
        return self.score[rows], self.cost[rows]

    def state(self, row: int, module: ModuleName) -> State:
        """What the tier of `module` was chosen on; zeros for what the log does not hold."""
        return self.state_at(int(self.question[row]), int(self.reads[row, STAGES[MODULES.index(module)]]))

    def state_at(self, question: int, read: int) -> State:
        """A question before row `read` of `vectors`, or before nothing that is known (-1)."""
        vector = np.zeros(self.query.shape[1], np.float32) if read < 0 else self.vectors[read].astype(np.float32)
        return State(self.questions[question], self.query[question], vector)

    def known_propensity(self, assume_uniform: bool = False) -> Floats:
        """(N,); raises `InvalidRequest` where one is missing, or takes it to be 1/243 with `assume_uniform`."""
        found = self.propensity
        if found is None:
            found = np.full(len(self), np.nan) if self.propensities is None else self.propensities.prod(axis=1)
        gaps = np.isnan(found)
        if assume_uniform:
            return np.where(gaps, 1 / COMBINATIONS, found)
        if gaps.any():
            raise InvalidRequest(f"{UNKNOWN} (missing in {int(gaps.sum())} of {len(self)}, first row {gaps.argmax()})")
        return found

    def rows_of(self, question: int) -> Ints:
        """Where a question's rows are."""
        return np.flatnonzero(self.question == question)

    def select(self, questions: Sequence[int] | Ints) -> TierLog:
        """These questions alone, with their rows, in the order given; or those where a mask (n,) is true."""
        wanted = np.asarray(questions)
        wanted = np.flatnonzero(wanted) if wanted.dtype == bool else wanted.astype(np.int64)
        if len(np.unique(wanted)) < len(wanted):
            raise InvalidRequest("a question is named twice: select each once")
        new = np.full(len(self.questions), -1, dtype=np.int64)
        new[wanted] = np.arange(len(wanted))
        rows = np.flatnonzero(new[self.question] >= 0)
        return replace(
            self.rows(rows),
            questions=[self.questions[i] for i in wanted],
            groups=[self.groups[i] for i in wanted],
            query=self.query[wanted],
            question=new[self.question[rows]].astype(np.int32),
        )

    def rows(self, rows: Ints) -> TierLog:
        """These rows alone, of all questions."""
        return replace(
            self,
            question=self.question[rows],
            tiers=self.tiers[rows],
            propensity=None if self.propensity is None else self.propensity[rows],
            propensities=None if self.propensities is None else self.propensities[rows],
            score=self.score[rows],
            cost=self.cost[rows],
            reads=self.reads[rows],
            metrics={name: values[rows] for name, values in self.metrics.items()},
        )

    def split(self, parts: Sequence[float] | Sequence[Collection[str]], seed: int = 0) -> tuple[TierLog, ...]:
        """One log for each of `parts`, which are lists of groups, or shares of all groups, drawn with `seed`."""
        names = sorted(set(self.groups))
        lists = _drawn(names, parts, seed) if all(isinstance(p, int | float) for p in parts) else list(parts)
        taken: set[str] = set()
        found = []
        for part in lists:
            assert isinstance(part, Collection)
            for name in part:
                if name not in names:
                    raise InvalidRequest(f"the log has no group '{name}': {did_you_mean(name, names)}")
                if name in taken:
                    raise InvalidRequest(f"the group '{name}' is in two parts: a group is never split")
            taken |= set(part)
            found.append(self.select([i for i, group in enumerate(self.groups) if group in set(part)]))
        return tuple(found)

    def save(self, path: Path) -> None:
        """One ``.npz`` file, written whole or not at all, with those vectors alone that are read."""
        used = np.unique(self.reads[self.reads >= 0])
        places = np.full(len(self.vectors) + 1, -1, dtype=np.int32)
        places[used] = np.arange(len(used))
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ARRAYS}
        arrays |= {"reads": places[self.reads], "vectors": self.vectors[used] if len(used) else self.vectors[:0]}
        arrays |= {name: getattr(self, name) for name in OPTIONAL if getattr(self, name) is not None}
        arrays |= {f"metric:{name}": values for name, values in self.metrics.items()}
        about = {"format": FORMAT, "questions": self.questions, "groups": self.groups, "about": self.about}
        texts = np.frombuffer(json.dumps(about, default=str).encode(), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp.npz")
        np.savez(temporary, texts=texts, **arrays)
        temporary.replace(path)


ARRAYS = ("query", "question", "tiers", "score", "cost", "reads", "vectors")
OPTIONAL = ("propensity", "propensities")


def load(path: Path) -> TierLog:
    """A log written by `TierLog.save`; raises `InvalidRequest` for another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            texts = json.loads(file["texts"].tobytes())
            arrays = {name: file[name] for name in (*ARRAYS, *OPTIONAL) if name in file.files or name in ARRAYS}
            metrics = {name.removeprefix("metric:"): file[name] for name in file.files if name.startswith("metric:")}
        if (version := texts.pop("format", FORMAT)) != FORMAT:
            raise InvalidRequest(f"it has format {version}, this version reads {FORMAT}")
    except FileNotFoundError:
        raise InvalidRequest(f"there is no log {path}") from None
    except Exception as error:
        raise InvalidRequest(f"{path} is no log of tier choices ({describe(error)})") from error
    return TierLog(**texts, **{"propensity": None, **arrays}, metrics=metrics)


def combination(tiers: Sequence[Tier] | Sequence[int]) -> int:
    """The number, 0 to 242, of five tiers by name or place, in the order of `MODULES`."""
    return sum(3 ** (4 - i) * (TIERS.index(t) if isinstance(t, str) else int(t)) for i, t in enumerate(tiers))


def tiers_of(number: int) -> tuple[Tier, ...]:
    """The five tiers of a combination's number."""
    return tuple(TIERS[number // place % 3] for place in PLACES)


def _drawn(names: Sequence[str], shares: Sequence[Any], seed: int) -> list[list[str]]:
    if not shares or min(shares) <= 0 or sum(shares) > 1 + 1e-9:
        raise InvalidRequest(f"shares are {list(shares)}: give numbers above 0 that sum to 1 at most")
    if len(names) < len(shares):
        raise InvalidRequest(f"the log has {len(names)} group(s) for {len(shares)} parts: a group is never split")
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    cuts = [0]
    for i, total in enumerate(np.cumsum(shares), 1):
        most = len(names) - (len(shares) - i)
        cuts.append(min(most, max(cuts[-1] + 1, round(float(total) * len(names)))))
    return [order[a:b] for a, b in pairwise(cuts)]
