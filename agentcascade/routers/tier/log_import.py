"""Import tier logs from JSON lines, plain objects, and the recalls of a live memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from agentcascade._util.files import replaceable
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
    """Tier log of plain objects: question, tiers {module: tier}, score, cost; optional are group, propensity (of all
    tiers together), propensities {module: probability} and metrics {name: number}.

    Raises `InvalidRequest` naming row and field.
    """
    return _build_log(((f"row {number}", row) for number, row in enumerate(rows)), embed, about)


def from_jsonl(path: Path, embed: Embed, about: Mapping[str, Any] | None = None) -> TierLog:
    """Tier log of a JSONL file with one such object a line."""

    def lines() -> Iterator[tuple[str, Any]]:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield f"{path.name} line {number}", json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise InvalidRequest(f"{path.name} line {number} is not JSON: {error}") from None

    try:
        return _build_log(lines(), embed, about)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error


def to_jsonl(log: TierLog, path: Path) -> None:
    """Write one object a line, as `from_jsonl` reads them; vectors and `about` are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path = replaceable(path)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(_row_object(log, row)) + "\n" for row in range(len(log)))
    temporary.replace(path)


def from_recalls(
    scored: Iterable[tuple[Recall, float | None]],
    embed: Embed,
    about: Mapping[str, Any] | None = None,
    *,
    cost_unit: Literal["dollars", "milliseconds"] | None = None,
) -> TierLog:
    """Tier log of a live memory's recalls that were scored and whose modules all ran.

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
    return _build_log(rows, embed, {"cost_unit": unit, **(about or {})})


def _build_log(rows: Iterable[tuple[str, Any]], embed: Embed, about: Mapping[str, Any] | None) -> TierLog:
    parsed = [_parse_row(where, row) for where, row in rows]
    question_numbers: dict[tuple[str, str], int] = {}
    question = [question_numbers.setdefault(row.question, len(question_numbers)) for row in parsed]
    texts = [text for text, _ in question_numbers]
    query = np.asarray(embed(texts) if texts else np.zeros((0, 1)), dtype=np.float32)
    if query.ndim != 2 or len(query) != len(texts):
        raise InvalidRequest(f"the encoder made vectors of shape {query.shape} for {len(texts)} questions: one each")
    joint, parts = np.array([row.propensity for row in parsed]), np.array([row.propensities for row in parsed])
    names = sorted({name for row in parsed for name in row.metrics})
    return TierLog(
        questions=texts,
        groups=[group for _, group in question_numbers],
        query=query,
        question=np.array(question, dtype=np.int32),
        tiers=np.array([row.tiers for row in parsed], dtype=np.int8),
        propensity=None if np.isnan(joint).all() else joint,
        score=np.array([row.score for row in parsed]),
        cost=np.array([row.cost for row in parsed]),
        reads=np.full((len(parsed), 3), -1, dtype=np.int32),
        vectors=np.zeros((0, query.shape[1]), dtype=np.float16),
        metrics={name: np.array([row.metrics.get(name, math.nan) for row in parsed]) for name in names},
        about={"dimension": int(query.shape[1]), **(about or {})},
        propensities=None if np.isnan(parts).all() else parts,
    )


def _parse_row(where: str, row: Any) -> _Row:
    """Parse and check one row."""
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
    _check_modules(where, "tiers", tiers)
    for module, tier in tiers.items():
        if tier not in TIERS:
            raise InvalidRequest(f"{where}: tiers.{module} is {tier!r}: {did_you_mean(str(tier), TIERS)}")
    score = _parse_number(where, "score", row["score"])
    if not 0 <= score <= 1:
        raise InvalidRequest(f"{where}: score is {score}: scale it to 0 to 1")
    parts, joint = [math.nan] * len(MODULES), math.nan
    if (by_module := row.get("propensities")) is not None:
        _check_modules(where, "propensities", by_module)
        parts = [_parse_probability(where, f"propensities.{module}", by_module[module]) for module in MODULES]
        joint = math.prod(parts)
    if (product := row.get("propensity")) is not None:
        if by_module is not None and not math.isclose(
            joint, _parse_probability(where, "propensity", product), rel_tol=1e-6
        ):
            raise InvalidRequest(
                f"{where}: propensity is {product}, but propensities multiply to {joint:.6g}: give one"
            )
        joint = _parse_probability(where, "propensity", product)
    if joint == 0:
        raise InvalidRequest(f"{where}: propensities multiply to 0, too small a number: leave the row out")
    text = str(row["question"])
    return _Row(
        question=(text, str(row.get("group", text))),
        tiers=[TIERS.index(tiers[module]) for module in MODULES],
        score=score,
        cost=_parse_number(where, "cost", row["cost"]),
        propensity=joint,
        propensities=parts,
        metrics={
            str(k): _parse_number(where, f"metrics.{k}", v, finite=False) for k, v in (row.get("metrics") or {}).items()
        },
    )


def _check_modules(where: str, name: str, values: Mapping[Any, Any]) -> None:
    """Raises unless `given` has exactly the five modules."""
    for module in values:
        if module not in MODULES:
            raise InvalidRequest(f"{where}: {name}.{module}: no such module: {did_you_mean(str(module), MODULES)}")
    if missing := [module for module in MODULES if module not in values]:
        raise InvalidRequest(f"{where}: {name} lacks {', '.join(missing)}: give all of {', '.join(MODULES)}")


def _parse_number(where: str, name: str, value: Any, finite: bool = True) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidRequest(f"{where}: {name} is {value!r}: give a number") from None
    if finite and not math.isfinite(number):
        raise InvalidRequest(f"{where}: {name} is {number}: leave the row out, or score it again")
    return number


def _parse_probability(where: str, name: str, value: Any) -> float:
    probability = _parse_number(where, name, value)
    if not 0 < probability <= 1 + 1e-9:
        raise InvalidRequest(
            f"{where}: {name} is {probability}: a probability above 0, or leave it out where it is not known"
        )
    return probability


def _row_object(log: TierLog, row: int) -> dict[str, Any]:
    question = int(log.question[row])
    fields: dict[str, Any] = {
        "question": log.questions[question],
        "group": log.groups[question],
        "tiers": {module: TIERS[tier] for module, tier in zip(MODULES, log.tiers[row])},
        "score": float(log.score[row]),
        "cost": float(log.cost[row]),
    }
    if log.propensities is not None and not np.isnan(log.propensities[row]).any():
        fields["propensities"] = dict(zip(MODULES, log.propensities[row].tolist()))
    elif log.propensity is not None and not np.isnan(log.propensity[row]):
        fields["propensity"] = float(log.propensity[row])
    if log.metrics:
        fields["metrics"] = {k: float(v[row]) for k, v in log.metrics.items() if not np.isnan(v[row])}
    return fields
