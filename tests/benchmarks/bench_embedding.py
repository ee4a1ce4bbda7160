"""MiniLM in float32 and int8: a new observation, many sentences, and whether the nearest demonstrations stay the same.

Run: python tests/benchmarks/bench_embedding.py [--data FOLDER] [--queries 1000]

Texts are those of recorded runs where `--data` (or AGENTCASCADE_BENCH_DATA) names a folder with some, as in
bench_retrieval.py (with locomo/locomo10.json, its sentences are the many), else generated ones.

1. A new observation: milliseconds of one text alone, one thread, of both precisions in turn, wall and of the thread's
   own time, which other programs on the machine do not lengthen.
2. Sentences a second in one call, on all cores; and a second of one core's time, times the cores.
3. Recall@6 against float32: a bank of nine tenths of the episodes, keyed by goal, plan and observation; queries from
   the rest; the six best trajectories, best step each. Questions, keys, or both in int8.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from agentcascade.retrievers.grouping import best_per_group
from agentcascade.retrievers.onnx import OnnxEmbedder
from tests.benchmarks.bench_retrieval import Episode, generated, recorded

K = 6
Vectors = dict[str, np.ndarray]


def sentences(data: Path | None, episodes: list[Episode]) -> list[str]:
    file = (data or Path()) / "locomo" / "locomo10.json"
    if data is None or not file.exists():
        return [text for _, _, _, seen in episodes for text in seen]
    sessions = [s for talk in json.loads(file.read_text()) for s in talk["conversation"].values()]
    return [turn["text"] for session in sessions if isinstance(session, list) for turn in session if turn.get("text")]


def one_text(embedders: dict[str, OnnxEmbedder], texts: list[str]) -> None:
    wall: dict[str, list[float]] = {name: [] for name in embedders}
    own: dict[str, list[float]] = {name: [] for name in embedders}
    for text in texts:
        for name, embedder in embedders.items():
            started, thread = time.perf_counter(), time.thread_time()
            embedder.embed([text])
            own[name].append((time.thread_time() - thread) * 1000)
            wall[name].append((time.perf_counter() - started) * 1000)
    for name in embedders:
        print(
            f"a new observation, {name}: {np.median(wall[name]):.2f} ms, of the thread's own time "
            f"{np.median(own[name]):.2f} ms  (goal 4 ms)"
        )


def many(embedders: dict[str, OnnxEmbedder], texts: list[str]) -> None:
    cores = len(os.sched_getaffinity(0))
    for name, embedder in embedders.items():
        started, own = time.perf_counter(), time.process_time()
        embedder.embed(texts)
        seconds, own = time.perf_counter() - started, time.process_time() - own
        print(
            f"{len(texts):,} sentences at once, {name}: {len(texts) / seconds:.0f}/s; "
            f"{cores} cores of their own would give {cores * len(texts) / own:.0f}/s  (goal 400/s)"
        )


def keys(episodes: list[Episode], vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """Keys (steps, 3 d) and the number of each step's episode."""
    rows, groups = [], []
    for number, (_, goal, plan, seen) in enumerate(episodes):
        for observation in filter(None, seen):
            rows.append(np.concatenate([vectors[text] for text in (goal, plan, observation)]) * np.float32(3**-0.5))
            groups.append(number)
    return np.stack(rows), np.array(groups)


def recall_of(asked: np.ndarray, kept: np.ndarray, exact: tuple[np.ndarray, np.ndarray], groups: np.ndarray) -> float:
    """Share of the K best episodes that are found; one that ties with the K-th by `exact` keys is as good as it.

    Products are of float64: recorded episodes have equal steps, whose order would else be that of rounding.
    """
    rows, (asked_exactly, kept_exactly) = np.arange(len(kept)), exact
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    found = 0
    for query, exact_query in zip(asked, asked_exactly):
        best = np.maximum.reduceat(kept_exactly @ exact_query, starts)
        bar = np.sort(best)[-K] - 1e-5
        hits = best_per_group(rows, groups, kept @ query, K)
        found += sum(best[np.searchsorted(groups[starts], group)] >= bar for _, group, _ in hits)
    return found / (K * len(asked))


def recall(embedders: dict[str, OnnxEmbedder], episodes: list[Episode], queries: int) -> None:
    texts = sorted({t for _, goal, plan, seen in episodes for t in (goal, plan, *seen)})
    held = set(random.Random(0).sample(range(len(episodes)), len(episodes) // 10))
    bank = [e for i, e in enumerate(episodes) if i not in held]
    rest = [e for i, e in enumerate(episodes) if i in held]
    made = {}
    for name, embedder in embedders.items():
        vectors: Vectors = dict(zip(texts, embedder.embed(texts))) | {"": np.zeros(embedder.dimension, np.float32)}
        made[name] = keys(rest, vectors)[0], keys(bank, vectors)[0]
    groups = keys(bank, vectors)[1]
    chosen = np.random.default_rng(0).permutation(len(made["int8"][0]))[:queries]
    print(f"bank of {len(groups):,} steps of {len(bank):,} episodes, {len(chosen):,} queries")
    wide = {name: (asked[chosen].astype(np.float64), kept.astype(np.float64)) for name, (asked, kept) in made.items()}
    for asked, kept in (("int8", "float32"), ("float32", "int8"), ("int8", "int8")):
        share = recall_of(wide[asked][0], wide[kept][1], wide["float32"], groups)
        print(f"questions in {asked}, keys in {kept}: recall@{K} against float32 {share:.4f}  (goal .98)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AGENTCASCADE_BENCH_DATA"))
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--sentences", type=int, default=2000)
    chosen = parser.parse_args()
    folder = Path(chosen.data) if chosen.data else None
    runs = list(recorded(folder)) if folder else list(generated())
    both = {name: OnnxEmbedder(precision=name) for name in ("float32", "int8")}
    print(f"chosen on this processor: {OnnxEmbedder().precision}")
    shuffled = random.Random(1).sample
    one_text(both, shuffled(sorted({text for *_, seen in runs for text in seen if text}), 150))
    spoken = sentences(folder, runs)
    many(both, shuffled(spoken, min(len(spoken), chosen.sentences)))
    recall(both, runs, chosen.queries)
