"""Life cycles: what closes, when, and that nothing is lost where a program does not close anything."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import func, select

import agentcascade
from agentcascade import Cascade, ScriptedModel, build
from agentcascade._util import forking, threads
from agentcascade.errors import CascadeClosed
from agentcascade.integrations.openai import Wrapped
from agentcascade.lifetime import Lifetime
from agentcascade.storage import open_database, tables
from tests.fake_openai import FakeOpenAI, Reply

TASK = [{"role": "user", "content": "put a mug on the desk"}]
PROGRAM = """
import asyncio, os, sys, agentcascade
cascade = agentcascade.build(
    teacher=agentcascade.ScriptedModel(["look"]), student=agentcascade.ScriptedModel(["look"]), mode="shadow",
    bank={"url": sys.argv[1]}, retrieval={"embedder": "hashing", "index": "exact"})
task = [{"role": "user", "content": "put a mug on the desk"}]
"""
SYNC = "for i in range(20): cascade.sync_episode('g', id=f'e{i}').complete(task)\n"
ASYNC = """
async def steps():
    for i in range(20): await cascade.episode('g', id=f'e{i}').complete(task)
asyncio.run(steps())
"""
FORKED = """
cascade.sync_episode('g', id='first').complete(task)
children = []
for i in range(3):
    if not (child := os.fork()):
        for j in range(6): cascade.sync_episode('g', id=f'c{i}.{j}').complete(task)
        if i: cascade.close()
        os._exit(0)
    children.append(child)
cascade.sync_episode('g', id='parent').complete(task)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
cascade.close()
agentcascade.build(teacher=agentcascade.ScriptedModel(["look"]), mode="teacher", bank={"url": sys.argv[1]},
                   retrieval={"k": 0}).close()
"""


def run(program: str, url: str) -> None:
    quiet = ["-W", "ignore:This process:DeprecationWarning"]  # Python 3.12 says so of every fork beside threads
    command = [sys.executable, *quiet, "-c", PROGRAM + program, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def counted(url: str, table: str = "decisions") -> int:
    database = open_database(url)
    with database.begin() as connection:
        found = connection.execute(select(func.count()).select_from(tables.metadata.tables[table])).scalar_one()
    database.close()
    return int(found)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/bank.db"


@pytest.fixture
def make(url: str) -> Iterator[Callable[..., Cascade]]:
    made: list[Cascade] = []

    def start(**changed: Any) -> Cascade:
        options: dict[str, Any] = {
            "teacher": ScriptedModel(["look"]),
            "mode": "teacher",
            "bank": {"url": url},
            "retrieval": {"embedder": "hashing", "index": "exact"},
        }
        made.append(build(**options | changed))
        return made[-1]

    yield start
    for cascade in made:
        cascade.close()


@pytest.mark.parametrize(("program", "steps"), [(SYNC, 20), (ASYNC, 20), (FORKED, 20)], ids=["sync", "async", "forked"])
def test_a_program_that_never_closes_loses_nothing(url: str, program: str, steps: int) -> None:
    run(program, url)
    assert counted(url) == steps
    if program is SYNC:
        assert counted(url, "shadows") == steps


def test_close_waits_for_the_shadows_of_the_blocking_face(make: Callable[..., Cascade], url: str) -> None:
    cascade = make(mode="shadow", student=ScriptedModel(["look"], delay=0.3))
    for i in range(4):
        cascade.sync_episode(id=f"e{i}").complete(TASK)
    cascade.close()
    database = open_database(url)
    with database.begin() as connection:
        samples = connection.execute(select(tables.shadows.c.samples)).scalars().all()
    database.close()
    assert len(samples) == 4
    assert all(samples)


def test_whoever_closes_second_waits_for_the_first(make: Callable[..., Cascade], url: str) -> None:
    cascade = make(mode="shadow", student=ScriptedModel(["look"], delay=0.3))
    cascade.sync_episode().complete(TASK)
    closing = threading.Event()
    cascade.on_close(closing.set)  # the last that was added is called first, behind the tasks
    first = threading.Thread(target=cascade.close)
    first.start()
    while not cascade.engine.state.life.closed:
        first.join(0.01)
    cascade.close()
    assert closing.is_set()
    assert counted(url, "shadows") == 1
    first.join()


async def test_aclose_waits_for_shadows_of_every_loop(make: Callable[..., Cascade], url: str) -> None:
    cascade = make(mode="shadow", student=ScriptedModel(["look"], delay=0.2))
    await cascade.episode(id="here").complete(TASK)
    await asyncio.to_thread(cascade.sync_episode(id="there").complete, TASK)
    await cascade.aclose()
    assert counted(url, "shadows") == 2


async def test_a_blocking_cascade_is_closed_inside_a_running_loop(make: Callable[..., Cascade], url: str) -> None:
    with make() as cascade:
        cascade.sync_episode().complete(TASK)
    assert counted(url) == 1


def test_a_closed_cascade_answers_nothing(make: Callable[..., Cascade]) -> None:
    cascade = make()
    early, blocking = cascade.episode(), cascade.sync_episode()
    cascade.close()
    for call in (lambda: blocking.complete(TASK), lambda: cascade.sync_episode().complete(TASK)):
        with pytest.raises(CascadeClosed, match="build another one"):
            call()
    for episode in (early, cascade.episode()):
        with pytest.raises(CascadeClosed, match="was closed"):
            asyncio.run(episode.complete(TASK))
    twin = cascade.twin(teacher=ScriptedModel(["look"]))
    with pytest.raises(CascadeClosed):
        asyncio.run(twin.episode().complete(TASK))


def test_a_step_under_way_hears_that_its_cascade_was_closed(make: Callable[..., Cascade]) -> None:
    cascade = make(teacher=ScriptedModel(["look"], delay=30))
    episode, heard = cascade.sync_episode(), []

    def step() -> None:
        try:
            episode.complete(TASK)
        except Exception as error:
            heard.append(error)

    thread = threading.Thread(target=step)
    thread.start()
    while not cascade.engine.state.life.loop or not asyncio.all_tasks(
        cascade.engine.state.life.loop._loop
    ):  # the step is not there yet
        thread.join(0.01)
    cascade.close()
    thread.join(60)
    assert [type(e) for e in heard] == [CascadeClosed]


def test_what_fails_to_close_does_not_keep_the_rest_open(make: Callable[..., Cascade], url: str) -> None:
    cascade = make()

    def fail() -> None:
        raise OSError("no")

    cascade.on_close(fail)
    cascade.sync_episode().complete(TASK)
    with pytest.raises(OSError, match="no"):
        cascade.close()
    assert counted(url) == 1


def test_cascades_that_nobody_holds_are_closed(make: Callable[..., Cascade], url: str) -> None:
    def drop() -> None:
        cascade = build(
            teacher=ScriptedModel(["look"]), mode="teacher", bank={"url": url}, retrieval={"embedder": "hashing"}
        )
        cascade.sync_episode().complete(TASK)

    before = set(threading.enumerate())
    for _ in range(5):
        drop()
    __import__("gc").collect()
    ends = time.monotonic() + 60
    while left := {t.name for t in set(threading.enumerate()) - before} - {"agentcascade-call"}:
        assert time.monotonic() < ends, left
        time.sleep(0.01)
    assert counted(url) == 5


def test_a_copy_keeps_what_its_original_opened(make: Callable[..., Cascade]) -> None:
    life = Lifetime()
    closed: list[str] = []
    life.add(lambda: closed.append("first"), last=True)
    life.add(lambda: closed.append("second"))
    copy = life
    del life
    assert closed == []
    copy.close()
    copy.close()
    assert closed == ["second", "first"]


def test_blocking_calls_do_not_wait_for_each_other(url: str) -> None:
    """More threads than the machine has cores ask at once, while a student hangs in as many calls."""
    gate, others = threading.Barrier(24), set(threading.enumerate())

    async def meet() -> None:
        await asyncio.gather(*(threads.apart(gate.wait, 20) for _ in range(24)))

    asyncio.run(meet())
    threads.dismiss()
    assert not [t for t in threading.enumerate() if t.name == "agentcascade-call" and t not in others]


def test_a_wrapped_client_serves_many_threads_while_its_student_hangs(url: str) -> None:
    with FakeOpenAI([Reply(texts=("look",), delay=0.2)]) as server:
        client = openai.OpenAI(base_url=server.url, api_key="k", max_retries=0)
        wrapped = agentcascade.wrap(
            client, student="client/s", mode="teacher", bank={"url": url}, retrieval={"embedder": "hashing", "k": 0}
        )

        def ask(i: int) -> Any:
            return wrapped.chat.completions.create(model="t", messages=[{"role": "user", "content": str(i)}])

        with ThreadPoolExecutor(30) as pool:
            answers = list(pool.map(ask, range(30)))
        Wrapped.of(wrapped).close()
        with pytest.raises(CascadeClosed):
            ask(0)
    assert len(answers) == 30
    assert server.most_at_once > 12
    assert counted(url) == 30


async def test_errors_and_contexts_pass_through_a_thread() -> None:
    def fail() -> None:
        raise StopIteration("odd")

    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.apart(fail)
    waiting = asyncio.ensure_future(threads.apart(time.sleep, 0.05))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await threads.apart(lambda: threading.current_thread().daemon)


def test_a_lock_that_was_held_at_a_fork_is_free_in_the_child() -> None:
    held, again = forking.lock(), forking.rlock()
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        with held, again:
            holding.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(60)
    child = os.fork()
    if not child:
        os._exit(0 if held.acquire(timeout=20) and again.acquire(timeout=20) else 1)
    release.set()
    assert os.waitpid(child, 0)[1] == 0
    thread.join()
