"""Requests whose client goes away, at every door and moment: settled at what the provider bills or more, none reserved.

Each door's requests go to a teacher that speaks its own API. A client that is gone cannot be told from one that is slow
until its connection is closed; what was generated until then is billed by the provider, whoever reads it.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("fastapi", reason="needs the extra `server`")
from sqlalchemy import func, select

from agentcascade.config.load import CascadeConfig
from agentcascade.storage import Database, open_database, tables
from tests.fake_openai import FakeOpenAI
from tests.provider import Out, Provider, part, whole
from tests.provider import last as usage_chunk
from tests.proxy import Proxy, serving, settings

PRICE = {"input": Decimal(1), "output": Decimal(100)}
DOORS = {
    "chat/completions": "openai/teacher",
    "messages": "anthropic/claude-sonnet-4-5",
    "responses": "openai/responses/teacher",
}
LIMIT, WORDS, HALF, PROMPT = 100, 40, 15, 5
"""Tokens: of an answer at most, of the answer, of it before the provider pauses, of the prompt"""
USAGE = {"prompt_tokens": PROMPT, "completion_tokens": WORDS, "total_tokens": PROMPT + WORDS}


def dollars(prompt: int, answer: int) -> Decimal:
    return (PRICE["input"] * prompt + PRICE["output"] * answer) / 1_000_000


@dataclass
class Generation:
    """One request at the provider: it begins when `begin` is set, and pauses in the middle until `go_on` is."""

    reached: threading.Event = field(default_factory=threading.Event)
    begin: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    sent: threading.Event = field(default_factory=threading.Event)
    words: int = 0

    def chunks(self) -> Iterator[Any]:
        self.begin.wait(60)
        for _ in range(WORDS):
            if self.words == HALF:
                self.go_on.wait(60)
            self.words += 1
            yield part({"content": "word "})
        yield part({}, "stop")
        yield usage_chunk(USAGE)


class Served(NamedTuple):
    proxy: Proxy
    generations: dict[str, Generation]
    database: Database

    def ask(self, door: str, name: str, stream: bool) -> tuple[http.client.HTTPConnection, Generation]:
        """Send a request in the episode `name`; wait until the provider has it."""
        generation = self.generations[name] = Generation()
        text = f"say it: {name}"
        said: Any = {"input": text} if door == "responses" else {"messages": [{"role": "user", "content": text}]}
        limit = {"max_output_tokens" if door == "responses" else "max_tokens": LIMIT}
        body = {"model": door.partition("/")[0], "stream": stream, "store": False, **limit, **said}
        if door != "responses":
            del body["store"]
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=90)
        headers = {"content-type": "application/json", "x-agentcascade-episode": name}
        connection.request("POST", f"/v1/{door}", json.dumps(body), headers)
        assert generation.reached.wait(60)
        return connection, generation

    def settled(self, name: str) -> tuple[Decimal, Decimal, str]:
        """(dollars booked in the budget, dollars in the ledger, failures) of an episode once nothing is reserved."""
        deadline = time.monotonic() + 90
        while True:
            with self.database.begin() as connection:
                of = tables.accounts.c.name.endswith(f"/{name}")
                spent = connection.execute(select(tables.accounts.c.spent).where(of)).scalar()
                held = select(func.count()).where(tables.reservations.c.name.endswith(f"/{name}"))
                reserved = connection.execute(held).scalar_one()
                billed = select(tables.calls.c.dollars).join(tables.decisions)
                lines = connection.execute(billed.where(tables.decisions.c.episode == name)).scalars().all()
                failures = select(tables.decisions.c.failures).where(tables.decisions.c.episode == name)
                failed = connection.execute(failures).scalars().all()
            if spent and not reserved and failed:
                return spent, sum((line for line in lines if line), Decimal(0)), str(failed)
            assert time.monotonic() < deadline, f"booked {spent}, {reserved} reserved, recorded: {failed}"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    generations: dict[str, Generation] = {}

    def answer(body: dict[str, Any], out: Out) -> None:
        asked = json.dumps(body)
        generation = next(generations[name] for name in sorted(generations, key=len, reverse=True) if name in asked)
        generation.reached.set()
        if body.get("stream"):
            out.events(generation.chunks())
        else:
            generation.begin.wait(60)
            generation.words = WORDS
            out.json(whole({"content": "word " * WORDS}, usage=USAGE))
        generation.sent.set()

    folder: Path = tmp_path_factory.mktemp("abandoned")
    with Provider(answer) as provider, FakeOpenAI() as unused:
        base = settings(unused, folder, budgets={"per_episode": "1"}, retrieval={"k": 0})
        teacher = {**base["teacher"], "api_base": provider.url, "price": PRICE, "timeout_seconds": 120}
        named = {
            door.partition("/")[0]: {"mode": "teacher", "teacher": {**teacher, "name": name}}
            for door, name in DOORS.items()
        }
        with serving(CascadeConfig(**base, cascades=named)) as proxy:
            database = open_database(proxy.config.bank.url)
            yield Served(proxy, generations, database)
            for generation in generations.values():
                generation.begin.set()
                generation.go_on.set()
            database.close()


def read_words(response: http.client.HTTPResponse, count: int) -> None:
    """Read the lines of a stream until so many words came."""
    seen = 0
    while seen < count:
        line = response.readline()
        assert line, "the stream ended"
        seen += line.count(b'"word "')


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("stream", [False, True])
def test_before_the_first_byte(served: Served, door: str, stream: bool) -> None:
    """Whole answers are waited for, and booked as they are billed; of a stream the most that may come of it is."""
    name = f"early-{door.partition('/')[0]}-{stream}"
    connection, generation = served.ask(door, name, stream)
    connection.close()
    if stream:
        booked, ledger, failures = served.settled(name)
        generation.begin.set()
        assert booked >= dollars(PROMPT, LIMIT)
    else:
        generation.begin.set()
        booked, ledger, failures = served.settled(name)
        assert generation.sent.wait(60)
        assert booked == dollars(PROMPT, WORDS)
    assert "Cancelled" in failures
    assert ledger >= dollars(PROMPT, WORDS)
    assert booked <= dollars(100, LIMIT)


@pytest.mark.parametrize("door", DOORS)
def test_in_the_middle_of_a_stream(served: Served, door: str) -> None:
    name = f"middle-{door.partition('/')[0]}"
    connection, generation = served.ask(door, name, True)
    generation.begin.set()
    response = connection.getresponse()
    assert response.status == 200
    read_words(response, HALF)
    response.close()
    connection.close()
    booked, ledger, failures = served.settled(name)
    assert generation.words == HALF
    generation.go_on.set()
    assert dollars(PROMPT, HALF) <= booked <= dollars(100, LIMIT)
    assert ledger >= dollars(PROMPT, HALF)
    assert "Cancelled" in failures


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("stream", [False, True])
def test_with_the_answer_unread(served: Served, door: str, stream: bool) -> None:
    """All of it was generated and sent, and nobody has read a byte: the bill is the provider's, to the token."""
    name = f"unread-{door.partition('/')[0]}-{stream}"
    connection, generation = served.ask(door, name, stream)
    generation.begin.set()
    generation.go_on.set()
    assert generation.sent.wait(60)
    connection.close()
    booked, ledger, _ = served.settled(name)
    assert booked >= dollars(PROMPT, WORDS)
    assert ledger >= dollars(PROMPT, WORDS)
    assert booked <= dollars(100, LIMIT)
