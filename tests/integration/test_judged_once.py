"""One episode told to two processes at once, without how it ended: its judge is paid once, and booked."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from sqlalchemy import func, select

from agentcascade import Cascade, build
from agentcascade.episodes import stateless
from agentcascade.storage import leases, open_database, tables
from tests.fake_openai import FakeOpenAI, Reply, Request


def cascade(url: str, provider: FakeOpenAI) -> Cascade:
    common: Any = {"api_base": provider.url, "api_key": "k", "retries": 0, "price": {"input": "1", "output": "2"}}
    teacher: Any = {"name": "openai/teacher", **common}
    judge: Any = {"model": {"name": "openai/judge", **common}}
    return build(
        mode="collect",
        teacher=teacher,
        judge=judge,
        bank={"url": url},
        retrieval={"embedder": "hashing:64"},
    )


def test_a_judge_is_paid_once_by_two_processes(url: str) -> None:
    def reply(request: Request) -> Reply:
        return Reply(("yes",), delay=0.7) if request.body["model"] == "judge" else Reply(("look",))

    async def play(provider: FakeOpenAI) -> None:
        async with cascade(url, provider) as running:
            await running.episode(id="e", stateless=True).complete([{"role": "user", "content": "goal"}])

    async def finish(provider: FakeOpenAI) -> str:
        """In a loop of its own, as a process has."""
        async with cascade(url, provider) as running:
            found = await stateless.find_recorded(running.engine, "default", "e")
            return await stateless.finish_or_say(running.engine, found, None)

    with FakeOpenAI(reply) as provider, ThreadPoolExecutor(2) as pool:
        asyncio.run(play(provider))
        told = [pool.submit(asyncio.run, finish(provider)) for _ in range(2)]
        assert {t.result(60) for t in told} == {"", "it was judged already"}
        assert sum(r.body["model"] == "judge" for r in provider.requests) == 1
    with closing(open_database(url)) as database, database.begin() as connection:
        judged = select(func.count()).select_from(tables.calls).where(tables.calls.c.purpose == "judge")
        assert connection.execute(judged).scalar_one() == 1
        left = select(func.count()).select_from(tables.settings).where(tables.settings.c.name.startswith(leases.PREFIX))
        assert connection.execute(left).scalar_one() == 0


def test_a_lease_is_one_s_own_until_its_time_is_over(url: str) -> None:
    with closing(open_database(url)) as database:
        first = leases.take(database, "x", 60)
        assert first is not None
        assert (leases.take(database, "x", 60), leases.take(database, "y", 60) is None) == (None, False)
        leases.give_back(database, "x", first)
        dead = leases.take(database, "x", -1)
        assert dead is not None
        later = leases.take(database, "x", 60)
        assert later is not None
        leases.give_back(database, "x", dead)
        assert leases.take(database, "x", 60) is None, "somebody else's is left alone"
