"""Logs of tier choices from elsewhere: JSON lines, plain objects, and what a live memory recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.routers.tier.log import TierLog
from agentcascade.types import MODULES, TIERS, Recall

Embed = Callable[[Sequence[str]], Any]
"""Texts to unit vectors (n, d)."""

FIELDS = ("question", "tiers", "score", "cost", "group", "propensity", "propensities", "metrics")


class _Row(NamedTuple):
    question: tuple[str, str]
    tiers: list[int]
    score: float
    cost: float
    propensity: float
    propensities: list[float]
    metrics: dict[str, float]


def from_rows(rows: Iterable[Mapping[str, Any]], embed: Embed, about: Mapping[str, Any] | None = None) -> TierLog:
    """A log of plain objects: question, tiers {module: tier}, score, cost; where known group, propensity (of all five
    tiers together), propensities {module: probability} and metrics {name: number}.

    Raises `InvalidRequest` naming row and field.
    """
    return _log(((f"row {number}", row) for number, row in enumerate(rows)), embed, about)


def from_jsonl(path: Path, embed: Embed, about: Mapping[str, Any] | None = None) -> TierLog:
    """The same, one object a line."""

    def lines() -> Iterator[tuple[str, Any]]:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield f"{path.name} line {number}", json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise InvalidRequest(f"{path.name} line {number} is not JSON: {error}") from None

    try:
        return _log(lines(), embed, about)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error


def to_jsonl(log: TierLog, path: Path) -> None:
    """One object a line, as `from_jsonl` reads them; vectors and `about` stay behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(_object(log, row)) + "\n" for row in range(len(log)))
    temporary.replace(path)


def from_recalls(
    scored: Iterable[tuple[Recall, float | None]],
    embed: Embed,
    about: Mapping[str, Any] | None = None,
    *,
    cost_unit: Literal["dollars", "milliseconds"] | None = None,
) -> TierLog:
    """What a live memory did, of those recalls that were scored and whose five modules ran.

    Costs are dollars if there were any, unless `cost_unit` says otherwise. A group is a history of a namespace.
    """
    known = [(recall, score) for recall, score in scored if score is not None and len(recall.runs) == len(MODULES)]
    unit = cost_unit or ("dollars" if any(recall.dollars != 0 for recall, _ in known) else "milliseconds")
    rows = []
    for recall, score in known:
        spent = {
            "dollars": math.nan if recall.dollars is None else float(recall.dollars),
            "milliseconds": sum(run.milliseconds for run in recall.runs),
        }
        if unit == "dollars" and recall.dollars is None:
            raise InvalidRequest(
                f"recall {recall.id}: its dollars are not known: set the model's price, or take cost_unit milliseconds"
            )
        row = {
            "question": recall.question,
            "group": f"{recall.namespace}/{recall.history}",
            "tiers": recall.tiers,
            "propensities": {run.module: run.probability for run in recall.runs},
            "score": score,
            "cost": spent[unit],
            "metrics": {**spent, "tokens": recall.tokens, "seconds": recall.seconds},
        }
        rows.append((f"recall {recall.id}", row))
    return _log(rows, embed, {"cost_unit": unit, **(about or {})})


def _log(rows: Iterable[tuple[str, Any]], embed: Embed, about: Mapping[str, Any] | None) -> TierLog:
    read = [_row(where, row) for where, row in rows]
    known: dict[tuple[str, str], int] = {}
    question = [known.setdefault(row.question, len(known)) for row in read]
    texts = [text for text, _ in known]
    query = np.asarray(embed(texts) if texts else np.zeros((0, 1)), dtype=np.float32)
    if query.ndim != 2 or len(query) != len(texts):
        raise InvalidRequest(f"the encoder made vectors of shape {query.shape} for {len(texts)} questions: one each")
    joint, parts = np.array([row.propensity for row in read]), np.array([row.propensities for row in read])
    names = sorted({name for row in read for name in row.metrics})
    return TierLog(
        questions=texts,
        groups=[group for _, group in known],
        query=query,
        question=np.array(question, dtype=np.int32),
        tiers=np.array([row.tiers for row in read], dtype=np.int8),
        propensity=None if np.isnan(joint).all() else joint,
        score=np.array([row.score for row in read]),
        cost=np.array([row.cost for row in read]),
        reads=np.full((len(read), 3), -1, dtype=np.int32),
        vectors=np.zeros((0, query.shape[1]), dtype=np.float16),
        metrics={name: np.array([row.metrics.get(name, math.nan) for row in read]) for name in names},
        about={"dimension": int(query.shape[1]), **(about or {})},
        propensities=None if np.isnan(parts).all() else parts,
    )


def _row(where: str, row: Any) -> _Row:
    """One row, checked."""
    if not isinstance(row, Mapping):
        raise InvalidRequest(f"{where} is no object with {', '.join(FIELDS[:4])}: {str(row)[:80]}")
    for name in FIELDS[:4]:
        if row.get(name) is None:
            raise InvalidRequest(f"{where} has no {name}: it needs {', '.join(FIELDS[:4])}")
    for name in row.keys() - set(FIELDS):
        raise InvalidRequest(f"{where}: the field '{name}' is unknown: {did_you_mean(str(name), FIELDS)}")
    for name, wanted in (("tiers", True), ("propensities", False), ("metrics", False)):
        if not isinstance(row.get(name), Mapping) and (wanted or row.get(name) is not None):
            raise InvalidRequest(f"{where}: {name} is {row[name]!r}: give an object of names and values")
    tiers = row["tiers"]
    _modules(where, "tiers", tiers)
    for module, tier in tiers.items():
        if tier not in TIERS:
            raise InvalidRequest(f"{where}: tiers.{module} is {tier!r}: {did_you_mean(str(tier), TIERS)}")
    score = _number(where, "score", row["score"])
    if not 0 <= score <= 1:
        raise InvalidRequest(f"{where}: score is {score}: scale it to 0 to 1")
    parts, joint = [math.nan] * len(MODULES), math.nan
    if (given := row.get("propensities")) is not None:
        _modules(where, "propensities", given)
        parts = [_chance(where, f"propensities.{module}", given[module]) for module in MODULES]
        joint = math.prod(parts)
    if (whole := row.get("propensity")) is not None:
        if given is not None and not math.isclose(joint, _chance(where, "propensity", whole), rel_tol=1e-6):
            raise InvalidRequest(f"{where}: propensity is {whole}, but propensities multiply to {joint:.6g}: give one")
        joint = _chance(where, "propensity", whole)
    if joint == 0:
        raise InvalidRequest(f"{where}: propensities multiply to 0, too small a number: leave the row out")
    text = str(row["question"])
    return _Row(
        question=(text, str(row.get("group", text))),
        tiers=[TIERS.index(tiers[module]) for module in MODULES],
        score=score,
        cost=_number(where, "cost", row["cost"]),
        propensity=joint,
        propensities=parts,
        metrics={
            str(k): _number(where, f"metrics.{k}", v, finite=False) for k, v in (row.get("metrics") or {}).items()
        },
    )


def _modules(where: str, name: str, given: Mapping[Any, Any]) -> None:
    """Raises unless `given` has exactly the five modules."""
    for module in given:
        if module not in MODULES:
            raise InvalidRequest(f"{where}: {name}.{module}: no such module: {did_you_mean(str(module), MODULES)}")
    if missing := [module for module in MODULES if module not in given]:
        raise InvalidRequest(f"{where}: {name} lacks {', '.join(missing)}: give all of {', '.join(MODULES)}")


def _number(where: str, name: str, value: Any, finite: bool = True) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise InvalidRequest(f"{where}: {name} is {value!r}: give a number") from None
    if finite and not math.isfinite(found):
        raise InvalidRequest(f"{where}: {name} is {found}: leave the row out, or score it again")
    return found


def _chance(where: str, name: str, value: Any) -> float:
    found = _number(where, name, value)
    if not 0 < found <= 1 + 1e-9:
        raise InvalidRequest(
            f"{where}: {name} is {found}: a probability above 0, or leave it out where it is not known"
        )
    return found


def _object(log: TierLog, row: int) -> dict[str, Any]:
    asked = int(log.question[row])
    found: dict[str, Any] = {
        "question": log.questions[asked],
        "group": log.groups[asked],
        "tiers": {module: TIERS[tier] for module, tier in zip(MODULES, log.tiers[row])},
        "score": float(log.score[row]),
        "cost": float(log.cost[row]),
    }
    if log.propensities is not None and not np.isnan(log.propensities[row]).any():
        found["propensities"] = dict(zip(MODULES, log.propensities[row].tolist()))
    elif log.propensity is not None and not np.isnan(log.propensity[row]):
        found["propensity"] = float(log.propensity[row])
    if log.metrics:
        found["metrics"] = {k: float(v[row]) for k, v in log.metrics.items() if not np.isnan(v[row])}
    return found
