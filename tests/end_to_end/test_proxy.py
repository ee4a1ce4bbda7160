"""`agentcascade serve` as a process of its own: how it stops, what it logs, and what raw bytes do to it."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.fake_openai import FakeOpenAI, Reply, Request

pytest.importorskip("fastapi", reason="needs the extra `server`")
from sqlalchemy import select, update

from agentcascade._util.ports import free_port
from agentcascade.storage import open_database, tables
from agentcascade.storage.keys import Keys
from agentcascade.types import now
from tests.proxy import UPSTREAM_KEY, settings

CLIENTS_OWN = "sk-clients-own-0123456789abcdef"
CONTENTS = "the quick brown secret of the client"
MESSAGES = [{"role": "user", "content": f"{CONTENTS}: {CLIENTS_OWN}"}]


class Server:
    """A process that serves, its log, and its database."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
        self.process, self.port, self.folder = process, port, folder
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def chat(self, key: str = "", **more: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=asked(**more), headers=bearer(key))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def recorded(self) -> list[Any]:
        database = open_database(f"sqlite:///{self.folder}/cascade.db")
        with database.begin() as connection:
            found = connection.execute(select(tables.decisions)).mappings().all()
        database.close()
        return list(found)

    def raw(self, data: bytes) -> bytes:
        """All that comes back for these bytes on a connection of their own."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            client.sendall(data)
            got = b""
            with suppress(TimeoutError, ConnectionError):
                while part := client.recv(65536):
                    got += part
        return got


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "default", "messages": MESSAGES} | more


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


@contextmanager
def served(fake: FakeOpenAI, folder: Path, **more: Any) -> Iterator[Server]:
    port = free_port()
    (folder / "agentcascade.yaml").write_text(yaml.safe_dump(settings(fake, folder, **more)))
    command = [sys.executable, "-m", "agentcascade", "serve", "--port", str(port)]
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
    server = Server(process, port, folder)
    try:
        deadline = time.monotonic() + 120
        while True:
            with suppress(httpx.TransportError):
                if server.http.get("/readyz").status_code == 200:
                    break
            assert process.poll() is None, server.log
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield server
    finally:
        server.http.close()
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it running."""

    def answer(request: Request) -> Reply:
        return Reply(status=500) if "break" in json.dumps(request.body) else Reply(texts=("teacher says so",))

    with FakeOpenAI(answer) as fake:
        limits = {"max_body_bytes": 20_000, "header_seconds": 1.5, "body_seconds": 1.0}
        with served(fake, tmp_path_factory.mktemp("served"), mode="teacher", server=limits) as running:
            yield running
            assert running.stop() == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_signal_lets_what_is_under_way_end_and_loses_no_record(tmp_path: Path, stream: bool) -> None:
    reply = Reply(texts=("one two three four five six",), chunk_delay=0.25) if stream else Reply(delay=1.5)
    with FakeOpenAI([reply]) as fake, served(fake, tmp_path, mode="teacher", deadline_seconds=60) as server:
        got: list[httpx.Response] = []
        client = threading.Thread(target=lambda: got.append(server.chat(stream=stream)))
        client.start()
        while not fake.requests:
            time.sleep(0.01)
        time.sleep(0.3)
        assert server.stop() == 0, server.log
        client.join(60)
        assert got[0].status_code == 200
        if stream:
            assert got[0].text.rstrip().endswith("data: [DONE]")
            assert "six" in got[0].text
        else:
            assert got[0].json()["choices"][0]["message"]["content"] == "hello"
        (row,) = server.recorded()
        assert row["failures"] == []
        assert "Traceback" not in server.log


def test_a_provider_that_never_ends_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    endless = Reply(texts=("word " * 1000,), chunk_delay=0.2)
    with (
        FakeOpenAI([endless]) as fake,
        served(fake, tmp_path, mode="teacher", deadline_seconds=60, server={"shutdown_seconds": 1}) as server,
    ):

        def ask() -> None:
            with suppress(httpx.HTTPError):
                server.chat(stream=True)

        client = threading.Thread(target=ask)
        client.start()
        while not fake.requests:
            time.sleep(0.01)
        time.sleep(0.5)
        started = time.monotonic()
        assert server.stop() == 0, server.log
        assert time.monotonic() - started < 60
        client.join(60)
        assert not client.is_alive()
        assert fake.disconnected.wait(60)
        (row,) = server.recorded()
        assert any("Cancelled" in f for f in row["failures"])


def test_a_client_that_goes_away_before_the_first_chunk_cancels_the_call(tmp_path: Path) -> None:
    with FakeOpenAI([Reply(delay=60)]) as fake, served(fake, tmp_path, mode="teacher", deadline_seconds=90) as server:
        body = json.dumps(asked(stream=True)).encode()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head(len(body)) + body)
            while not fake.requests:
                time.sleep(0.01)
            time.sleep(0.2)
        started = time.monotonic()
        while not (rows := server.recorded()):
            assert time.monotonic() - started < 30, "it waits for an answer that nobody wants"
            time.sleep(0.05)
        assert any("Cancelled" in f for f in rows[0]["failures"])
        assert server.stop() == 0


def head(length: int, *more: str) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"content-length: {length}", "connection: close", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def test_a_revoked_an_expired_and_a_good_key(tmp_path: Path) -> None:
    with FakeOpenAI() as fake, served(fake, tmp_path, mode="teacher") as server:
        database = open_database(f"sqlite:///{tmp_path}/cascade.db")
        keys = Keys(database)
        _, good = keys.create("good")
        made, revoked = keys.create("revoked")
        _, expired = keys.create("expired", expires_at=now() - timedelta(seconds=1))
        until_status(server, expired, 401)
        until_status(server, revoked, 200)
        assert [server.chat(k).status_code for k in (good, revoked, expired)] == [200, 200, 401]
        _, expiring = keys.create("expiring", expires_at=now() + timedelta(hours=1))
        until_status(server, expiring, 200)
        with database.begin() as connection:  # an hour later
            connection.execute(update(tables.keys).where(tables.keys.c.name == "expiring").values(expires_at=now()))
        keys.revoke(made.id)
        database.close()
        until_status(server, revoked, 401)
        until_status(server, expiring, 401)
        answers = [server.chat(k) for k in (revoked, expired, expiring, "ac-" + "0" * 12 + "-" + "x" * 43, "x")]
        assert len({a.text for a in answers}) == 1, "the answer does not say what is wrong with a key"
        assert server.chat(good).status_code == 200
        assert server.http.post("/v1/chat/completions", json=asked(), headers={"x-api-key": good}).status_code == 200
        basic = {"authorization": f"Basic {good}"}
        assert server.http.post("/v1/chat/completions", json=asked(), headers=basic).status_code == 401
        assert server.stop() == 0
        for key in (good, revoked, expired, expiring):
            assert key.split("-", 2)[2] not in server.log + everything(tmp_path)


def until_status(server: Server, key: str, status: int) -> None:
    deadline = time.monotonic() + 60
    while server.chat(key).status_code != status:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def everything(folder: Path) -> str:
    kept = (p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in ("agentcascade.yaml", "log"))
    return b"".join(kept).decode(errors="replace")


def test_logs_are_lines_of_json_without_secrets_or_contents(server: Server) -> None:
    told = [server.chat(), server.chat(stream=True), server.chat(user="break"), server.chat(model=CLIENTS_OWN)]
    assert [t.status_code for t in told] == [200, 200, 502, 404]
    deadline = time.monotonic() + 60
    while len(server.recorded()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    ours = [line for line in lines if line.get("route") == "/v1/chat/completions"]
    assert [line["status"] for line in ours][-4:] == [200, 200, 502, 404]
    assert ours[-1]["request_id"] == told[-1].headers["x-request-id"]
    assert ours[-2]["episode"], "a line names the episode"
    for secret in (UPSTREAM_KEY, CLIENTS_OWN, CONTENTS):
        assert secret not in server.log
    for secret in (UPSTREAM_KEY, CLIENTS_OWN):
        assert secret not in everything(server.folder)
    assert not any(UPSTREAM_KEY in t.text for t in told)
    assert "Traceback" not in server.log


BODY = json.dumps(asked()).encode()


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (head(len(BODY)) + BODY, {200}),
        (head(len(BODY), "x-agentcascade-episode: a\tb") + BODY, {400}),
        (head(len(BODY), "x-agentcascade-episode: caf\xe9") + BODY, {400}),
        (head(len(BODY), "x-agentcascade-episode:") + BODY, {200}),
        (head(len(BODY), "x-agentcascade-episode: a", "x-agentcascade-episode: b") + BODY, {200, 400}),
        (head(len(BODY), "x-agentcascade-goal: \xff\xfe%zz%00") + BODY, {200, 400}),
        (head(len(BODY), "x-request-id: a\xe9<script>") + BODY, {200}),
        (head(len(BODY), "authorization: Bearer \xff\xfe") + BODY, {200}),
        (head(len(BODY), "transfer-encoding: chunked") + BODY, {400}),
        (head(len(BODY), "content-length: 1") + BODY, {400}),
        (head(10**12) + BODY, {413}),
        (head(-1) + BODY, {400}),
        (head(len(BODY) + 50) + BODY, {408}),
        (head(len(BODY)).replace(b"HTTP/1.1", b"HTTP/9.9") + BODY, {400}),
        (head(len(BODY)).replace(b"/v1/chat", b"/v1/../v1/chat") + BODY, {404}),
        (head(len(BODY)).replace(b"/v1/chat", b"/v1\x00/chat") + BODY, {400}),
        (head(len(BODY), *[f"x-{i}: {'y' * 1000}" for i in range(200)]) + BODY, {200, 400, 431}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),
        (b"\x00" * 100, {400}),
        (b"GET /healthz HTTP/0.9\r\n\r\n", {200, 400, 505}),
    ],
)
def test_raw_bytes(server: Server, data: bytes, statuses: set[int]) -> None:
    got = server.raw(data)
    assert got.startswith(b"HTTP/1.1 "), got[:200]
    assert int(got.split(b" ", 2)[1]) in statuses, got[:500]
    lower = got.lower()
    assert b"traceback" not in lower
    assert b"<script>" not in lower
    assert b"\xe9" not in got.split(b"\r\n\r\n")[0]
    assert server.http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b'{"model":"default","messages":[{"role":"user","content":"\\u0000 \\u001b[31m"}]}',
        b'{"model":"default","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"default","messages":[{"role":"user","content":"a"}],"messages":[]}',
        b'{"model":"default","seed":' + b"9" * 4000 + b',"messages":[{"role":"user","content":"a"}]}',
        b'{"model":"default","max_tokens":' + b"9" * 300 + b',"messages":[{"role":"user","content":"a"}]}',
        b'{"model":"default","temperature":1e999,"messages":[{"role":"user","content":"a"}]}',
        b'{"model":"default","messages":[{"role":"user","content":"a"}],"tools":' + b"[" * 150 + b"]" * 150 + b"}",
        b'{"model":"default","messages":[{"role":"user","content":"a"}],"x":' + b"[" * 9000 + b"]" * 9000 + b"}",
        b'{"model":"default","messages":[{"role":"user","content":[]}]}',
        b'{"model":"default","messages":[{"role":"user","content":[{"type":"image_url","image_url":7}]}]}',
        b'{"model":"default","messages":[{"role":"tool","tool_call_id":"x","content":"a"}]}',
        b'{"model":"default","messages":[{"role":"user","content":"a"}],"metadata":{"agentcascade_goal":"\\r\\nb: c"}}',
        b'{"model":"default","messages":[{"role":"user","content":"a"}],"tool_choice":{"type":"nonsense"}}',
        b'{"model":"default","messages":[{"role":"user","content":"a"}],"response_format":{"type":"json_schema"}}',
        b'{"model":"default","messages":[{"role":"user","content":"a"}],"logit_bias":"x","stop":[[[]]],"user":{"a":1}}',
        b'{"model":"default","messages":[{"role":"user","content":"a"}],"stream_options":{"include_usage":"x"}}',
        gzip.compress(BODY),
        BODY.decode().encode("utf-16"),
        b"model=default&messages=hi",
    ],
)
@pytest.mark.parametrize("mode", ["plain", "stream"])
def test_odd_json_is_answered_or_refused_but_never_breaks_anything(server: Server, content: bytes, mode: str) -> None:
    if mode == "stream":
        content = content.replace(b'{"model"', b'{"stream":true,"model"', 1)
    response = server.http.post("/v1/chat/completions", content=content)
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert response.json()["error"].keys() == {"message", "type", "param", "code"}
        assert len(response.content) < 2000, "an error does not send everything back"
    assert "b" not in response.headers
    assert "Traceback" not in server.log
