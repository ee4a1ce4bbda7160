"""Memory of `agentcascade serve` over many requests: resident bytes and Python objects, which must stop growing.

Run: python tests/benchmarks/bench_memory_server.py [--requests 200000] [--figure memory.svg]

One worker, plain and streamed answers of mode `teacher` and answers of mode `cascade` in turn, at whatever speed. The
goal: after the first 20,000 requests the resident memory stays within 2 %. `--types N` also names the N types of
objects of which there are the most more at the end than after those.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks import endpoint
from tests.benchmarks.bench_proxy import Target, fill, load, made_key, ours, server, stream_load

SETTLED, GOAL = 20_000, 0.02
SOCKET = "AGENTCASCADE_BENCH_SOCKET"


class Sample(NamedTuple):
    requests: int
    mib: float
    objects: int
    types: Counter[str]


def serve(arguments: list[str]) -> None:
    """`agentcascade serve` in this process, which also counts its objects for whoever connects to a socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.environ[SOCKET])
    listener.listen()

    def count() -> None:
        while True:
            asker, _ = listener.accept()
            with asker:
                gc.collect()
                found = gc.get_objects()
                types = Counter(f"{type(o).__module__}.{type(o).__qualname__}" for o in found)
                asker.sendall(json.dumps({"objects": len(found), "types": types}).encode())
                del found

    threading.Thread(target=count, daemon=True).start()
    from agentcascade.cli import main

    main(arguments)


def sample(path: Path, target: Target, requests: int) -> Sample:
    with socket.socket(socket.AF_UNIX) as asked, contextlib.suppress(ConnectionError):
        asked.connect(str(path))
        told = b"".join(iter(lambda: asked.recv(2**16), b""))
    counted: dict[str, Any] = json.loads(told)
    mib = target.process.memory_info().rss / 2**20
    return Sample(requests, mib, counted["objects"], Counter(counted["types"]))


def samples(folder: Path, url: str, key: str, total: int, steps: int) -> Iterator[Sample]:
    """About `steps` of them, and one after `SETTLED` requests."""
    os.environ[SOCKET] = str(folder / "count.socket")
    command = [sys.executable, __file__, "--serve", *ours(folder, url, 1)[3:]]
    with server(command, "/readyz", folder, key) as target:
        made, due = 0, 0
        while True:
            if made >= due:
                yield sample(folder / "count.socket", target, made)
                if made >= total:
                    return
                due = min(total, SETTLED if made < SETTLED else made + max(total // steps, 1))
            made += load(folder, target, "teacher", 16, 3).requests
            made += load(folder, target, "cascade", 16, 3).requests
            made += stream_load(target, "teacher", 16, 2).requests


def figure(found: list[Sample], path: str) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    _, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    axes.plot([s.requests for s in found], [s.mib for s in found], marker="o")
    settled = next((s for s in found if s.requests >= SETTLED), None)
    if settled is not None:
        axes.axhspan(settled.mib * (1 - GOAL), settled.mib * (1 + GOAL), alpha=0.15)
    axes.set(xlabel="requests", ylabel="resident memory, MiB", ylim=(0, None))
    pyplot.savefig(path)


def main(chosen: argparse.Namespace) -> None:
    found: list[Sample] = []
    with tempfile.TemporaryDirectory() as name, endpoint.running() as url:
        folder = Path(name)
        ours(folder, url, 1)
        asyncio.run(fill(folder, 500))
        for one in samples(folder, url, made_key(folder), chosen.requests, chosen.steps):
            found.append(one)
            bar = "#" * round(one.mib / 10)
            print(f"{one.requests:8,} requests {one.mib:7.1f} MiB {one.objects:9,} objects {bar}", flush=True)
    settled = next((s for s in found if s.requests >= SETTLED), found[0])
    most = max((s for s in found if s.requests >= settled.requests), key=lambda s: s.mib)
    print(
        f"after {settled.requests:,} requests {settled.mib:.1f} MiB, at most {most.mib:.1f} since: "
        f"{most.mib / settled.mib - 1:+.1%}   goal {GOAL:.0%}"
    )
    for kind, more in (found[-1].types - settled.types).most_common(chosen.types):
        print(f"  {more:+8,} {kind}")
    if chosen.figure:
        figure(found, chosen.figure)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--types", type=int, default=12)
    parser.add_argument("--figure", metavar="FILE.svg")
    main(parser.parse_args())
