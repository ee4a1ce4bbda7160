"""Two `agentcascade serve` processes over one PostgreSQL behave as one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fake_openai import FakeOpenAI, Reply, Request
from postgres import postgres_server, postgres_url  # noqa: F401

pytest.importorskip("fastapi", reason="needs the extra `server`")

USAGE = {"prompt_tokens": 5, "completion_tokens": 100}
PRICE = {"input": "10", "output": "10"}
EACH = Decimal("0.00105")
"""Dollars of one call."""


def answer(request: Request) -> Reply:
    return Reply(texts=("take the mug",) if request.body["model"] == "teacher" else ("student says so",), usage=USAGE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(config: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "agentcascade", *arguments, "--config", str(config)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment()).stdout.strip()


def environment() -> dict[str, str]:
    return os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OMP_NUM_THREADS": "1"}


class Replicas:
    """Two running servers and the provider behind them."""

    def __init__(self, fake: FakeOpenAI, config: Path, clients: list[httpx.Client]) -> None:
        self.fake, self.config, self.clients = fake, config, clients

    def chat(
        self, replica: int, key: str, goal: str = "find the mug", model: str = "normal", **more: Any
    ) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": goal}], "max_tokens": 100}
        headers = {"authorization": f"Bearer {key}"} | more.pop("headers", {})
        return self.clients[replica].post("/v1/chat/completions", json=body | more, headers=headers)

    def finish(self, replica: int, key: str, episode: str, success: bool = True) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        path = f"/v1/episodes/{episode}/feedback"
        return self.clients[replica].post(path, json={"success": success}, headers=headers)

    def prompts(self, model: str) -> list[str]:
        return [json.dumps(r.body["messages"]) for r in self.fake.requests if r.body["model"] == model]


@pytest.fixture(scope="module")
def replicas(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:  # noqa: F811
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE replicas")
    folder = tmp_path_factory.mktemp("replicas")
    with FakeOpenAI(answer) as fake:
        shared = {"api_base": fake.url, "api_key": "upstream-secret", "retries": 0, "price": PRICE}
        settings = {
            "teacher": {"name": "openai/teacher", **shared},
            "student": {"name": "openai/student", **shared},
            "bank": {"url": postgres_server.rsplit("/", 1)[0] + "/replicas"},
            "retrieval": {"embedder": "hashing", "index": "exact"},
            "actions": {"format": "text"},
            "cascades": {
                n: {"mode": m} for n, m in (("collecting", "collect"), ("normal", "cascade"), ("plain", "teacher"))
            },
        }
        config = folder / "agentcascade.yaml"
        config.write_text(yaml.safe_dump(settings))
        servers, clients = [], []
        for number in range(2):
            port = free_port()
            command = [sys.executable, "-m", "agentcascade", "serve", "--config", str(config), "--port", str(port)]
            log = (folder / f"server{number}.log").open("wb")
            servers.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment(), cwd=folder))
            clients.append(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))
        try:
            for number, client in enumerate(clients):
                until(lambda client=client: ready(client), 60, lambda n=number: (folder / f"server{n}.log").read_text())
            yield Replicas(fake, config, clients)
        finally:
            for server in servers:
                server.send_signal(signal.SIGTERM)
            codes = [server.wait(30) for server in servers]
            for client in clients:
                client.close()
            assert codes == [0, 0]


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def until(condition: Callable[[], bool], seconds: float, why: Callable[[], str] = lambda: "") -> float:
    """Seconds until the condition held; fails when it does not in time."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, why()
        time.sleep(0.1)
    return time.monotonic() - started


def test_what_one_replica_collects_and_the_other_closes_both_show_their_student(replicas: Replicas) -> None:
    key = run(replicas.config, "keys", "create", "bank", "--namespace", "one", "--quiet")
    before = replicas.chat(1, key).json()
    assert "agentcascade" in before, before
    assert before["agentcascade"]["answered_by"] == "teacher", "no demonstration yet"
    first = replicas.chat(0, key, model="collecting")
    episode = first.json()["agentcascade"]["episode"]
    closed = replicas.finish(1, key, episode)
    assert closed.json() == {"episode": episode, "banked": True}

    def shown(replica: int) -> bool:
        said = replicas.chat(replica, key).json()["agentcascade"]
        return bool(said["demonstrations"]) and said["answered_by"] == "student"

    took = [until(lambda replica=replica: shown(replica), 10) for replica in (0, 1)]
    print(f"seconds until a demonstration was shown by each replica: {took[0]:.1f}, {took[1]:.1f}")
    assert "take the mug" in replicas.prompts("student")[-1]
    shown_window = replicas.chat(0, key).json()["agentcascade"]["demonstrations"][0]
    run(replicas.config, "bank", "remove", shown_window.split(":")[0])
    for replica in (0, 1):
        until(lambda replica=replica: not shown(replica), 10)


def test_a_budget_holds_over_both(replicas: Replicas) -> None:
    fits = 20
    budget = EACH * fits
    key = run(replicas.config, "keys", "create", "poor", "--budget", str(budget), "--namespace", "two", "--quiet")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: replicas.chat(i % 2, key, f"goal {i}", model="plain"), range(60)))
    statuses = [a.status_code for a in answers]
    assert set(statuses) == {200, 402}
    refused = next(a for a in answers if a.status_code == 402).json()["error"]
    assert (refused["code"], refused["type"]) == ("budget_exceeded", "insufficient_quota")
    listed = json.loads(run(replicas.config, "keys", "list", "--json"))
    spent = next(Decimal(k["spent"]) for k in listed if k["name"] == "poor")
    assert spent == EACH * statuses.count(200)
    assert spent <= budget
    assert statuses.count(200) >= fits - 8, "reservations are given back"


def test_a_rate_limit_holds_over_both(replicas: Replicas) -> None:
    key = run(replicas.config, "keys", "create", "slow", "--rpm", "6", "--namespace", "three", "--quiet")
    if time.time() % 60 > 50:
        time.sleep(60.5 - time.time() % 60)
    statuses = [replicas.chat(i % 2, key, model="plain").status_code for i in range(10)]
    assert statuses.count(200) == 6
    assert statuses.count(429) == 4


def test_a_revoked_key_and_the_kill_switch_reach_both_within_seconds(replicas: Replicas) -> None:
    key = run(replicas.config, "keys", "create", "gone", "--namespace", "four", "--quiet")
    other = run(replicas.config, "keys", "create", "stays", "--namespace", "four", "--quiet")
    assert all(replicas.chat(r, key, model="plain").status_code == 200 for r in (0, 1))
    id = key.split("-")[1]
    run(replicas.config, "keys", "revoke", id)
    for replica in (0, 1):
        until(lambda replica=replica: replicas.chat(replica, key, model="plain").status_code == 401, 6)

    def mode(replica: int) -> str:
        return str(replicas.chat(replica, other).json()["agentcascade"]["mode"])

    assert [mode(0), mode(1)] == ["cascade", "cascade"]
    run(replicas.config, "switch", "teacher")
    try:
        for replica in (0, 1):
            until(lambda replica=replica: mode(replica) == "teacher", 6)
    finally:
        run(replicas.config, "switch", "normal")
    for replica in (0, 1):
        until(lambda replica=replica: mode(replica) == "cascade", 6)
