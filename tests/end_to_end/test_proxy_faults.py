"""What stands behind the proxy fails in mid-run: the agent keeps getting answers, and no record is lost.

Run with `-s` for the table of faults.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest

from tests.fake_openai import FakeOpenAI, Reply, Request

pytest.importorskip("fastapi", reason="needs the extra `server`")
from sqlalchemy import Engine, event, select

from agentcascade._util.ports import free_port
from agentcascade.config.load import CascadeConfig
from agentcascade.storage import open_database, tables
from tests.proxy import serving, settings


class Wire:
    """A relay to a TCP server, which can be cut or fall silent."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._listener: socket.socket | None = None
        self._pairs: list[socket.socket] = []
        self._flows = threading.Event()
        self._flows.set()
        self.port = free_port()
        self.mend()

    def mend(self) -> None:
        """Connections are taken, and all that was held back flows."""
        self._flows.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=50)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def hush(self) -> None:
        """Connections stay, and new ones are taken, but nothing comes through: a network that loses everything."""
        self._flows.clear()

    def cut(self) -> None:
        """Connections break, and new ones are refused: a server that was stopped."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        pairs, self._pairs = self._pairs, []
        for end in pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._to)
                self._pairs += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._relay, args=(one, other), daemon=True).start()

    def _relay(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                self._flows.wait()
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def answer(request: Request) -> Reply:
    return Reply(texts=("student says",)) if request.body["model"] == "student" else Reply(texts=("teacher says so",))


def recorded(url: str) -> list[Any]:
    database = open_database(url)
    try:
        with database.begin() as connection:
            query = select(tables.decisions).order_by(tables.decisions.c.created_at)
            return list(connection.execute(query).mappings())
    finally:
        database.close()


def until(look: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found


@pytest.fixture
def wire(postgres_url: str) -> Iterator[tuple[Wire, str]]:
    """A wire to a fresh database, and the URL that goes through it."""
    parts = urlsplit(postgres_url)
    assert parts.hostname
    assert parts.port
    made = Wire(parts.hostname, parts.port)
    yield made, postgres_url.replace(f":{parts.port}/", f":{made.port}/")
    made.cut()


Fault = Literal["hush", "cut"]


@pytest.mark.parametrize("budget", [None, Decimal(1)], ids=["no-budget", "budget"])
@pytest.mark.parametrize("fault", ["hush", "cut"])
def test_postgres_goes_away_in_mid_run(
    wire: tuple[Wire, str],
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    budget: Decimal | None,
) -> None:
    """Long enough that what is remembered of keys and bank is not fresh any more; also where budgets must be asked."""
    monkeypatch.chdir(tmp_path)  # where the records go that the database does not take
    line, url = wire
    with FakeOpenAI(answer) as fake:
        config = settings(fake, tmp_path, bank={"url": url}, deadline_seconds=30, sampling={"timeout_seconds": 7})
        with serving(CascadeConfig(**config)) as proxy:
            key = proxy.key("k", budget=budget, requests_per_minute=1000)
            assert proxy.chat("before", key=key).status_code == 200
            until(lambda: len(recorded(postgres_url)) == 1)
            getattr(line, fault)()
            time.sleep(2.5)
            with ThreadPoolExecutor(12) as pool:
                goals = [f"during {i}" for i in range(12)]
                during = list(pool.map(lambda goal: proxy.chat(goal, key=key), goals))
            assert [d.status_code for d in during] == [200] * 12, [d.text for d in during]
            stranger = proxy.chat(key="ac-" + "0" * 12 + "-" + "x" * 43)
            assert stranger.status_code in (401, 503), "no stranger gets in meanwhile"
            assert proxy.http.get("/readyz").status_code in (503, 504)
            assert proxy.http.get("/healthz").status_code == 200
            line.mend()
            until(lambda: proxy.http.get("/readyz").status_code == 200)
            until(lambda: proxy.chat("after", key=key).json()["agentcascade"]["failures"] == [])
            said = during[-1].json()["agentcascade"]
            slowest = max(d.elapsed.total_seconds() for d in during)
    table(f"PostgreSQL {WORDS[fault]}{', with a budget' if budget else ''}", said, f"at most {slowest:.1f} s")
    rows = recorded(postgres_url)
    assert {r["goal"] for r in rows} >= {"before", *goals, "after"}, "no record is lost"
    if budget:
        assert any(f.startswith("budget:") for r in rows for f in r["failures"])


WORDS = {"hush": "hangs", "cut": "stopped"}


def table(fault: str, said: dict[str, Any], more: str = "") -> None:
    failures = ", ".join(said["failures"]) or said["reason"]
    print(f"\n| {fault} | 200, the {said['answered_by']}'s answer | {failures} | {more} |")


@pytest.fixture
def read_only() -> Iterator[threading.Event]:
    """While it is set, no connection to SQLite may write, as when the disk is full."""
    wanted = threading.Event()

    def tell(connection: Any) -> None:
        raw = connection.connection.dbapi_connection
        raw.execute(f"PRAGMA query_only={'ON' if wanted.is_set() else 'OFF'}")

    event.listen(Engine, "begin", tell)
    yield wanted
    event.remove(Engine, "begin", tell)


def test_an_sqlite_file_that_may_not_be_written_any_more(tmp_path: Path, read_only: threading.Event) -> None:
    with FakeOpenAI(answer) as fake, serving(CascadeConfig(**settings(fake, tmp_path))) as proxy:
        key = proxy.key("k", budget=Decimal(1), requests_per_minute=1000)
        assert proxy.chat("before", key=key).status_code == 200
        url = proxy.config.bank.url
        until(lambda: len(recorded(url)) == 1)
        read_only.set()
        during = proxy.chat("during", key=key)
        assert during.status_code == 200, during.text
        spilled = tmp_path / "cascade.db.spill.jsonl"
        until(lambda: spilled.exists() and "during" in spilled.read_text())
        read_only.clear()
        assert proxy.chat("after", key=key).status_code == 200
        until(lambda: {r["goal"] for r in recorded(url)} == {"before", "during", "after"})
    table("SQLite file read-only", during.json()["agentcascade"], "spilled, then taken in")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_characters_that_a_database_does_not_store(
    kind: str,
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PostgreSQL has no NUL in its texts; a tool that read a binary file may well have."""
    monkeypatch.chdir(tmp_path)
    url = postgres_url if kind == "postgres" else f"sqlite:///{tmp_path}/cascade.db"
    config = {"mode": "collect", "bank": {"url": url}}
    with FakeOpenAI(answer) as fake, serving(CascadeConfig(**settings(fake, tmp_path, **config))) as proxy:
        episode = proxy.chat("read\x00it \ufffe").json()["agentcascade"]["episode"]
        told = proxy.feedback(episode)
        assert told.json() == {"episode": episode, "banked": True}, told.text
        assert proxy.chat("next").status_code == 200
    assert len(recorded(url)) == 2


@pytest.mark.parametrize("mode", ["teacher", "cascade", "collect"])
def test_half_a_character_from_a_model_stops_nothing(tmp_path: Path, mode: str) -> None:
    """It cannot be encoded: neither for the client nor for the database, whose writer must survive it."""
    with (
        FakeOpenAI([Reply(texts=("half \ud83d",))]) as fake,
        serving(CascadeConfig(**settings(fake, tmp_path, mode=mode))) as proxy,
    ):
        told = proxy.chat("one").json()
        assert told["choices"][0]["message"]["content"] == "half ?"
        streamed = proxy.chat("two", stream=True)
        assert streamed.status_code == 200
        assert streamed.text.rstrip().endswith("[DONE]")
        assert proxy.feedback(told["agentcascade"]["episode"]).json()["banked"] is (mode == "collect")
    assert sorted(r["goal"] for r in recorded(proxy.config.bank.url)) == ["one", "two"]
