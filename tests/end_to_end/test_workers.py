"""Several worker processes: they start, answer, are reloaded and stop together, over SQLite and PostgreSQL."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.fake_openai import FakeOpenAI, Reply

pytest.importorskip("fastapi", reason="needs the extra `server`")
from sqlalchemy import select

from agentcascade._util.ports import free_port
from agentcascade.server.workers import merge_pages
from agentcascade.storage import open_database, tables
from agentcascade.storage.keys import Keys
from tests.proxy import settings


class Server:
    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
        self.process, self.port, self.folder = process, port, folder
        self.base = f"http://127.0.0.1:{port}"

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(self.base + path, timeout=60, trust_env=False, **more)

    def chat(self, text: str = "hi", **more: Any) -> httpx.Response:
        body = {"model": "default", "messages": [{"role": "user", "content": text}]} | more
        return httpx.post(f"{self.base}/v1/chat/completions", json=body, timeout=90, trust_env=False)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def workers(self) -> set[int]:
        """The processes that serve: the children, or the one process itself."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        named = {p.pid for p in found if _is_worker(p)}
        return named or {self.process.pid}


@contextmanager
def served(config: dict[str, Any], folder: Path, workers: int) -> Iterator[Server]:
    port = free_port()
    (folder / "agentcascade.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "agentcascade", "serve", "--port", str(port), "--workers", str(workers)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    server = Server(process, port, folder)
    children: set[int] = set()
    try:
        until(lambda: _ready(server), server, 180)
        yield server
    finally:
        with suppress(psutil.NoSuchProcess):
            children = server.workers() - {process.pid}
        process.kill()
        process.wait()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it has ended, or is about to
        return False


def _ready(server: Server) -> bool:
    with suppress(httpx.TransportError):
        return server.get("/readyz").status_code == 200
    return False


def until(look: Callable[[], Any], server: Server, seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert server.process.poll() is None, server.log
        assert time.monotonic() < deadline, server.log[-3000:]
        time.sleep(0.1)
    return found


def decisions(url: str) -> int:
    database = open_database(url)
    try:
        with database.begin() as connection:
            return len(connection.execute(select(tables.decisions.c.id)).all())
    finally:
        database.close()


def bookings(url: str) -> tuple[list[float], int]:
    """Dollars spent by each account, and the number of reservations that are left."""
    database = open_database(url)
    try:
        with database.begin() as connection:
            spent = connection.execute(select(tables.accounts.c.spent)).scalars().all()
            return [float(dollars) for dollars in spent], len(connection.execute(select(tables.reservations)).all())
    finally:
        database.close()


@pytest.mark.parametrize(("kind", "workers"), [("sqlite", 1), ("postgresql", 2)])
def test_start_serve_reload_stop(tmp_path: Path, request: pytest.FixtureRequest, kind: str, workers: int) -> None:
    """The reloaded configuration is the new one, no request fails meanwhile, and every answer is in the ledger.

    A broken configuration is not taken up: the old one goes on.
    """
    with FakeOpenAI(lambda _: Reply()) as fake:
        config = settings(fake, tmp_path, mode="teacher")
        if kind == "postgresql":
            config["bank"] = {"url": request.getfixturevalue("postgres_url")}
        url = config["bank"]["url"]
        with served(config, tmp_path, workers) as server:
            asked = 12
            assert [server.chat(f"q {i}").status_code for i in range(asked)] == [200] * asked
            before = until(lambda: server.workers() if len(server.workers()) == workers else None, server)
            if workers > 1:
                pages = [server.get("/metrics").text for _ in range(4)]
                names = [set(re.findall(r'agentcascade_steps_total\{.*worker="(\d+)"', page)) for page in pages]
                assert all(found and found <= {str(pid) for pid in before} for found in names)
                counted = re.findall(r"^agentcascade_steps_total\{.*\} (\S+)", pages[-1], re.MULTILINE)
                assert sum(map(float, counted)) == asked, "any worker answers for all"
            if workers == 1:
                (tmp_path / "agentcascade.yaml").write_text("mode: nonsense")
                os.kill(server.process.pid, signal.SIGHUP)
                until(lambda: "the old one goes on" in server.log, server)
            (tmp_path / "agentcascade.yaml").write_text(
                yaml.safe_dump(config | {"cascades": {"fresh": {}, "default": {}}})
            )
            os.kill(server.process.pid, signal.SIGHUP)

            def reloaded() -> bool:
                response = server.chat()
                assert response.status_code == 200, response.text
                nonlocal asked
                asked += 1
                names = {m["id"] for m in server.get("/v1/models").json()["data"]}
                return "fresh" in names and (workers == 1 or not server.workers() & before)

            until(reloaded, server, 150)
            assert server.chat(model="fresh").status_code == 200
            asked += 1
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(120) == 0, server.log
            assert "Traceback" not in server.log
        assert decisions(url) == asked


def test_workers_know_each_others_sessions_and_do_not_outlive_their_parent(tmp_path: Path) -> None:
    with ExitStack() as stack:
        config = settings(stack.enter_context(FakeOpenAI(lambda _: Reply())), tmp_path, mode="teacher")
        server = stack.enter_context(served(config, tmp_path, 2))
        database = open_database(config["bank"]["url"])
        _, token = Keys(database).create("boss", admin=True)
        database.close()
        until(lambda: server.get("/dashboard/steps").status_code == 401, server)
        signed_in = httpx.post(f"{server.base}/dashboard/sign-in", data={"key": token}, trust_env=False)
        looks = [server.get("/dashboard/steps", cookies=signed_in.cookies).status_code for _ in range(16)]
        assert looks == [200] * 16
        children = server.workers()
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 120
        while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in children):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with socket.create_server(("127.0.0.1", server.port)):
            pass  # the port is free again


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_does_not_wait_for_the_provider(tmp_path: Path, workers: int) -> None:
    """The requests under way are told so, and what they cost is recorded; the second Ctrl-C ends them at once."""
    with FakeOpenAI([Reply(delay=60)]) as fake:
        config = settings(fake, tmp_path, mode="teacher", deadline_seconds=60)
        config["teacher"] |= {"timeout_seconds": 60}
        with served(config, tmp_path, workers) as server:
            got: list[httpx.Response] = []
            client = threading.Thread(target=lambda: got.append(server.chat()))
            client.start()
            until(lambda: fake.requests, server)
            pids = server.workers() | {server.process.pid}
            started = time.monotonic()
            for pid in pids:  # as a terminal does
                os.kill(pid, signal.SIGINT)
            if workers == 1:
                time.sleep(0.3)
                os.kill(server.process.pid, signal.SIGINT)
            server.process.wait(120)
            assert time.monotonic() - started < 28, "far from the 30 seconds of server.shutdown_seconds"
            client.join(60)
            assert (got[0].status_code, got[0].json()["error"]["code"]) == (503, "stopping")
            assert decisions(config["bank"]["url"]) == 1
            assert "Traceback" not in server.log


def test_workers_on_one_locked_sqlite_book_every_call(tmp_path: Path) -> None:
    """Longer than a reservation waits, somebody else holds the file; then all the books equal the provider's bill."""
    usage = {"prompt_tokens": 100, "completion_tokens": 100}
    each = 0.01  # dollars, at the prices below
    with FakeOpenAI(lambda _: Reply(usage=usage)) as fake:
        config = settings(fake, tmp_path, mode="teacher", budgets={"per_namespace": 1000, "when_unavailable": "allow"})
        config["teacher"] |= {"price": {"input": 10, "output": 90}}
        with served(config, tmp_path, 2) as server, ThreadPoolExecutor(24) as pool:
            until(lambda: len(server.workers()) == 2, server)
            answers = [pool.submit(server.chat, f"q {i}", max_tokens=110) for i in range(60)]
            holder = sqlite3.connect(tmp_path / "cascade.db", isolation_level=None, timeout=90)
            holder.execute("BEGIN IMMEDIATE")
            before = sum(a.done() for a in answers)
            answers += [pool.submit(server.chat, f"r {i}", max_tokens=110) for i in range(60)]
            until(lambda: sum(a.done() for a in answers) > before + 24, server)  # more than were under way
            holder.rollback()
            holder.close()
            answers += [pool.submit(server.chat, f"s {i}", max_tokens=110) for i in range(60)]
            codes = Counter(a.result().status_code for a in answers)
            until(lambda: sum(bookings(config["bank"]["url"])[0]) > each * 179.5, server)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(120) == 0, server.log
        assert codes == {200: 180}
        assert len(fake.requests) == 180
        spent, left = bookings(config["bank"]["url"])
        assert sum(spent) == pytest.approx(each * len(fake.requests))
        assert not left
        assert decisions(config["bank"]["url"]) == 180


def test_pages_of_workers_become_one() -> None:
    one = b'# HELP a_total b\n# TYPE a_total counter\na_total{x="1"} 2.0\n'
    two = b'# HELP a_total b\n# TYPE a_total counter\na_total{x="1"} 3.0\n# HELP g c\n# TYPE g gauge\ng 1.0\n'
    text = merge_pages({"7": one, "8": two}).decode()
    assert text.count("# TYPE a_total counter") == 1
    assert 'a_total{worker="7",x="1"} 2.0' in text or 'a_total{x="1",worker="7"} 2.0' in text
    assert 'a_total{worker="8",x="1"} 3.0' in text or 'a_total{x="1",worker="8"} 3.0' in text
    assert 'g{worker="8"} 1.0' in text
