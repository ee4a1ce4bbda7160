"""Gather BFCL's published files into the three that are read here: questions, possible answers, recorded answers.

    git clone https://github.com/ShishirPatil/gorilla && git -C gorilla checkout de8307b
    git clone https://github.com/HuanzhiMao/BFCL-Result
    python -m agentcascade.envs.bfcl.gather --gorilla gorilla --results BFCL-Result/2024-08-11 --to data/bfcl

An official score file lists the wrong answers by their place; every other answer is right.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from agentcascade.envs.bfcl.tasks import _LATER, CATEGORIES, canonical
from agentcascade.envs.recorded.rows import read
from agentcascade.errors import AgentCascadeError, EnvironmentFailed, did_you_mean

OLD: dict[str, str] = {later: old for old, later in _LATER.items()}
PREFIX = "gorilla_openfunctions_v1_test_"


def _file(folder: Path, category: str) -> Path:
    wanted = re.compile(rf"{PREFIX}{OLD[category]}\.json|BFCL_v\d+_{category}\.json")
    for path in sorted(folder.glob("*.json")):
        if wanted.fullmatch(path.name):
            return path
    raise EnvironmentFailed(f"{folder} holds no {PREFIX}{OLD[category]}.json and no BFCL_v…_{category}.json")


def _data(gorilla: Path) -> Path:
    for below in ("", "berkeley-function-call-leaderboard"):
        for data in ("data", "bfcl_eval/data"):
            if (gorilla / below / data / "possible_answer").is_dir():
                return gorilla / below / data
    raise EnvironmentFailed(f"{gorilla} is no checkout of gorilla: it has no data/possible_answer")


def questions(data: Path) -> Iterator[dict[str, Any]]:
    for category in CATEGORIES:
        for i, (_, row) in enumerate(read(_file(data, category))):
            id = str(row.get("id") or f"{category}_{i}")
            yield {"id": canonical(id), "question": row.get("question"), "function": row.get("function")}


def possible_answers(data: Path) -> Iterator[dict[str, Any]]:
    for category in CATEGORIES:
        if category != "irrelevance":
            for i, (_, row) in enumerate(read(_file(data / "possible_answer", category))):
                id = str(row.get("id") or f"{category}_{i}")
                yield {"id": canonical(id), "ground_truth": row.get("ground_truth")}


def answers(results: Path, models: Collection[str]) -> Iterator[dict[str, Any]]:
    known = [path.name for path in sorted((results / "result").glob("*")) if path.is_dir()]
    if not known:
        raise EnvironmentFailed(f"{results} is no day of BFCL-Result: it has no result/MODEL")
    for model in models or known:
        if model not in known:
            raise EnvironmentFailed(f"{results} holds no results of '{model}': {did_you_mean(model, known)}")
        for category in CATEGORIES:
            given = results / "result" / model / f"{PREFIX}{OLD[category]}_result.json"
            scored = results / "score" / model / f"{OLD[category]}_score.json"
            if not given.is_file() or not scored.is_file():
                print(f"{model}: no result and score of {category}")
                continue
            yield from _answers(model, category, given, scored)


def _answers(model: str, category: str, given: Path, scored: Path) -> Iterator[dict[str, Any]]:
    wrong = {row["id"] for _, row in read(scored) if row.get("valid") is False and isinstance(row.get("id"), int)}
    total = next((row.get("total_count") for _, row in read(scored)), None)
    count = 0
    for count, (_, row) in enumerate(read(given), 1):
        yield {
            "id": canonical(str(row.get("id") or f"{category}_{count - 1}")),
            "category": category,
            "model": model,
            "answer": row.get("result"),
            "right": count not in wrong,
            "input_tokens": row.get("input_token_count"),
            "output_tokens": row.get("output_token_count"),
            "latency_s": row.get("latency"),
        }
    if count != total:
        raise EnvironmentFailed(f"{scored} is of {total} answers, but {given} holds {count}")


def write(path: Path, found: Iterable[dict[str, Any]]) -> int:
    """The number of rows written."""
    count = 0
    with lzma.open(path, "wt", encoding="utf-8") as file:
        for row in found:
            count += 1
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gorilla", type=Path, help="a checkout of ShishirPatil/gorilla")
    parser.add_argument("--results", type=Path, help="a day's folder of HuanzhiMao/BFCL-Result")
    parser.add_argument("--models", nargs="*", default=[], help="only these; else all")
    parser.add_argument("--to", type=Path, required=True, help="the folder to fill")
    given = parser.parse_args()
    if given.gorilla is None and given.results is None:
        parser.error("nothing to gather: give --gorilla, --results or both")
    given.to.mkdir(parents=True, exist_ok=True)
    try:
        if given.gorilla is not None:
            data = _data(given.gorilla)
            print(write(given.to / "questions.jsonl.xz", questions(data)), "questions")
            print(write(given.to / "possible_answers.jsonl.xz", possible_answers(data)), "possible answers")
        if given.results is not None:
            print(write(given.to / "answers.jsonl.xz", answers(given.results, given.models)), "recorded answers")
    except AgentCascadeError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
