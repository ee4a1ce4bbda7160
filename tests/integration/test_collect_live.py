"""`collect.active` in mode cascade: the teacher plays the live episodes that are wanted as demonstrations."""

from __future__ import annotations

import asyncio
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentcascade import Cascade, build
from agentcascade.bank import live_collection
from agentcascade.bank.active import account_of
from agentcascade.bank.catalog import Catalog
from agentcascade.episodes import stateless
from agentcascade.episodes.identity import episode_of
from agentcascade.errors import ConfigError, UnknownPrice
from agentcascade.storage import open_database
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.storage.record_rows import write_records
from agentcascade.types import Call, Decision, Mode, Usage
from tests.fake_openai import FakeOpenAI, Reply, Request

COOL, HEAT = "cool an apple in the fridge", "heat some bread"
TEACHER_CALL = Decimal("0.0014")
"""Of a reply's ten prompt and two output tokens."""


def reply(request: Request) -> Reply:
    return Reply([f"{'look' if 'teacher' in request.body['model'] else 'guess'}"])


def cascade(url: str, provider: FakeOpenAI, **collect: Any) -> Cascade:
    common = {"api_base": provider.url, "api_key": "k", "max_tokens": 2}
    teacher: Any = {"name": "openai/my-teacher", "price": {"input": "100", "output": "200"}, **common}
    student: Any = {"name": "openai/my-student", "price": {"input": "1", "output": "2"}, **common}
    active: Any = {"active": True, "budget": Decimal(5), "horizon": 20, **collect}
    return build(
        teacher=teacher,
        student=student,
        bank={"url": url},
        retrieval={"embedder": "hashing:128", "k": 3},
        prompt={"min_demonstrations": 0},
        router={"name": "unanimity", "options": {"n": 2}},
        collect=active,
    )


def seen_live(url: str, alone: str = "0.02") -> None:
    """Four episodes of two steps each: the student always defers on cooling, and never on heating."""
    call = Call(role="teacher", model="t", usage=Usage(), dollars=Decimal("0.02"))
    with closing(open_database(url)) as database, database.begin(write=True) as connection:
        for goal, by in ((COOL, "teacher"), (HEAT, "student")):
            for step in range(8):
                decision = Decision(
                    episode=f"{goal} {step // 2}", step=step % 2, goal=goal, mode="cascade", answered_by=by, reason="",
                    samples=2, calls=(call,) if by == "teacher" else (), dollars=Decimal("0.0001"),
                    teacher_dollars=Decimal(alone),
                )  # fmt: skip
                write_records(connection, [decision])


def said(goal: str, *turns: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": goal}]
    for turn in turns:
        messages += [{"role": "assistant", "content": turn}, {"role": "user", "content": "You see a door."}]
    return messages


def spent(url: str) -> tuple[Decimal, Decimal]:
    with closing(open_database(url)) as database:
        account = account_of("default", Decimal(5))
        assert account is not None
        balance = DatabaseBudgets(database).balance(account)
    return balance.spent, balance.reserved


def test_the_teacher_plays_what_is_wanted_and_nothing_else(url: str) -> None:
    seen_live(url)

    async def run(provider: FakeOpenAI) -> None:
        async with cascade(url, provider) as running:
            wanted, other = running.episode(), running.episode()
            for turn in range(2):
                first = (await wanted.complete(said(COOL, *["look"] * turn))).agentcascade
                second = (await other.complete(said(HEAT, *["guess"] * turn))).agentcascade
                assert (first.mode, first.answered_by, first.samples) == ("collect", "teacher", 0)
                assert first.reason.startswith("wanted: expected to save $")
                assert (second.mode, second.answered_by) == ("cascade", "student")
            assert await wanted.finish(True)
            assert not await other.finish(True)
            named = running.episode(mode="cascade")  # who names a mode gets it
            assert (await named.complete(said(f"{COOL} 2"))).agentcascade.mode == "cascade"

    with FakeOpenAI(reply) as provider:
        asyncio.run(run(provider))
    assert spent(url) == (2 * TEACHER_CALL, Decimal(0))
    with closing(open_database(url)) as database:
        assert [(e.goal, e.length) for e in Catalog(database).list()] == [(COOL, 2)]


def test_replicas_of_a_stateless_caller_agree_and_bank_the_whole_episode(url: str) -> None:
    seen_live(url)

    async def run(provider: FakeOpenAI) -> None:
        async with cascade(url, provider) as one, cascade(url, provider) as two:
            first = await one.episode(id="e", stateless=True).complete(said(COOL))
            second = await two.episode(id="e", stateless=True).complete(said(COOL, "look"))
            third = await one.episode(id="e", stateless=True).complete(said(COOL, "look", "look"))
            assert [a.agentcascade.mode for a in (first, second, third)] == ["collect"] * 3
            later = await two.episode(id="other", stateless=True).complete(said(COOL, "guess"))
            assert later.agentcascade.mode == "cascade"  # it began elsewhere, unseen
            found = await stateless.find_recorded(one.engine, "default", "e")
            assert await stateless.finish(one.engine, found, True)

    with FakeOpenAI(reply) as provider:
        asyncio.run(run(provider))
    with closing(open_database(url)) as database:
        assert [(e.goal, e.length) for e in Catalog(database).list()] == [(COOL, 3)]


@pytest.mark.parametrize("keeps_session", [True, False])
def test_a_budget_that_ends_within_an_episode_breaks_no_step_and_banks_no_half(
    tmp_path: Path, keeps_session: bool
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    seen_live(url, alone="0.0005")

    async def run(provider: FakeOpenAI) -> None:
        # The live price of an episode is $0.0008, so it is begun; a call may cost some $0.0015.
        async with cascade(url, provider, budget=Decimal("0.0028")) as running:
            episode = running.episode(id="e", stateless=not keeps_session)
            answers = []
            for turn in range(3):
                if not keeps_session:
                    episode = running.episode(id="e", stateless=True)
                answers.append((await episode.complete(said(COOL, *["look"] * turn))).agentcascade)
            assert [a.mode for a in answers] == ["collect", "cascade", "cascade"]
            assert [a.answered_by for a in answers] == ["teacher", "student", "student"]
            if keeps_session:
                assert not await episode.finish(True)
            else:
                found = await stateless.find_recorded(running.engine, "default", "e")
                assert not await stateless.finish(running.engine, found, True)

    with FakeOpenAI(reply) as provider:
        asyncio.run(run(provider))
    assert spent(url) == (TEACHER_CALL, Decimal(0))
    with closing(open_database(url)) as database:
        assert Catalog(database).list() == []


def test_a_cold_start_collects_what_is_new_and_no_more_than_its_limit(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"

    async def run(provider: FakeOpenAI) -> list[Mode]:
        async with cascade(url, provider, cold_start=2) as running:
            return [
                (await running.episode().complete(said(goal))).agentcascade.mode
                for goal in (COOL, COOL, HEAT, "look at a book under the lamp")
            ]

    with FakeOpenAI(reply) as provider:
        assert asyncio.run(run(provider)) == ["collect", "cascade", "collect", "cascade"]


def test_a_conversation_that_comes_again_without_an_id_is_asked_about_anew(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"

    async def run(provider: FakeOpenAI) -> list[Mode]:
        async with cascade(url, provider) as running:
            modes = []
            for _ in range(2):  # at one place, as of a proxy's caller who names no episode
                for turn in range(2):
                    episode = episode_of(running.engine, said(COOL, *["look"] * turn))
                    modes.append((await episode.complete(said(COOL, *["look"] * turn))).agentcascade.mode)
            return modes

    with FakeOpenAI(reply) as provider:
        assert asyncio.run(run(provider)) == ["collect", "collect", "cascade", "cascade"]


def test_evidence_is_read_again_behind_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    monkeypatch.setattr(live_collection, "FRESH_SECONDS", 0.0)

    async def run(provider: FakeOpenAI) -> list[Mode]:
        async with cascade(url, provider, cold_start=0) as running:
            assert running.context.collection is not None
            modes = []
            for _ in range(3):
                modes.append((await running.episode().complete(said(COOL))).agentcascade.mode)
                running.context.collection.close()
                if len(modes) == 1:
                    seen_live(url)
            return modes

    with FakeOpenAI(reply) as provider:
        assert asyncio.run(run(provider)) == ["cascade", "cascade", "collect"]


def test_off_by_default_and_what_cannot_be_weighed_is_an_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    common: dict[str, Any] = {"student": "openai/s", "bank": {"url": url}, "retrieval": {"embedder": "hashing:16"}}
    with build(teacher="openai/gpt-4o", **common) as plain:
        assert plain.context.collection is None
    with pytest.raises(UnknownPrice, match=r"set teacher\.price"):
        build(teacher="openai/nobodys-model", collect={"active": True}, **common)
    common["retrieval"] = {"k": 0}
    with pytest.raises(ConfigError, match=r"set retrieval\.k above 0"):
        build(teacher="openai/gpt-4o", collect={"active": True}, **common)


def test_an_episode_without_a_goal_is_not_collected_since_it_could_not_be_banked(tmp_path: Path) -> None:
    image: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with FakeOpenAI(reply) as provider, cascade(f"sqlite:///{tmp_path}/a.db", provider) as built:
        for content in ([image], "look at this"):
            episode = built.sync_episode()
            decision = episode.complete([{"role": "user", "content": content}]).agentcascade
            assert decision.mode == ("cascade" if isinstance(content, list) else "collect")
            assert episode.finish(success=True) is (decision.mode == "collect")
