"""Several `agentcascade serve` processes over one PostgreSQL behave as one: two, or AGENTCASCADE_TEST_REPLICAS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from openai import NotFoundError, OpenAI

from agentcascade._util.ports import free_port
from agentcascade.bank.catalog import Catalog
from agentcascade.storage import open_database
from tests.fake_openai import FakeOpenAI, Reply, Request

pytest.importorskip("fastapi", reason="needs the extra `server`")

USAGE = {"prompt_tokens": 5, "completion_tokens": 100}
PRICE = {"input": "10", "output": "10"}
EACH = Decimal("0.00105")
"""Dollars of one call."""
COUNT = int(os.environ.get("AGENTCASCADE_TEST_REPLICAS", "2"))
HELD = "slowly: "
"""A goal that begins so is answered when `Replicas.released` is set."""


def answer(request: Request) -> Reply:
    return Reply(texts=("take the mug",) if request.body["model"] == "teacher" else ("student says so",), usage=USAGE)


def run(config: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "agentcascade", *arguments, "--config", str(config)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment()).stdout.strip()


def environment() -> dict[str, str]:
    return os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OMP_NUM_THREADS": "1"}


class Provider(FakeOpenAI):
    """Keeps those waiting whose goal says so."""

    def __init__(self) -> None:
        super().__init__(lambda request: Reply(**vars(answer(request)) | {"delay": 60.0 * self.holds(request)}))
        self.released = threading.Event()
        self.held = 0

    def holds(self, request: Request) -> bool:
        return HELD in json.dumps(request.body["messages"])

    def wait(self, seconds: float) -> None:
        self.held += 1
        self.released.wait(seconds)


class Replicas:
    """Running servers and the provider behind them."""

    def __init__(self, fake: Provider, config: Path, clients: list[httpx.Client]) -> None:
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
def replicas(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE replicas")
    folder = tmp_path_factory.mktemp("replicas")
    with Provider() as fake, ExitStack() as stack:
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
        started = [stack.enter_context(serving(config)) for _ in range(COUNT)]
        for _, client, log in started:
            until(partial(ready, client), 180, log.read_text)
        yield Replicas(fake, config, [client for _, client, _ in started])
        fake.released.set()


@contextmanager
def serving(config: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client, Path]]:
    """One server, a client of it and its log; it must end well, unless it was killed."""
    port = free_port()
    command = [sys.executable, "-m", "agentcascade", "serve", "--config", str(config), "--port", str(port)]
    path = config.parent / f"server{port}.log"
    with path.open("wb") as log, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90) as client:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), cwd=config.parent)
        try:
            yield server, client, path
        finally:
            server.terminate()
            assert server.wait(120) in (0, -signal.SIGKILL)


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

    def hidden(replica: int) -> bool:
        return not shown(replica)

    took = [until(partial(shown, replica), 60) for replica in range(COUNT)]
    print(f"seconds until a demonstration was shown by each replica: {[round(t, 1) for t in took]}")
    assert "take the mug" in replicas.prompts("student")[-1]
    shown_window = replicas.chat(0, key).json()["agentcascade"]["demonstrations"][0]
    run(replicas.config, "bank", "remove", shown_window.split(":")[0])
    for replica in range(COUNT):
        until(partial(hidden, replica), 60)


def test_an_agent_that_is_quicker_than_the_records_loses_no_step_between_replicas(replicas: Replicas) -> None:
    key = run(replicas.config, "keys", "create", "quick", "--namespace", "quick", "--quiet")
    episodes, steps = 10, 3

    def play(number: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": f"find mug {number}"}]
        for step in range(steps):
            asked = {"model": "collecting", "messages": messages}
            headers = {"authorization": f"Bearer {key}", "x-agentcascade-episode": f"quick-{number}"}
            replica = replicas.clients[(number + step) % COUNT]
            said = replica.post("/v1/chat/completions", json=asked, headers=headers).json()
            messages += [said["choices"][0]["message"], {"role": "user", "content": f"looked {step}"}]
        found: dict[str, Any] = replicas.finish((number + steps) % COUNT, key, f"quick-{number}").json()
        return found

    with ThreadPoolExecutor(3) as pool:
        assert all(closed["banked"] for closed in pool.map(play, range(episodes)))
    with closing(open_database(yaml.safe_load(replicas.config.read_text())["bank"]["url"])) as database:
        assert [entry.length for entry in Catalog(database).list(namespace="quick")] == [steps] * episodes


def test_a_budget_holds_over_both(replicas: Replicas) -> None:
    fits = 20
    budget = EACH * fits
    key = run(replicas.config, "keys", "create", "poor", "--budget", str(budget), "--namespace", "two", "--quiet")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: replicas.chat(i % COUNT, key, f"goal {i}", model="plain"), range(60)))
    statuses = [a.status_code for a in answers]
    assert set(statuses) == {200, 402}
    refused = next(a for a in answers if a.status_code == 402).json()["error"]
    assert (refused["code"], refused["type"]) == ("budget_exceeded", "insufficient_quota")
    assert spent(replicas, "poor") == EACH * statuses.count(200) <= budget
    assert statuses.count(200) >= fits - 8, "reservations are given back"


def test_calls_in_flight_on_all_replicas_never_exceed_a_budget_together(replicas: Replicas) -> None:
    fits = 7
    budget = EACH * fits + EACH / 2
    key = run(replicas.config, "keys", "create", "bold", "--budget", str(budget), "--namespace", "five", "--quiet")
    fake, refused, asked = replicas.fake, [], 6 * COUNT + 20
    fake.released.clear()
    fake.held = 0

    def ask(number: int) -> httpx.Response:
        answered = replicas.chat(number % COUNT, key, f"{HELD}goal {number}", model="plain")
        if answered.status_code == 402:
            refused.append(number)
        return answered

    with ThreadPoolExecutor(asked) as pool:
        answers: list[Future[httpx.Response]] = [pool.submit(ask, i) for i in range(asked)]
        try:
            until(
                lambda: fake.held + len(refused) == asked, 20, lambda: f"{fake.held} in flight, {len(refused)} refused"
            )
            assert 2 <= fake.held <= fits, "all of them in flight at once"
        finally:
            fake.released.set()
        statuses = [a.result().status_code for a in answers]
    assert statuses.count(200) == fake.held
    assert spent(replicas, "bold") == EACH * fake.held <= budget


def test_what_a_replica_that_died_had_reserved_is_refused_by_the_others(replicas: Replicas) -> None:
    key = run(replicas.config, "keys", "create", "once", "--budget", "0.0015", "--namespace", "six", "--quiet")
    fake = replicas.fake
    fake.released.clear()
    fake.held = 0
    with serving(replicas.config) as (server, client, log), ThreadPoolExecutor(1) as pool:
        until(lambda: ready(client), 180, log.read_text)
        dying = Replicas(fake, replicas.config, [client])
        lost = pool.submit(dying.chat, 0, key, f"{HELD}goal", model="plain")
        until(lambda: fake.held == 1, 20)
        server.kill()
        assert isinstance(lost.exception(), httpx.TransportError)
    fake.released.set()
    assert {replicas.chat(r, key, model="plain").status_code for r in range(COUNT)} == {402}


def test_a_response_stored_by_one_replica_is_continued_and_removed_on_another(replicas: Replicas) -> None:
    key = run(replicas.config, "keys", "create", "talks", "--namespace", "seven", "--quiet")
    clients = [OpenAI(base_url=f"{client.base_url}/v1", api_key=key, max_retries=0) for client in replicas.clients]
    here, there = clients[0], clients[-1]
    first = here.responses.create(model="plain", input="Where is the mug?")
    second = there.responses.create(model="plain", input="And the pen?", previous_response_id=first.id)
    said = [m["content"] for m in replicas.fake.requests[-1].body["messages"]]
    assert said == ["Where is the mug?", "take the mug", "And the pen?"]
    assert here.responses.retrieve(second.id).output_text == second.output_text
    there.responses.delete(first.id)
    with pytest.raises(NotFoundError):
        here.responses.retrieve(first.id)


def test_the_ledger_has_every_call_of_every_replica_once(replicas: Replicas) -> None:
    key = run(replicas.config, "keys", "create", "counts", "--namespace", "eight", "--quiet")
    calls = 5 * COUNT
    said = [replicas.chat(i % COUNT, key, f"goal {i}", model="plain") for i in range(calls)]
    assert [answer.text for answer in said if answer.status_code != 200] == []

    def booked() -> list[tuple[int, Decimal]]:
        told = json.loads(run(replicas.config, "ledger", "--namespace", "eight", "--json"))
        return [(group["steps"], Decimal(group["dollars"])) for group in told["groups"]]

    until(lambda: booked() == [(calls, EACH * calls)], 60)


def spent(replicas: Replicas, name: str) -> Decimal:
    listed = json.loads(run(replicas.config, "keys", "list", "--json"))
    return next(Decimal(k["spent"]) for k in listed if k["name"] == name)


def test_a_rate_limit_holds_over_both(replicas: Replicas) -> None:
    key = run(replicas.config, "keys", "create", "slow", "--rpm", "6", "--namespace", "three", "--quiet")
    began = time.time()
    statuses = [replicas.chat(i % COUNT, key, model="plain").status_code for i in range(20)]
    minutes = int(time.time() // 60 - began // 60) + 1  # each of which begins anew
    assert 6 <= statuses.count(200) <= 6 * minutes
    assert statuses.count(200) + statuses.count(429) == 20


def test_a_revoked_key_and_the_kill_switch_reach_both_within_seconds(replicas: Replicas) -> None:
    key = run(replicas.config, "keys", "create", "gone", "--namespace", "four", "--quiet")
    other = run(replicas.config, "keys", "create", "stays", "--namespace", "four", "--quiet")
    assert all(replicas.chat(r, key, model="plain").status_code == 200 for r in range(COUNT))
    id = key.split("-")[1]
    run(replicas.config, "keys", "revoke", id)

    def refused(replica: int) -> bool:
        return replicas.chat(replica, key, model="plain").status_code == 401

    for replica in range(COUNT):
        until(partial(refused, replica), 60)

    def mode(replica: int) -> str:
        return str(replicas.chat(replica, other).json()["agentcascade"]["mode"])

    def has_mode(replica: int, wanted: str) -> bool:
        return mode(replica) == wanted

    assert {mode(replica) for replica in range(COUNT)} == {"cascade"}
    run(replicas.config, "switch", "teacher")
    try:
        for replica in range(COUNT):
            until(partial(has_mode, replica, "teacher"), 60)
    finally:
        run(replicas.config, "switch", "normal")
    for replica in range(COUNT):
        until(partial(has_mode, replica, "cascade"), 60)
