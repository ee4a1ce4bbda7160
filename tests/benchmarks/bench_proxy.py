"""`agentcascade serve` against the litellm proxy: requests per second, p50 and p99, and our memory over many requests.

Run: python tests/benchmarks/bench_proxy.py --litellm-python VENV/bin/python [--memory 50000]

VENV is a virtual environment of its own with `litellm[proxy]`; `wrk` makes the load (apt-get install wrk). Both proxies
pass on to the same endpoint, which answers at once in another process; servers, load and endpoint share the machine's
cores. Both ask for a key (litellm its master key, ours one made by `agentcascade keys`); defaults otherwise, request
logs to /dev/null; ours also writes every decision to SQLite. Rounds are taken in turn; of each figure the median over
the rounds is shown. Only one server gets requests at a time.

litellm has no cascade: mode `cascade` (n = 3 in one call, six of 10,000 steps retrieved, MiniLM's embeddings cached)
stands against its plain call.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import psutil
import yaml

import agentcascade
from tests.benchmarks import endpoint
from tests.benchmarks.bench_bank import STEPS_EACH, trajectories
from tests.benchmarks.bench_wrap import conversation

MODEL = "openai/gpt-4.1-mini"
LOAD = """
local bodies = {BODIES}
local made = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer KEY"
function request()
  made = made + 1
  return wrk.format(nil, nil, nil, bodies[made % #bodies + 1])
end
function done(summary, latency)
  local errors = summary.errors.connect + summary.errors.read + summary.errors.status + summary.errors.timeout
  io.write(string.format('{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "errors": %d}\\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, errors))
end
"""


class Figures(NamedTuple):
    rps: float
    p50: float
    p99: float
    requests: int


class Target(NamedTuple):
    url: str
    key: str
    process: psutil.Process


def chat(index: int) -> dict[str, Any]:
    return {"messages": conversation(index)}


def responses(index: int) -> dict[str, Any]:
    return {"input": [{"type": "message", **m} for m in conversation(index)], "store": False}


def stored(index: int) -> dict[str, Any]:
    return responses(index) | {"store": True}


def messages(index: int) -> dict[str, Any]:
    said = conversation(index)
    system = "\n".join(str(m["content"]) for m in said if m["role"] == "system")
    turns = [m for m in said if m["role"] != "system"]
    return {"messages": turns, "max_tokens": 1000, **({"system": system} if system else {})}


DOORS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "chat": ("/v1/chat/completions", chat),
    "messages": ("/v1/messages", messages),
    "responses": ("/v1/responses", responses),
    "responses, stored": ("/v1/responses", stored),
}
"""Path and body of a request, by door."""


def load(folder: Path, target: Target, model: str, connections: int, seconds: float, door: str = "chat") -> Figures:
    """As many requests as go into `seconds`. Every answer must be a 200."""
    path, body = DOORS[door]
    bodies = [json.dumps({"model": model, **body(i)}) for i in range(90)]
    script = folder / "load.lua"
    values = {"BODIES": ",".join(f"[==[{b}]==]" for b in bodies), "KEY": target.key}
    text = LOAD
    for name, value in values.items():
        text = text.replace(name, value)
    script.write_text(text)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", str(script)]
    command.append(target.url.replace("/v1/chat/completions", path))
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(shown.strip().splitlines()[-1])
    assert not found["errors"], shown
    return Figures(found["requests"] / found["seconds"], found["p50"], found["p99"], found["requests"])


@contextlib.contextmanager
def server(command: list[str], ready: str, folder: Path, key: str) -> Iterator[Target]:
    port = free_port()
    log = folder / f"{port}.log"
    with (
        log.open("w") as written,
        subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=folder,
            env=os.environ | {"LITELLM_MASTER_KEY": key},
            stdout=subprocess.DEVNULL,
            stderr=written,
        ) as process,
    ):
        try:
            while not answers(f"http://127.0.0.1:{port}{ready}"):
                assert process.poll() is None, log.read_text()[-3000:]
                time.sleep(0.2)
            yield Target(f"http://127.0.0.1:{port}/v1/chat/completions", key, psutil.Process(process.pid))
        finally:
            process.terminate()


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def ours(folder: Path, url: str, workers: int) -> list[str]:
    model = {"name": MODEL, "api_base": url, "api_key": "k"}
    config = {
        "teacher": model,
        "student": model,
        "bank": {"url": f"sqlite:///{folder}/bank.db"},
        "actions": {"format": "react"},
        "router": {"name": "unanimity", "options": {"n": 3}},
        "server": {"max_requests": 1000},
        "cascades": {"teacher": {"mode": "teacher"}, "cascade": {"mode": "cascade"}},
    }
    path = folder / "agentcascade.yaml"
    path.write_text(yaml.safe_dump(config))
    return [sys.executable, "-m", "agentcascade", "serve", "--config", str(path), "--workers", str(workers)]


def theirs(folder: Path, url: str, python: str, workers: int) -> list[str]:
    model = {"model": MODEL, "api_base": url, "api_key": "k"}
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump({"model_list": [{"model_name": "teacher", "litellm_params": model}]}))
    executable = str(Path(python).with_name("litellm"))
    return [executable, "--config", str(path), "--host", "127.0.0.1", "--num_workers", str(workers)]


async def fill(folder: Path, steps: int) -> None:
    with agentcascade.build(folder / "agentcascade.yaml", cascade="cascade") as cascade:
        assert cascade.bank is not None
        for first in range(0, steps // STEPS_EACH, 50):
            await cascade.bank.add_many(trajectories(50, first))


def made_key(folder: Path) -> str:
    command = [sys.executable, "-m", "agentcascade", "keys", "create", "bench", "--quiet"]
    config = ["--config", str(folder / "agentcascade.yaml")]
    return subprocess.run([*command, *config], check=True, capture_output=True, text=True).stdout.strip()


def compare(
    folder: Path, url: str, python: str, key: str, workers: int, levels: list[int], rounds: int, seconds: float
) -> None:
    master = f"sk-{secrets.token_hex(32)}"
    with (
        server(theirs(folder, url, python, workers), "/health/liveliness", folder, master) as other,
        server(ours(folder, url, workers), "/readyz", folder, key) as own,
    ):
        targets = {"litellm": (other, "teacher"), "teacher": (own, "teacher"), "cascade": (own, "cascade")}
        for connections in levels:
            for target, model in targets.values():
                load(folder, target, model, connections, 3)
            found: dict[str, list[Figures]] = defaultdict(list)
            for _ in range(rounds):
                for name, (target, model) in targets.items():
                    found[name].append(load(folder, target, model, connections, seconds))
            middle = {name: Figures(*np.median(f, axis=0)) for name, f in found.items()}
            for name, figures in middle.items():
                times, wait = figures.rps / middle["litellm"].rps, figures.p99 / middle["litellm"].p99
                print(
                    f"{workers} workers, {connections:3} connections, {name:8} {figures.rps:7.0f} requests/s "
                    f"({times:5.2f}x)   p50 {figures.p50:7.1f} ms   p99 {figures.p99:7.1f} ms ({wait:.2f}x)",
                    flush=True,
                )


def doors(folder: Path, url: str, key: str, levels: list[int], rounds: int, seconds: float) -> None:
    """What each door costs, in turn, against the chat door of the same server."""
    with server(ours(folder, url, 1), "/readyz", folder, key) as target:
        for connections in levels:
            for door in DOORS:
                load(folder, target, "teacher", connections, 3, door)
            found: dict[str, list[Figures]] = defaultdict(list)
            for _ in range(rounds):
                for door in DOORS:
                    found[door].append(load(folder, target, "teacher", connections, seconds, door))
            middle = {door: Figures(*np.median(f, axis=0)) for door, f in found.items()}
            for door, figures in middle.items():
                print(
                    f"{connections:3} connections, {door:18} {figures.rps:7.0f} requests/s "
                    f"({figures.rps / middle['chat'].rps:5.2f}x)   "
                    f"p50 {figures.p50:7.1f} ms   p99 {figures.p99:7.1f} ms",
                    flush=True,
                )


def memory(folder: Path, url: str, key: str, total: int) -> None:
    """The resident memory of one worker, sampled about ten times on the way, both modes in turn."""
    with server(ours(folder, url, 1), "/readyz", folder, key) as target:
        made, shown = 0, -1
        while shown < 10:
            if made * 10 // total > shown:
                shown = made * 10 // total
                print(f"memory: {target.process.memory_info().rss / 2**20:6.1f} MiB after {made:,}", flush=True)
            for model in ("teacher", "cascade"):
                made += load(folder, target, model, 16, 4).requests


def main(chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name, endpoint.running() as url:
        folder = Path(name)
        ours(folder, url, 1)
        asyncio.run(fill(folder, 10_000))
        key = made_key(folder)
        if chosen.litellm_python:
            for workers in chosen.workers:
                compare(
                    folder, url, chosen.litellm_python, key, workers, chosen.connections, chosen.rounds, chosen.seconds
                )
        if chosen.doors:
            doors(folder, url, key, chosen.connections, chosen.rounds, chosen.seconds)
        if chosen.memory:
            memory(folder, url, key, chosen.memory)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm-python", help="the python of a virtual environment with litellm[proxy]")
    parser.add_argument("--doors", action="store_true", help="compare the doors of our own proxy")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--memory", type=int, default=0, metavar="REQUESTS")
    main(parser.parse_args())
