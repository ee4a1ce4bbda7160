"""`agentcascade serve` against the litellm proxy: requests and CPU seconds, p50 and p99, streams, and two workers.

Run: python tests/benchmarks/bench_proxy.py          (under five minutes on two cores that do nothing else)

litellm's proxy runs in an environment of its own: `python -m venv .cache/litellm-proxy` and
`.cache/litellm-proxy/bin/pip install 'litellm[proxy]'`, or another by --litellm-python; `wrk` makes the load (apt-get
install wrk). Both proxies pass on to the same endpoint, which answers at once in another process; servers, load and
endpoint share the machine's cores, so CPU time of a server's processes is given beside its requests a second: it is
what a request costs, whoever else is busy. Both ask for a key (litellm its master key, ours one made by `agentcascade
keys`); defaults otherwise, request logs to /dev/null; ours also writes every decision to SQLite. Rounds are taken in
turn; of each figure the median over the rounds is shown. Only one server gets requests at a time.

litellm has no cascade: mode `cascade` (n = 3 in one call, six of --steps retrieved, MiniLM's embeddings cached)
stands against its plain call. Of streams, p50 and p99 are those of the time to the first chunk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import psutil
import yaml

import agentcascade
from agentcascade._util.ports import free_port
from tests.benchmarks import endpoint, stream_client
from tests.benchmarks.bench_bank import STEPS_EACH, trajectories
from tests.benchmarks.bench_wrap import conversation

MODEL = "openai/gpt-4.1-mini"
CACHE = Path(os.environ.get("AGENTCASCADE_CACHE", Path(__file__).parents[2] / ".cache"))
LITELLM = str(CACHE / "litellm-proxy" / "bin" / "python")
LOAD = """
local bodies = {BODIES}
local made = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer KEY"
for name, value in pairs({HEADERS}) do wrk.headers[name] = value end
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


GOALS = {"teacher": 5.0, "cascade": 3.5, "teacher, streamed": 5.0}
"""How many times litellm's requests a second; the p99 shall be half of its."""
P99_GOAL, WORKERS_GOAL = 0.5, 1.8


class Figures(NamedTuple):
    rps: float
    p50: float
    p99: float
    requests: int
    cpu: float
    """Milliseconds of the server's processes, a request."""


class Target(NamedTuple):
    url: str
    key: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Of all its processes so far."""
        total = 0.0
        for process in [self.process, *self.process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total


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


def load(
    folder: Path,
    target: Target,
    model: str,
    connections: int,
    seconds: float,
    door: str = "chat",
    headers: Mapping[str, str] | None = None,
) -> Figures:
    """As many requests as go into `seconds`. Every answer must be a 200."""
    path, body = DOORS[door]
    bodies = [json.dumps({"model": model, **body(i)}) for i in range(90)]
    script = folder / "load.lua"
    values = {"BODIES": ",".join(f"[==[{b}]==]" for b in bodies), "KEY": target.key}
    values["HEADERS"] = ",".join(f'["{name}"]="{value}"' for name, value in (headers or {}).items())
    text = LOAD
    for name, value in values.items():
        text = text.replace(name, value)
    script.write_text(text)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", str(script)]
    command.append(target.url.replace("/v1/chat/completions", path))
    before = target.cpu_seconds()
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(shown.strip().splitlines()[-1])
    assert not found["errors"], shown
    cpu = 1000 * (target.cpu_seconds() - before) / max(found["requests"], 1)
    return Figures(found["requests"] / found["seconds"], found["p50"], found["p99"], found["requests"], cpu)


def stream_load(target: Target, model: str, connections: int, seconds: float) -> Figures:
    """The same for streamed answers; p50 and p99 are those of the time to the first chunk."""
    bodies = [json.dumps({"model": model, "stream": True, **chat(i)}).encode() for i in range(90)]
    before = target.cpu_seconds()
    firsts, taken = asyncio.run(stream_client.load(target.url, target.key, bodies, connections, seconds))
    cpu = 1000 * (target.cpu_seconds() - before) / max(len(firsts), 1)
    p50, p99 = np.percentile(firsts, [50, 99]) * 1000
    return Figures(len(firsts) / taken, float(p50), float(p99), len(firsts), cpu)


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


def compare(folder: Path, url: str, python: str, key: str, chosen: argparse.Namespace) -> None:
    master = f"sk-{secrets.token_hex(32)}"
    with (
        server(theirs(folder, url, python, 1), "/health/liveliness", folder, master) as other,
        server(ours(folder, url, 1), "/readyz", folder, key) as own,
    ):
        for connections in chosen.connections:
            asked: dict[str, Callable[[float], Figures]] = {
                "litellm": partial(load, folder, other, "teacher", connections),
                "teacher": partial(load, folder, own, "teacher", connections),
                "cascade": partial(load, folder, own, "cascade", connections),
            }
            show(connections, in_turn(asked, chosen.rounds, chosen.seconds))
        for connections in chosen.streams:
            asked = {
                "litellm, streamed": partial(stream_load, other, "teacher", connections),
                "teacher, streamed": partial(stream_load, own, "teacher", connections),
            }
            show(connections, in_turn(asked, chosen.rounds, chosen.seconds))


def in_turn(asked: dict[str, Callable[[float], Figures]], rounds: int, seconds: float) -> dict[str, Figures]:
    """Medians of each, taken in turn after a short round that does not count."""
    for one in asked.values():
        one(2)
    found: dict[str, list[Figures]] = defaultdict(list)
    for _ in range(rounds):
        for name, one in asked.items():
            found[name].append(one(seconds))
    return {name: Figures(*np.median(figures, axis=0)) for name, figures in found.items()}


def show(connections: int, middle: dict[str, Figures]) -> None:
    """Each against the first."""
    first = next(iter(middle.values()))
    assert first.requests, "none was answered: the machine has no time for this"
    for name, figures in middle.items():
        goal = f"   goal {GOALS[name]} x, p99 {P99_GOAL} x" if name in GOALS else ""
        print(
            f"{connections:3} clients, {name:17} {figures.rps:6.0f} requests/s ({figures.rps / first.rps:4.1f} x)   "
            f"p50 {figures.p50:7.1f}   p99 {figures.p99:7.1f} ms ({figures.p99 / first.p99:.2f} x)   "
            f"CPU {figures.cpu:5.2f} ms a request (1/{first.cpu / max(figures.cpu, 1e-3):.1f}){goal}",
            flush=True,
        )


def several(folder: Path, url: str, key: str, chosen: argparse.Namespace) -> None:
    """One worker and two. The load has its share of the cores; CPU time says what workers with a core each would do."""
    with (
        server(ours(folder, url, 1), "/readyz", folder, key) as one,
        server(ours(folder, url, 2), "/readyz", folder, key) as two,
    ):
        asked: dict[str, Callable[[float], Figures]] = {
            "one worker": partial(load, folder, one, "teacher", 64),
            "two workers": partial(load, folder, two, "teacher", 64),
        }
        middle = in_turn(asked, chosen.rounds, chosen.seconds)
    show(64, middle)
    by_cpu = 2 * middle["one worker"].cpu / middle["two workers"].cpu
    wall = middle["two workers"].rps / middle["one worker"].rps
    print(
        f"two workers: {by_cpu:.2f} x by CPU a request, as if each had a core to itself; {wall:.2f} x as measured, "
        f"load and endpoint on the same cores   goal {WORKERS_GOAL} x"
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


def main(chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name, endpoint.running() as url:
        folder = Path(name)
        ours(folder, url, 1)
        asyncio.run(fill(folder, chosen.steps))
        key = made_key(folder)
        if Path(chosen.litellm_python).exists():
            compare(folder, url, chosen.litellm_python, key, chosen)
        else:
            print(f"no litellm at {chosen.litellm_python}: see --help")
        if chosen.workers:
            several(folder, url, key, chosen)
        if chosen.doors:
            doors(folder, url, key, chosen.connections, chosen.rounds, chosen.seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm-python", default=LITELLM, help="of an environment with litellm[proxy]; %(default)s")
    parser.add_argument("--doors", action="store_true", help="compare the doors of our own proxy, too")
    parser.add_argument("--workers", action=argparse.BooleanOptionalAction, default=True, help="one worker against two")
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--streams", type=int, nargs="*", default=[8, 64], help="clients that read streams")
    parser.add_argument("--steps", type=int, default=1000, help="of the bank, which are embedded first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    main(parser.parse_args())
