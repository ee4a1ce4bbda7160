"""Retrieval from a large bank: latency, recall and memory of the faiss index, beside an exact scan in the same run.

Keys are goal, plan and observation of 384 dimensions each, with the correlations of a real bank: trajectories of 12
steps share goal and plan; there are 400 tasks, each with a goal, a plan and 40 of 4,000 places that its steps observe, all
perturbed in every trajectory. Without real texts of that number these are synthetic vectors; `--texts FOLDER` replaces the centres by MiniLM
embeddings of the lines of the text files there.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from agentcascade.retrievers.faiss_index import FaissRetriever

WIDTH, STEPS = 384, 12


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


class World:
    """Draws trajectories' keys."""

    def __init__(self, rng: np.random.Generator, centres: np.ndarray | None) -> None:
        self.rng = rng
        if centres is None:
            # embeddings live near a low-dimensional surface: 60 directions carry most of the variance
            basis = rng.normal(size=(60, WIDTH))
            centres = unit(rng.normal(size=(4400, 60)) @ basis)
        self.tasks, self.places = centres[: len(centres) // 11], centres[len(centres) // 11 :]

    def near(self, centres: np.ndarray, spread: float) -> np.ndarray:
        noise = self.rng.normal(size=centres.shape) / np.sqrt(WIDTH)
        return unit(centres + spread * noise).astype(np.float32)

    def keys(self, trajectories: int, steps: int = STEPS) -> np.ndarray:
        task = self.rng.integers(0, len(self.tasks), trajectories)
        goal, plan = (np.repeat(self.near(self.tasks[t], 0.6), steps, axis=0) for t in (task, task - 1))
        # a task takes its agent to 40 of the places
        place = (np.repeat(task, steps) * 7 + self.rng.integers(0, 40, trajectories * steps)) % len(self.places)
        observation = self.near(self.places[place], 0.6)
        return np.concatenate([goal, plan, observation], axis=1) / np.float32(np.sqrt(3))


def centres_of(folder: Path) -> np.ndarray:
    from agentcascade.assembly import make_embedder

    lines = {line.strip() for path in sorted(folder.glob("*.txt")) for line in path.read_text().splitlines()}
    return make_embedder("minilm").embed(sorted(lines - {""}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--texts", type=Path)
    options = parser.parse_args()
    world = World(np.random.default_rng(0), centres_of(options.texts) if options.texts else None)
    index = FaissRetriever(3 * WIDTH)
    started, made = time.perf_counter(), 0
    while made < options.steps:
        count = min(2000, (options.steps - made) // STEPS + 1)
        keys = world.keys(count)
        groups = np.repeat(np.arange(made // STEPS, made // STEPS + count), STEPS)
        index.add("bank", np.arange(made, made + len(keys)), groups, keys)
        made += len(keys)
    built = time.perf_counter() - started
    queries = world.keys(options.queries, 1)
    times = []
    for query in queries:
        started = time.perf_counter()
        index.search("bank", query, 6)
        times.append(1000 * (time.perf_counter() - started))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    p50, p99 = np.percentile(times, [50, 99])
    recall = index.recall("bank", queries[:100], 6)
    exact = np.ascontiguousarray(world.keys(1000))
    started = time.perf_counter()
    for query in queries[:20]:
        exact @ query
    scan = (time.perf_counter() - started) / 20 * 1000 * made / len(exact)
    print(f"steps {made:,} × {3 * WIDTH}: built in {built:.0f} s, peak memory {memory:.2f} GB")
    print(f"search, 6 groups: p50 {p50:.2f} ms, p99 {p99:.2f} ms, recall@6 {recall:.3f}")
    print(f"an exact float32 scan would take about {scan:.1f} ms: ratio {scan / p50:.0f}")


if __name__ == "__main__":
    main()
