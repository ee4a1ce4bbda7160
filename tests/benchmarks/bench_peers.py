"""Peers in one run: what a call costs through each library and gateway that a package brings.

Run: python tests/benchmarks/bench_peers.py          (about three minutes)

Their environment: `python -m venv .cache/peers`, `.cache/peers/bin/pip install cascadeflow tensorzero openai`, and
`npm install --prefix .cache/peers @portkey-ai/gateway`; litellm as bench_proxy.py says. What is not installed is left
out and named. All ask one endpoint that answers at once in another process. Libraries: calls one after another, the
bare OpenAI SDK the baseline, then 16 at once; each in a process of its own, in turn. Gateways: `wrk` at --clients.
What they do for a request differs: docs/measurements/performance.md has a column for it.
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
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import psutil

from agentcascade._util.ports import free_port
from tests.benchmarks import endpoint, peer_calls
from tests.benchmarks.bench_proxy import (
    CACHE,
    LITELLM,
    Figures,
    Target,
    answers,
    fill,
    in_turn,
    load,
    made_key,
    ours,
    server,
    show,
    theirs,
)
from tests.benchmarks.bench_wrap import conversation

PEERS = CACHE / "peers"
PORTKEY = PEERS / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
TENSORZERO = """
import asyncio, openai, os, sys
os.environ["PEER_KEY"] = "k"
from tensorzero import patch_openai_client
client = patch_openai_client(openai.OpenAI(api_key="k"), config_file=sys.argv[1], async_setup=False)
print(client.base_url, flush=True)
sys.stdin.read()
"""


def libraries(folder: Path, url: str, rounds: int, seconds: float) -> None:
    """Added p50 and p99 over the bare SDK, and calls a second."""
    bodies = folder / "bodies.json"
    bodies.write_text(json.dumps([conversation(i) for i in range(90)]))
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(rounds):
        for name in peer_calls.LIBRARIES:
            own = name.split(",")[0] in ("openai", "litellm", "agentcascade", "agentcascade.wrap")
            python = sys.executable if own else str(PEERS / "bin" / "python")
            if not Path(python).exists():
                print(f"{name}: no {python}")
                continue
            command = [python, str(Path(peer_calls.__file__)), name, url, str(bodies), str(seconds)]
            command.append(str(folder / "agentcascade.yaml"))
            told = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)
            assert not told.returncode, f"{name}: {told.stderr[-2000:]}"
            found[name].append(json.loads(told.stdout.strip().splitlines()[-1]))
    middle = {
        name: {key: float(np.median([each[key] for each in measured])) for key in measured[0]}
        for name, measured in found.items()
    }
    base = middle["openai"]
    for name, figures in middle.items():
        p50, p99 = figures["p50"], figures["p99"]
        print(
            f"{name:22} p50 {p50:6.2f} ms ({p50 - base['p50']:+6.2f})   p99 {p99:6.2f} ({p99 - base['p99']:+6.2f})   "
            f"CPU {figures['cpu']:5.2f} ms   {figures['rps']:6.0f} calls/s with {peer_calls.TOGETHER} at once "
            f"({figures['rps'] / base['rps']:.2f} x)",
            flush=True,
        )


@contextlib.contextmanager
def portkey(folder: Path) -> Iterator[Target]:
    port = free_port()
    command = ["node", str(PORTKEY), "--headless", f"--port={port}"]
    variables = os.environ | {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"}
    with (
        (folder / "portkey.log").open("w") as log,
        subprocess.Popen(command, env=variables, stdout=log, stderr=log) as process,
    ):
        try:
            while not answers(f"http://127.0.0.1:{port}/"):
                assert process.poll() is None, (folder / "portkey.log").read_text()[-2000:]
                time.sleep(0.2)
            yield Target(f"http://127.0.0.1:{port}/v1/chat/completions", "k", psutil.Process(process.pid))
        finally:
            process.terminate()


@contextlib.contextmanager
def tensorzero(folder: Path, url: str) -> Iterator[Target]:
    """The HTTP gateway that its `patch_openai_client` starts within a process; no database."""
    config = peer_calls.tensorzero_config(folder, url)
    command = [str(PEERS / "bin" / "python"), "-c", TENSORZERO, str(config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        base = next(line for line in process.stdout if line.startswith("http")).strip().rstrip("/")
        yield Target(f"{base}/chat/completions", "k", psutil.Process(process.pid))
        process.stdin.close()


def gateways(folder: Path, url: str, key: str, chosen: argparse.Namespace) -> None:
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": url}
    master = f"sk-{secrets.token_hex(32)}"
    with contextlib.ExitStack() as stack:
        asked: dict[str, Callable[[float], Figures]] = {}

        def add(name: str, target: Target, model: str, **more: dict[str, str]) -> None:
            asked[name] = partial(load, folder, target, model, chosen.clients, **more)  # type: ignore[arg-type]

        if Path(chosen.litellm_python).exists():
            command = theirs(folder, url, chosen.litellm_python, 1)
            add("litellm", stack.enter_context(server(command, "/health/liveliness", folder, master)), "teacher")
        if PORTKEY.exists():
            add("portkey", stack.enter_context(portkey(folder)), "gpt-4.1-mini", headers=headers)
        if (PEERS / "bin" / "python").exists():
            add("tensorzero", stack.enter_context(tensorzero(folder, url)), "tensorzero::model_name::mini")
        own = stack.enter_context(server(ours(folder, url, 1), "/readyz", folder, key))
        add("teacher", own, "teacher")
        add("cascade", own, "cascade")
        for missing in {"litellm", "portkey", "tensorzero"} - asked.keys():
            print(f"{missing}: not installed")
        show(chosen.clients, in_turn(asked, chosen.rounds, chosen.seconds))


def main(chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name, endpoint.running() as url:
        folder = Path(name)
        ours(folder, url, 1)
        asyncio.run(fill(folder, chosen.steps))
        libraries(folder, url, chosen.rounds, chosen.seconds)
        gateways(folder, url, made_key(folder), chosen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm-python", default=LITELLM)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1000, help="of the bank, which are embedded first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    main(parser.parse_args())
