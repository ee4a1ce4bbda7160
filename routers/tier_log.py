"""Tier choices that were made, what came of them and what they cost: what routers are trained and judged on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.errors import InvalidRequest, describe, did_you_mean
from agentcascade.memory.types import MODULES, TIERS, ModuleName, Recall, State

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentcascade.memory.types import Vector

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

COMBINATIONS = 243
PLACES = np.array([81, 27, 9, 3, 1])

Embed = Callable[[Sequence[str]], Any]
"""Texts to unit vectors (n, d)."""


@dataclass(frozen=True)
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

    def __post_init__(self) -> None:
        rows, asked = len(self.question), len(self.questions)
        if not rows:
            raise InvalidRequest("the log is empty: collect one with `agentcascade memory train --data ...`")
        shapes = {
            "groups": (len(self.groups), asked),
            "query": (len(self.query), asked),
            "tiers": (self.tiers.shape, (rows, 5)),
            "score": (self.score.shape, (rows,)),
            "cost": (self.cost.shape, (rows,)),
            "reads": (self.reads.shape, (rows, 3)),
            "vectors": (self.vectors.shape[1:], self.query.shape[1:]),
        }
        for name, (found, wanted) in shapes.items():
            if found != wanted:
                raise InvalidRequest(
                    f"the log's {name} has size {found}, not {wanted}: it was not written by this version"
                )
        self._check("score", ~np.isfinite(self.score), "is no number: leave the row out, or score it again")
        self._check("score", (self.score < 0) | (self.score > 1), "is not between 0 and 1")
        self._check("cost", ~np.isfinite(self.cost), "is no number: leave the row out")
        self._check("question", (self.question < 0) | (self.question >= asked), "names no question")
        if ((self.tiers < 0) | (self.tiers > 2)).any():
            raise InvalidRequest("the log's tiers are not all 0, 1 or 2 (low, mid, high)")
        if self.propensity is not None:
            known = ~np.isnan(self.propensity)
            bad = known & ((self.propensity <= 0) | (self.propensity > 1 + 1e-9))
            self._check("propensity", bad, "is no probability above 0: leave it out where it is not known")

    def _check(self, name: str, bad: Any, complaint: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
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
        if len(self) != COMBINATIONS * len(self.questions):
            return False
        return len(np.unique(self.question.astype(np.int64) * COMBINATIONS + self.combinations)) == len(self)

    def state(self, row: int, module: ModuleName) -> State:
        """What the tier of `module` was chosen on; zeros for what the log does not hold."""
        place = MODULES.index(module)
        read = int(self.reads[row, 0 if place == 0 else 2 if place == 4 else 1])
        asked = int(self.question[row])
        vector = np.zeros(self.query.shape[1], np.float32) if read < 0 else self.vectors[read].astype(np.float32)
        return State(self.questions[asked], self.query[asked], vector)

    def known_propensity(self) -> Floats:
        """(N,); raises `InvalidRequest` where one is missing."""
        missing = "the log lacks propensities: log with memory.explore above 0 or router 'random', which record them"
        if self.propensity is None:
            raise InvalidRequest(missing)
        gaps = np.isnan(self.propensity)
        if gaps.any():
            raise InvalidRequest(f"{missing} (first missing: row {int(np.argmax(gaps))} of {len(self)})")
        return self.propensity

    def select(self, questions: Sequence[int] | Ints) -> TierLog:
        """These questions alone, with their rows, in the order given."""
        wanted = np.asarray(questions, dtype=np.int64)
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
            score=self.score[rows],
            cost=self.cost[rows],
            reads=self.reads[rows],
            metrics={name: values[rows] for name, values in self.metrics.items()},
        )

    def save(self, path: Path) -> None:
        """One ``.npz`` file, written whole or not at all."""
        texts = json.dumps(
            {"questions": self.questions, "groups": self.groups, "about": self.about}, ensure_ascii=False
        )
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ARRAYS}
        arrays |= {f"metric:{name}": values for name, values in self.metrics.items()}
        if self.propensity is not None:
            arrays["propensity"] = self.propensity
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp.npz")
        np.savez(temporary, texts=np.frombuffer(texts.encode("utf-8", "replace"), dtype=np.uint8), **arrays)
        temporary.replace(path)


ARRAYS = ("query", "question", "tiers", "score", "cost", "reads", "vectors")


def load(path: Path) -> TierLog:
    """A log written by `TierLog.save`; raises `InvalidRequest` for another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            texts = json.loads(file["texts"].tobytes().decode())
            metrics = {name.removeprefix("metric:"): file[name] for name in file.files if name.startswith("metric:")}
            propensity = file["propensity"] if "propensity" in file.files else None
            arrays = {name: file[name] for name in ARRAYS}
    except FileNotFoundError:
        raise InvalidRequest(f"there is no log {path}") from None
    except Exception as error:
        raise InvalidRequest(f"{path} is no log of tier choices ({describe(error)})") from error
    return TierLog(**texts, **arrays, propensity=propensity, metrics=metrics)


def from_rows(rows: Iterable[Mapping[str, Any]], embed: Embed, about: Mapping[str, Any] | None = None) -> TierLog:
    """A log of plain objects: question, tiers {module: tier}, score, cost, and where known group and propensity (joint,
    or {module: probability}). Raises `InvalidRequest` naming the row."""
    known: dict[tuple[str, str], int] = {}
    question, tiers, score, cost, propensity = [], [], [], [], []
    for number, row in enumerate(rows):
        try:
            text, group = str(row["question"]), str(row.get("group", row["question"]))
            chosen = [_tier(row["tiers"][module]) for module in MODULES]
            score.append(float(row["score"]))
            cost.append(float(row["cost"]))
            chance = row.get("propensity")
            if isinstance(chance, Mapping):
                chance = float(np.prod([float(chance[module]) for module in MODULES]))
            propensity.append(float("nan") if chance is None else float(chance))
        except KeyError as error:
            raise InvalidRequest(
                f"row {number} lacks {error}: it needs question, tiers of {', '.join(MODULES)}, score, cost"
            ) from None
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidRequest(f"row {number}: {error}") from error
        question.append(known.setdefault((text, group), len(known)))
        tiers.append(chosen)
    texts = [text for text, _ in known]
    vectors = np.asarray(embed(texts), dtype=np.float32) if texts else np.zeros((0, 1), np.float32)
    return TierLog(
        questions=texts,
        groups=[group for _, group in known],
        query=vectors,
        question=np.array(question, dtype=np.int32),
        tiers=np.array(tiers, dtype=np.int8).reshape(-1, 5),
        propensity=np.array(propensity) if not np.isnan(propensity).all() else None,
        score=np.array(score),
        cost=np.array(cost),
        reads=np.full((len(question), 3), -1, dtype=np.int32),
        vectors=np.zeros((0, vectors.shape[1]), dtype=np.float16),
        about={"dimension": int(vectors.shape[1]), **(about or {})},
    )


def from_jsonl(path: Path, embed: Embed, about: Mapping[str, Any] | None = None) -> TierLog:
    """A foreign log, one object a line; see `from_rows`."""

    def lines() -> Iterable[Mapping[str, Any]]:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except ValueError as error:
                        raise InvalidRequest(f"{path} line {number} is not JSON: {error}") from None

    try:
        return from_rows(lines(), embed, about)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error


def from_recalls(scored: Iterable[tuple[Recall, float | None]], embed: Embed) -> TierLog:
    """What a live memory did, of the recalls that were scored; costs are dollars if any, else milliseconds."""
    known = [(recall, score) for recall, score in scored if score is not None and len(recall.runs) == len(MODULES)]
    paid = any(recall.dollars for recall, _ in known)
    rows = [
        {
            "question": recall.question,
            "group": f"{recall.namespace}/{recall.history}",
            "tiers": dict(recall.tiers),
            "propensity": {run.module: run.probability for run in recall.runs},
            "score": score,
            "cost": float(recall.dollars or 0) if paid else sum(run.milliseconds for run in recall.runs),
        }
        for recall, score in known
    ]
    return from_rows(rows, embed, {"cost_unit": "dollars" if paid else "milliseconds"})


def _tier(name: Any) -> int:
    if name not in TIERS:
        raise InvalidRequest(f"'{name}' is no tier: {did_you_mean(str(name), TIERS)}")
    return TIERS.index(name)
