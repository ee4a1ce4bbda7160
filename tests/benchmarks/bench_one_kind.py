"""faiss over millions of keys of one kind: what it costs to build, to hold and to search a namespace as it grows.

A key here is an observation's vector alone (384 numbers of MiniLM), mixed with that of another observation of its
episode's kind, as `bench_retrieval.py` does for whole steps: a third of the memory, so that a machine of 16 GB shows
four million. At each mark it prints the CPU of building so far, the process' memory at its peak, and for 100 queries of
held-out episodes the CPU of a search, the share of the exact six best that it found (recall@6), and the share of what
it found that scores within .002 of the sixth best. Where RaBitQ is at work, once more with as many lists read as hold
the keys that a search in ten million would look at.

Exact scores are kept for the best twenty groups of each query while keys are made, so no second scan is needed.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from agentcascade.retrievers.faiss_index import FaissRetriever
from agentcascade.retrievers.rabitq import RaBitQFile
from tests.benchmarks.bench_retrieval import STEPS, World, embedded, generated, recorded

K, QUERIES, KEPT = 6, 100, 20
TEN_MILLION, LISTS_OF_TEN_MILLION = 10_000_000, 4096


def observations(world: World, trajectories: int, steps: int = STEPS) -> np.ndarray:
    """Keys (trajectories x steps, 384), of unit length."""
    own = world.rng.integers(len(world.goals), size=trajectories)
    at = np.arange(steps) if steps == STEPS else world.rng.integers(STEPS, size=(trajectories, steps))
    others = np.repeat([world.rng.choice(world.peers[episode]) for episode in own], steps)
    elsewhere = world.seen[others, world.rng.integers(STEPS, size=trajectories * steps)]
    seen = world.seen[own[:, None], at].ravel()
    return np.ascontiguousarray(world.mixed(seen, elsewhere), dtype=np.float32)


class Exact:
    """The best groups of each query among all keys so far, and their scores."""

    def __init__(self, queries: np.ndarray) -> None:
        self._queries = queries
        self._scores = np.full((len(queries), KEPT), -1.0, dtype=np.float32)
        self._groups = np.full((len(queries), KEPT), -1, dtype=np.int64)

    def add(self, keys: np.ndarray, first_group: int) -> None:
        scores = (self._queries @ keys.T).reshape(len(self._queries), -1, STEPS).max(axis=2)
        groups = np.broadcast_to(np.arange(first_group, first_group + scores.shape[1]), scores.shape)
        scores = np.concatenate([self._scores, scores], axis=1)
        groups = np.concatenate([self._groups, groups], axis=1)
        kept = np.argpartition(-scores, KEPT, axis=1)[:, :KEPT]
        self._scores, self._groups = np.take_along_axis(scores, kept, 1), np.take_along_axis(groups, kept, 1)

    def best(self) -> Iterator[tuple[set[int], float]]:
        """Of each query: its K best groups, and the score of the last of them."""
        for scores, groups in zip(self._scores, self._groups):
            order = np.argsort(-scores)[:K]
            yield set(groups[order].tolist()), float(scores[order[-1]])


def search(index: FaissRetriever, queries: np.ndarray, truth: Exact) -> str:
    times, found, near = [], [], []
    for query, (best, least) in zip(queries, truth.best()):
        started = time.thread_time()
        hits = index.search("bank", query, K)
        times.append(1000 * (time.thread_time() - started))
        found.append(len(best & {group for _, group, _ in hits}) / K)
        near.append(sum(score >= least - 0.002 for _, _, score in hits) / K)
    p50, p99 = np.percentile(times, [50, 99])
    return f"{p50:.2f} / {p99:.2f} ms of CPU, recall@{K} {np.mean(found):.3f}, within .002 {np.mean(near):.3f}"


def report(index: FaissRetriever, queries: np.ndarray, truth: Exact, cpu: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{len(index):,} keys: {cpu:.0f} s of CPU to build, {peak:.2f} GB at the peak", flush=True)
    index.search("bank", queries[0], K)  # not one's first
    print(f"  a search: {search(index, queries, truth)}", flush=True)
    file = getattr(index._partitions["bank"]._store, "_file", None)
    if not isinstance(file, RaBitQFile):
        return
    probes = file._probes
    try:
        file._probes = min(file._lists, round(probes * TEN_MILLION / len(index) * file._lists / LISTS_OF_TEN_MILLION))
        print(f"  reading {file._probes} of {file._lists} lists: {search(index, queries, truth)}", flush=True)
    finally:
        file._probes = probes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marks", type=int, nargs="+", default=[1_000_000, 2_000_000, 3_000_000, 4_000_000])
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--data", type=Path, default=os.environ.get("AGENTCASCADE_BENCH_DATA"))
    options = parser.parse_args()
    episodes = [e for e in recorded(options.data) if all(e)] if options.data else []
    print(f"{len(episodes):,} recorded episodes" if episodes else "no recorded runs (--data): generated sentences")
    episodes = episodes or list(generated())
    vectors = embedded(episodes)
    queries = observations(World(episodes, vectors, options.seed + 1, held_out=True), QUERIES, steps=1)
    world, truth = World(episodes, vectors, options.seed, held_out=False), Exact(queries)
    index, cpu, count = FaissRetriever(queries.shape[1]), 0.0, 0
    for mark in sorted(options.marks):
        while count < mark:
            keys = observations(world, 500)
            truth.add(keys, count // STEPS)
            rows = np.arange(count, count + len(keys))
            started = time.process_time()
            index.add("bank", rows, rows // STEPS, keys)
            cpu += time.process_time() - started
            count += len(keys)
        started = time.process_time()
        index.settle()
        cpu += time.process_time() - started
        report(index, queries, truth, cpu)


if __name__ == "__main__":
    main()
