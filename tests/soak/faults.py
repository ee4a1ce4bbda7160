"""Faults while steps are answered: kill -9, a locked or full disk, a server that goes away. Counts what was lost.

Run: python tests/soak/faults.py [--kills 10] [--postgres URL]

Each line says how many steps a client was answered, and how many of them the ledger has after a restart. The last line
is what the journal costs a step.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from sqlalchemy import select

from agentcascade.ledger.ledger import DatabaseRecorder
from agentcascade.storage import open_database, tables
from agentcascade.storage.journal import Journal
from agentcascade.types import Call, Decision, Usage

WORKER = """
import resource, sys, threading, agentcascade
url, threads, name, limit = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
if limit:
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
teacher = agentcascade.ScriptedModel(["look"], delay=0.001)
cascade = agentcascade.build(teacher=teacher, mode="teacher", bank={"url": url}, retrieval={"k": 0})
cascade.sync_episode("g", id=f"{name}.warm").complete([{"role": "user", "content": "hi"}])
said = threading.Lock()
print(f"{name}.warm", flush=True)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
def work(thread):
    i = 0
    while True:
        id = f"{name}.{thread}.{i}"
        cascade.sync_episode("g", id=id).complete([{"role": "user", "content": "hi"}])
        with said:
            print(id, flush=True)
        i += 1
for thread in range(threads):
    threading.Thread(target=work, args=(thread,), daemon=True).start()
threading.Event().wait()
"""


def answered(
    url: str, name: str, seconds: float, *, limit: int = 0, during: Callable[[], object] = lambda: None
) -> set[str]:
    """Ids of the steps that a process answered until it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, url, "4", name, str(limit)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    rest: list[bytes] = []
    reading = threading.Thread(target=lambda: rest.append(process.stdout.read()))  # type: ignore[union-attr]
    reading.start()
    during()
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    reading.join()
    whole = (first + rest[0]).decode().splitlines(keepends=True)
    return {line.strip() for line in whole if line.endswith("\n")}


def recorded(url: str) -> set[str]:
    """Ids in the ledger after a restart."""
    database = open_database(url)
    DatabaseRecorder(database).close()
    with database.begin() as connection:
        found = set(connection.execute(select(tables.decisions.c.episode)).scalars())
    database.close()
    return found


def report(what: str, wanted: set[str], url: str) -> bool:
    there = recorded(url)
    print(
        f"{what}: {len(wanted)} answered, {len(wanted & there)} of them in the ledger, {len(wanted - there)} lost",
        flush=True,
    )
    return wanted <= there


def killed(url: str, kills: int, what: str) -> bool:
    draw = random.Random(7)
    wanted: set[str] = set()
    for i in range(kills):
        wanted |= answered(url, f"k{i}", 0.05 + draw.random() * 0.8)
    return report(f"kill -9, {kills} times, {what}", wanted, url)


def locked(folder: Path) -> bool:
    url, path = f"sqlite:///{folder}/locked.db", folder / "locked.db"
    open_database(url).close()
    lock = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    wanted = answered(url, "l", 2.0, during=lambda: lock.execute("BEGIN IMMEDIATE"))
    lock.execute("ROLLBACK")
    return report("SQLite locked by another process, then kill -9", wanted, url)


def full(folder: Path) -> bool:
    """No file may grow beyond some pages more than it has: as on a full disk."""
    url = f"sqlite:///{folder}/full.db"
    wanted = answered(url, "f", 3.0, limit=1_200_000)
    return report("files limited to 1.2 MB, then kill -9", wanted, url)


def cost() -> None:
    call = Call(role="teacher", model="openai/gpt-4.1", usage=Usage(input=2000, output=60), dollars=None)
    step = Decision(
        episode="e", step=3, mode="cascade", answered_by="teacher", reason="agreement 2/3", calls=(call,) * 2
    )
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "j")
        taken = []
        for _ in range(20_000):
            started = time.perf_counter()
            segment = journal.append(step.model_dump_json())
            taken.append(time.perf_counter() - started)
            journal.done(segment)
        journal.close()
    last = statistics.quantiles(taken, n=100)[98]
    print(f"journal: {statistics.median(taken) * 1e6:.1f} µs a step (median), {last * 1e6:.1f} µs (99th percentile)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--postgres", help="URL of a database to fill; its journal goes to $XDG_STATE_HOME")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = [killed(f"sqlite:///{folder}/killed.db", chosen.kills, "SQLite"), locked(folder), full(folder)]
        if chosen.postgres:
            os.environ.setdefault("XDG_STATE_HOME", str(folder))
            good.append(killed(chosen.postgres, chosen.kills, "PostgreSQL"))
    cost()
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
