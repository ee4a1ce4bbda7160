"""`TierLog`: logged tier choices with their scores, costs and propensities, which tier routers are trained on."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade._util.files import replaceable
from agentcascade.errors import InvalidRequest, describe, did_you_mean
from agentcascade.memory.combinations import COMBINATIONS, PLACES, STAGES
from agentcascade.memory.types import State
from agentcascade.types import MODULES, TIERS, ModuleName

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentcascade.memory.types import Vector

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

FORMAT = 1
"""By module, the column of `TierLog.reads` that its tier was chosen on"""
NO_PROPENSITIES = (
    "the log lacks propensities: log with memory.router random or memory.explore above 0, which record them, "
    "or pass assume_uniform=True if all combinations were drawn alike"
)


@dataclass(frozen=True, eq=False)
class TierLog:
    """Log of tier choices: N rows on n questions. Raises `InvalidRequest` naming the row and field that are wrong."""

    questions: list[str]
    groups: list[str]
    """Group of each question (conversation or tenant), which is never split between training and test"""
    query: Vector
    """(n, d), unit vectors of the questions"""
    question: NDArray[np.int32]
    """(N,), index of each row's question"""
    tiers: NDArray[np.int8]
    """(N, modules), indices of `TIERS`, in the order of `MODULES`"""
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
    """(N, modules), the factors of `propensity` by module, where a log has them"""

    def __post_init__(self) -> None:
        rows, question_count = len(self.question), len(self.questions)
        if not rows:
            raise InvalidRequest("the log is empty: collect one with `agentcascade memory train --data ...`")
        shapes: dict[str, tuple[Any, Any]] = {
            "groups": (len(self.groups), question_count),
            "query": (self.query.shape[:1], (question_count,)),
            "tiers": (self.tiers.shape, (rows, len(MODULES))),
            "score": (self.score.shape, (rows,)),
            "cost": (self.cost.shape, (rows,)),
            "reads": (self.reads.shape, (rows, 3)),
            "vectors": (self.vectors.shape[1:], self.query.shape[1:]),
            **{f"metric {name}": (values.shape, (rows,)) for name, values in self.metrics.items()},
        }
        if self.propensity is not None:
            shapes["propensity"] = (self.propensity.shape, (rows,))
        if self.propensities is not None:
            shapes["propensities"] = (self.propensities.shape, (rows, len(MODULES)))
        for name, (size, wanted) in shapes.items():
            if size != wanted:
                raise InvalidRequest(
                    f"the log's {name} has size {size}, not {wanted}: embed and log all of it with one encoder"
                )
        if not np.isfinite(self.query).all():
            worst = int(np.argmin(np.isfinite(self.query).all(axis=1)))
            raise InvalidRequest(f"question {worst}: its vector holds values that are no numbers: embed it again")
        self._check("question", (self.question < 0) | (self.question >= question_count), "names no question")
        self._check("tiers", (self.tiers < 0) | (self.tiers >= len(TIERS)), "are not all 0, 1 or 2 (low, mid, high)")
        self._check("reads", (self.reads < -1) | (self.reads >= len(self.vectors)), "name no vector: use -1")
        self._check("score", ~np.isfinite(self.score), "is no number: leave the row out, or score it again")
        self._check("score", (self.score < 0) | (self.score > 1), "is not between 0 and 1: scale it")
        self._check("cost", ~np.isfinite(self.cost), "is no number: leave the row out")
        for name in ("propensity", "propensities"):
            if (values := getattr(self, name)) is not None:
                bad = ~np.isnan(values) & ((values <= 0) | (values > 1 + 1e-9))
                self._check(name, bad, "is no probability above 0: leave it out where it is not known")
        if self.propensity is not None and self.propensities is not None:
            differing = np.abs(self.propensities.prod(axis=1) / self.propensity - 1) > 1e-6
            self._check("propensity", differing, "is not the product of the propensities by module: leave one out")

    def _check(self, name: str, bad: Any, complaint: str) -> None:
        if bad.any():
            row = int(np.argmax(bad if bad.ndim == 1 else bad.any(axis=1)))
            raise InvalidRequest(f"row {row}: {name} {getattr(self, name)[row]} {complaint}")

    def __len__(self) -> int:
        return len(self.question)

    @property
    def combinations(self) -> Ints:
        """Numbers (N,) of the rows' tier combinations: the tiers as digits of base three, the filter's first."""
        numbers: Ints = self.tiers.astype(np.int64) @ PLACES
        return numbers

    @property
    def is_sweep(self) -> bool:
        """Whether every question has each combination of tiers once."""
        cells = len(self.questions) * COMBINATIONS
        return len(self) == cells and bool((np.bincount(self._cells(), minlength=cells) == 1).all())

    def _cells(self) -> Ints:
        cells: Ints = self.question.astype(np.int64) * COMBINATIONS + self.combinations
        return cells

    def table_rows(self) -> Ints:
        """Rows (n, combinations) of a sweep by question and combination. Raises `InvalidRequest` for another log."""
        if not self.is_sweep:
            raise InvalidRequest(
                f"the log has {len(self)} rows of {len(self.questions)} questions, not all {COMBINATIONS} "
                "combinations of each, which this needs: log a sweep, or use an estimate"
            )
        rows = np.empty(len(self), dtype=np.int64)
        rows[self._cells()] = np.arange(len(self))
        return rows.reshape(-1, COMBINATIONS)

    def tables(self) -> tuple[Floats, Floats]:
        """Scores and costs (n, combinations) of a sweep."""
        rows = self.table_rows()
        return self.score[rows], self.cost[rows]

    def state(self, row: int, module: ModuleName) -> State:
        """State that a row's tier of `module` was chosen on; zeros for vectors that the log does not hold."""
        return self.state_at(int(self.question[row]), int(self.reads[row, STAGES[MODULES.index(module)]]))

    def state_at(self, question: int, read: int) -> State:
        """State of a question with row `read` of `vectors`; -1 for a vector that is not known."""
        vector = np.zeros(self.query.shape[1], np.float32) if read < 0 else self.vectors[read].astype(np.float32)
        return State(self.questions[question], self.query[question], vector)

    def known_propensity(self, assume_uniform: bool = False) -> Floats:
        """Propensities (N,); a missing one is uniform with `assume_uniform`, else it raises `InvalidRequest`."""
        propensity = self.propensity
        if propensity is None:
            propensity = np.full(len(self), np.nan) if self.propensities is None else self.propensities.prod(axis=1)
        gaps = np.isnan(propensity)
        if assume_uniform:
            return np.where(gaps, 1 / COMBINATIONS, propensity)
        if gaps.any():
            raise InvalidRequest(
                f"{NO_PROPENSITIES} (missing in {int(gaps.sum())} of {len(self)}, first row {gaps.argmax()})"
            )
        return propensity

    def rows_of(self, question: int) -> Ints:
        """Indices of a question's rows."""
        return np.flatnonzero(self.question == question)

    def select(self, questions: Sequence[int] | Ints) -> TierLog:
        """Log of some questions, by indices in the order given, or by a mask (n,)."""
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
        """Log of some rows, with all questions."""
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
        """Split by group, one log for each of `parts`: lists of groups, or shares of the groups drawn with `seed`."""
        names = sorted(set(self.groups))
        lists = _draw_groups(names, parts, seed) if all(isinstance(p, int | float) for p in parts) else list(parts)
        assigned: set[str] = set()
        logs = []
        for part in lists:
            assert isinstance(part, Collection)
            for name in part:
                if name not in names:
                    raise InvalidRequest(f"the log has no group '{name}': {did_you_mean(name, names)}")
                if name in assigned:
                    raise InvalidRequest(f"the group '{name}' is in two parts: a group is never split")
            assigned |= set(part)
            logs.append(self.select([i for i, group in enumerate(self.groups) if group in set(part)]))
        return tuple(logs)

    def save(self, path: Path) -> None:
        """Write one ``.npz`` file, whole or not at all, with the vectors that rows refer to."""
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
        path = replaceable(path)
        temporary = path.with_name(path.name + ".tmp.npz")
        np.savez(temporary, texts=texts, **arrays)
        temporary.replace(path)


ARRAYS = ("query", "question", "tiers", "score", "cost", "reads", "vectors")
OPTIONAL = ("propensity", "propensities")


def load_log(path: Path) -> TierLog:
    """Read a log written by `TierLog.save`; raises `InvalidRequest` for another file."""
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


def _draw_groups(names: Sequence[str], shares: Sequence[Any], seed: int) -> list[list[str]]:
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
