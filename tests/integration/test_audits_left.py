"""Audits that a killed process has sent and not judged: the next one judges each, once, in their order."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from agentcascade import build
from agentcascade.cascade import Cascade
from agentcascade.errors import StorageError
from agentcascade.models.pricing import Price
from agentcascade.models.scripted import ScriptedModel
from agentcascade.redaction.redactor import Redactor
from agentcascade.step import audit
from agentcascade.step.audit_rounds import AuditRounds
from agentcascade.steplog.audits import count_audits
from agentcascade.steplog.database import export
from agentcascade.storage import Database, open_database
from agentcascade.storage.audit_rounds import AuditRoundStore, DrawnAudit
from agentcascade.storage.batches import BatchStore
from agentcascade.storage.retention import RetentionPolicy, prune
from agentcascade.storage.tables import audit_entries, audit_rounds
from agentcascade.types import now
from tests.batch_provider import BatchProvider, completion
from tests.unit.step.test_audit import Seen
from tests.waiting import eventually, until

STUDENT = ["look"] * 6 + ["a", "b", "c"] + ["mail ada@example.com"] * 3
"""Of two steps, of one that the teacher takes, and of another."""


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    with BatchProvider(polls=10**9) as running:
        yield running


def make(url: str, provider: str, **settings: Any) -> Cascade:
    asked: Any = {"rate": 1.0, "batch": True, "batch_size": 3, "risk": 0.9, **settings.pop("audit", {})}
    cascade = build(
        teacher={"name": "openai/gpt-4o", "api_base": provider, "api_key": "k", "max_tokens": 50, "retries": 0},
        student=ScriptedModel(list(STUDENT), name="student", price=Price(input=0, output=0)),
        bank={"url": url},
        retrieval={"k": 0},
        router={"name": "threshold", "options": {"n": 3, "threshold": 0.6}},
        audit=asked,
        **settings,
    )
    assert cascade.context.batches is not None
    cascade.context.batches.seconds = 0.01
    return cascade


async def take_steps(cascade: Cascade) -> None:
    for i in range(4):
        await cascade.episode(f"task {i}", id=f"e{i}").complete([{"role": "user", "content": f"Task {i}"}])


def play_and_wait(url: str, provider: str, together: int) -> None:
    """What the process does that is killed."""

    async def play() -> None:
        async with make(url, provider, audit={"together": together}) as cascade:
            await take_steps(cascade)
            await cascade.settle(batches=True)

    asyncio.run(play())


def killed_between_sending_and_judging(url: str, provider: BatchProvider, together: int = 1) -> None:
    direct = (200, completion({"model": "gpt-4o"}, ["look"]))
    provider.hooks.append(lambda method, path: direct if path == "/v1/chat/completions" else None)
    code = f"from tests.integration.test_audits_left import *; play_and_wait({url!r}, {provider.url!r}, {together})"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        until(lambda: is_running(provider) or child.poll() is not None)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    with closing(open_database(url)) as database:
        assert count(database) == (1, 4)
        with database.begin(write=True) as connection:  # as after a while
            kept = "".join(connection.execute(select(audit_entries.c.drawn)).scalars())
            connection.execute(update(audit_rounds).values(held_until=now() - timedelta(seconds=1)))
    assert "mail [email]" in kept
    assert "ada@" not in kept
    provider.polls = 0


def is_running(provider: BatchProvider) -> bool:
    return any(held.status == "in_progress" for held in list(provider.batches.values()))


def count(database: Database) -> tuple[int, int]:
    with database.begin() as connection:
        found = [
            connection.execute(select(func.count()).select_from(t)).scalar_one() for t in (audit_rounds, audit_entries)
        ]
    return found[0], found[1]


async def judged_by_the_next(url: str, provider: BatchProvider, **settings: Any) -> list[float]:
    seen = Seen()
    async with make(url, provider.url, observer=seen, **settings) as cascade:
        await cascade.settle(batches=True)
    return [loss for _, loss, *_ in seen.audits]


async def test_the_next_process_judges_what_a_killed_one_has_sent(url: str, provider: BatchProvider) -> None:
    said = {"Task 1": "wait", "Task 3": "mail ada@example.com"}
    provider.answer = lambda b: (200, completion(b, [said.get(b["messages"][-1]["content"], "look")]))
    killed_between_sending_and_judging(url, provider)
    assert await judged_by_the_next(url, provider) == [0, 1, 0, 0], "the third step was the teacher's own"
    assert await judged_by_the_next(url, provider) == [], "each once"
    assert provider.count("POST", "/v1/batches") == 1, "nothing is sent again"
    with closing(open_database(url)) as database:
        assert count(database) == (0, 0)
        assert count_audits(database)[:2] == (3, 1)
        logged = {step.episode: step.teacher for step in export(database, kinds=("audit",))}
    assert logged == {"e0": "look", "e1": "wait", "e3": "mail [email]"}


async def test_equal_requests_of_two_processes_are_judged_by_an_answer_each(url: str, provider: BatchProvider) -> None:
    """One that is there judges its own, which says nothing of those that a killed one has sent."""
    provider.answer = lambda b: (200, completion(b, ["look"]))
    killed_between_sending_and_judging(url, provider)
    with closing(open_database(url)) as database, database.begin(write=True) as connection:
        connection.execute(update(audit_rounds).values(held_until=now() + timedelta(minutes=5)))
    seen = Seen()
    async with make(url, provider.url, observer=seen) as other:
        await take_steps(other)
        await other.settle(batches=True)
    assert [loss for _, loss, *_ in seen.audits] == [0, 0, 0, 1]
    let_a_while_pass(url)
    assert await judged_by_the_next(url, provider) == [0, 0, 0, 1]
    assert [len(held.requests) for held in provider.batches.values()] == [3, 3]
    with closing(open_database(url)) as database:
        assert BatchStore(database).bill()[:2] == (2, 6)


async def test_audits_that_shared_a_request_are_told_apart(url: str, provider: BatchProvider) -> None:
    def answer(body: Any) -> tuple[int, Any]:
        codes = re.findall(r"<situation (\d+-[0-9a-f]{6,})>", body["messages"][-1]["content"])
        said = {"1": "look", "2": "wait"}
        return 200, completion(body, ["".join(f"<{c}>\n{said.get(c[0], '')}\n</{c}>" for c in codes)])

    provider.answer = answer
    killed_between_sending_and_judging(url, provider, together=3)
    assert await judged_by_the_next(url, provider) == [0, 1, 0], "the third was not answered, and is a failed audit"
    with closing(open_database(url)) as database:
        assert {s.episode: s.asked_together for s in export(database, kinds=("audit",))} == {
            "e0": 3,
            "e1": 3,
            "e3": None,
        }


async def test_a_process_that_is_there_keeps_its_rounds(
    url: str, provider: BatchProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another replica takes nothing over, and one that was asleep for too long judges nothing."""
    monkeypatch.setattr(AuditRounds, "begin", lambda self, restore: None)  # it would hold them again at any time
    direct = (200, completion({"model": "m"}, ["look"]))
    provider.hooks.append(lambda method, path: direct if path == "/v1/chat/completions" else None)
    seen = Seen()
    async with make(url, provider.url, observer=seen) as first:
        await take_steps(first)
        await eventually(lambda: is_running(provider))
        with closing(open_database(url)) as database:
            other = AuditRoundStore(database, Redactor())
            assert other.take_over("default", "openai/gpt-4o") == []
            with database.begin(write=True) as connection:
                connection.execute(update(audit_rounds).values(held_until=now() - timedelta(seconds=1)))
            (taken,) = other.take_over("default", "openai/gpt-4o")
        assert len(taken.audits) == 4
        provider.polls = 0
        await first.settle(batches=True)
        assert seen.audits == []


async def test_a_database_that_is_gone_for_a_while_loses_no_audit(url: str, provider: BatchProvider) -> None:
    """What waits for a day meets a restart of the database; its batch is paid for by then."""
    direct = (200, completion({"model": "m"}, ["look"]))
    provider.hooks.append(lambda method, path: direct if path == "/v1/chat/completions" else None)
    provider.answer = lambda b: (200, completion(b, ["wait" if b["messages"][-1]["content"] == "Task 1" else "look"]))
    seen, failures = Seen(), [StorageError("the server is not there")]
    async with make(url, provider.url, observer=seen) as cascade:
        assert cascade.context.batches is not None
        store = cascade.context.batches.poller.store
        find = store.find

        def failing(keys: Any) -> Any:
            if is_running(provider) and failures:
                raise failures.pop()
            return find(keys)

        store.find = failing  # type: ignore[method-assign]
        await take_steps(cascade)
        await eventually(lambda: not failures)
        provider.polls = 0
        with closing(open_database(url)) as database:
            await eventually(lambda: left(database))
        await cascade.settle(batches=True)
    assert [loss for _, loss, *_ in seen.audits] == [0, 1, 0, 1]
    assert provider.count("POST", "/v1/batches") == 1


async def test_a_process_without_the_right_key_leaves_rounds_to_others(url: str, provider: BatchProvider) -> None:
    provider.answer = lambda b: (200, completion(b, ["look"]))
    killed_between_sending_and_judging(url, provider)
    refusal = 401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
    provider.hooks.append(lambda method, path: refusal if path.startswith("/v1/batches/") else None)
    assert await judged_by_the_next(url, provider) == []
    provider.hooks.pop()
    let_a_while_pass(url)
    assert await judged_by_the_next(url, provider) == [0, 0, 0, 1]


async def test_what_is_cut_off_while_it_is_read_is_logged_by_the_next(
    url: str, provider: BatchProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = (200, completion({"model": "m"}, ["look"]))
    provider.hooks.append(lambda method, path: direct if path == "/v1/chat/completions" else None)
    provider.polls, provider.answer = 0, lambda b: (200, completion(b, ["look"]))
    reading = threading.Event()

    async def hang(*_: object) -> None:
        reading.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(audit, "parse", hang)
        async with make(url, provider.url) as cascade:
            await take_steps(cascade)
            await eventually(reading.is_set)
    let_a_while_pass(url)
    assert await judged_by_the_next(url, provider) == [0, 0, 0, 1]
    with closing(open_database(url)) as database:
        assert {step.episode: step.teacher for step in export(database, kinds=("audit",))} == {
            "e0": "look",
            "e1": "look",
            "e3": "look",
        }


def let_a_while_pass(url: str) -> None:
    """After which a round is nobody's, however late its holder, on a busy machine, has left it."""
    with closing(open_database(url)) as database, database.begin(write=True) as connection:
        connection.execute(update(audit_rounds).values(held_until=now() - timedelta(seconds=1)))


def left(database: Database) -> bool:
    """Whether nobody holds the round."""
    with database.begin() as connection:
        return all(until < now() for until in connection.execute(select(audit_rounds.c.held_until)).scalars())


def test_rounds_whose_cascade_did_not_come_back_go_with_the_drafts(url: str) -> None:
    with closing(open_database(url)) as database:
        AuditRoundStore(database, Redactor()).put("default", "m", [DrawnAudit(), DrawnAudit()])
        prune(database, RetentionPolicy(drafts=14), at=now() + timedelta(days=13))
        assert count(database) == (1, 2)
        prune(database, RetentionPolicy(drafts=14), at=now() + timedelta(days=15))
        assert count(database) == (0, 0)
