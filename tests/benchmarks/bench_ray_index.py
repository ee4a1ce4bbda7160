"""One faiss index served to many processes by Ray: each actor holds a part of the steps, a search asks all of them.

Needs Ray (extra `ray`). A cluster is started on this machine, or `--address` names one. Trajectories are spread over
the actors, which make their own keys (`bench_retrieval.py` says of what), so that nothing large goes through Ray. A
search sends one key to every actor, takes the k best groups of each, and keeps the k best of all. A group is in one
actor alone, so that is what an index of all steps finds, and more where smaller indexes lose less.

Beside it in the same run: a call of every actor that does nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from agentcascade.retrievers.faiss_index import FaissRetriever
from agentcascade.retrievers.grouping import best_per_group
from tests.benchmarks.bench_retrieval import STEPS, World, embedded, generated, recorded, stream

Hits = list[tuple[int, int, float]]


class Part:
    """Actor: the faiss index of one part, with trajectories of its own."""

    def __init__(self, data: str | None, number: int) -> None:
        episodes = [e for e in recorded(Path(data)) if all(e)] if data else []
        self._episodes = episodes or list(generated())
        self._number = number
        self._vectors = embedded(self._episodes)

    def build(self, steps: int, first_group: int) -> dict[str, float]:
        """Make the index; seconds of CPU and of waiting, and the process' memory in GB."""
        import psutil

        width = 3 * next(iter(self._vectors.values())).shape[0]
        self._index, started, cpu = FaissRetriever(width), time.perf_counter(), 0.0
        for rows, groups, keys in self._parts(steps):
            before = time.process_time()
            self._index.add("bank", rows + STEPS * first_group, groups + first_group, keys)
            cpu += time.process_time() - before
        before = time.process_time()
        self._index.settle()
        cpu += time.process_time() - before
        wall, memory = time.perf_counter() - started, psutil.Process().memory_info().rss / 1e9
        return {"cpu": cpu, "wall": wall, "memory": memory, "steps": len(self._index)}

    def _parts(self, steps: int) -> Any:
        return stream(World(self._episodes, self._vectors, 100 + self._number, held_out=False), steps)

    def exact(self, queries: np.ndarray, steps: int, first_group: int, k: int) -> list[Hits]:
        best: list[Hits] = [[] for _ in queries]
        for rows, groups, keys in self._parts(steps):
            for hits, scores in zip(best, queries @ keys.T):
                hits += best_per_group(rows, groups + first_group, scores, k)
        return [sorted(hits, key=lambda hit: -hit[2])[:k] for hits in best]

    def search(self, key: np.ndarray, k: int) -> tuple[Hits, float]:
        """Its k best groups, and the milliseconds of CPU that they took."""
        started = time.thread_time()
        hits = self._index.search("bank", key, k)
        return hits, 1000 * (time.thread_time() - started)

    def nothing(self) -> None:
        """The cost of a call."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="of a Ray cluster; default: one is started here")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=250_000, help="of each part")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--judged", type=int, default=100)
    parser.add_argument("--k", type=int, default=6)
    parser.add_argument("--data", default=os.environ.get("AGENTCASCADE_BENCH_DATA"))
    options = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    path = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
    here: dict[str, Any] = {"num_cpus": options.parts, "include_dashboard": False, "object_store_memory": 256 * 2**20}
    ray.init(
        options.address or "local",
        runtime_env=path,
        log_to_driver=False,
        logging_level="error",
        **({} if options.address else here),
    )
    episodes = [e for e in recorded(Path(options.data)) if all(e)] if options.data else []
    episodes = episodes or list(generated())
    queries = World(episodes, embedded(episodes), 99, held_out=True).keys(options.queries, steps=1)
    actor: Any = ray.remote(num_cpus=1)(Part)
    parts = [actor.remote(options.data, i) for i in range(options.parts)]
    first = [i * (options.steps // STEPS + 1) for i in range(options.parts)]
    # one after the other: of each is known what it takes, whatever the cores
    built = [ray.get(part.build.remote(options.steps, at)) for part, at in zip(parts, first)]
    print(f"{options.parts} actors of {built[0]['steps']:,.0f} steps × {queries.shape[1]}")
    print(f"  built with {sum(b['cpu'] for b in built):.0f} s of CPU in {sum(b['wall'] for b in built):.0f} s of wall")
    print(f"  memory of an actor: {max(b['memory'] for b in built):.2f} GB, keys' texts and vectors included")
    judged = queries[: options.judged]
    scans = [ray.get(part.exact.remote(judged, options.steps, at, options.k)) for part, at in zip(parts, first)]
    calls, times, own, client, found = [], [], [], [], []
    for query in queries[:20]:  # connections and caches
        ray.get([part.search.remote(query, options.k) for part in parts])
    for query in queries:
        started = time.perf_counter()
        ray.get([part.nothing.remote() for part in parts])
        calls.append(1000 * (time.perf_counter() - started))
        started, cpu = time.perf_counter(), time.process_time()
        answers = ray.get([part.search.remote(query, options.k) for part in parts])
        best = sorted((hit for hits, _ in answers for hit in hits), key=lambda hit: -hit[2])[: options.k]
        times.append(1000 * (time.perf_counter() - started))
        client.append(1000 * (time.process_time() - cpu))
        own.append(sum(ms for _, ms in answers))
        found.append({group for _, group, _ in best})
    named = {
        "a search": times,
        "  CPU of the actors together": own,
        "  CPU of the process that asks": client,
        "a call of every actor that does nothing": calls,
    }
    for what, values in named.items():
        p50, p99 = np.percentile(values, [50, 99])
        print(f"{what}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    truths = [
        sorted((h for hits in of_query for h in hits), key=lambda h: -h[2])[: options.k] for of_query in zip(*scans)
    ]
    recall = np.mean([len({g for _, g, _ in truth} & own) / len(truth) for truth, own in zip(truths, found)])
    print(f"recall@{options.k} against exact, {len(truths)} queries: {recall:.3f}")
    ray.shutdown()


if __name__ == "__main__":
    main()
