"""Audits by the provider's batch interface: sent together, billed at its prices, judged as audits at once are."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentcascade import build
from agentcascade.cascade import Cascade
from agentcascade.errors import ConfigError, NoBatches
from agentcascade.ledger.ledger import Ledger
from agentcascade.models.pricing import Price
from agentcascade.models.scripted import ScriptedModel
from agentcascade.step import audit_rounds
from agentcascade.step.background import BackgroundTasks
from agentcascade.steplog.audits import count_audits
from agentcascade.steplog.database import export
from agentcascade.storage import open_database
from agentcascade.storage.batches import BatchStore
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.types import Account
from tests.batch_provider import BatchProvider, completion, say
from tests.unit.step.test_audit import Seen

FREE = Price(input=Decimal(0), output=Decimal(0))


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    with BatchProvider() as running:
        yield running


def make(folder: Path, provider: BatchProvider, *, student: Any = ("look",), **settings: Any) -> Cascade:
    audit: Any = {"rate": 1.0, "batch": True, **settings.pop("audit", {})}
    cascade = build(
        teacher={
            "name": "openai/gpt-4o", "api_base": provider.url, "api_key": "k", "price": {"input": 2, "output": 4},
            "max_tokens": 50,
        },
        student=ScriptedModel(list(student), name="student", price=FREE),
        bank={"url": f"sqlite:///{folder / 'a.db'}"},
        retrieval={"k": 0},
        router={"name": "threshold", "options": {"n": 3, "threshold": 0.6}},
        audit=audit,
        **settings,
    )  # fmt: skip
    if cascade.context.batches is not None:
        cascade.context.batches.seconds = 0.01
    return cascade


async def take_steps(cascade: Cascade, number: int) -> list[str]:
    answers: list[str] = []
    for i in range(number):
        answer = await cascade.episode(f"task {i}", id=f"e{i}").complete([{"role": "user", "content": f"Task {i}"}])
        answers.append(answer.agentcascade.answered_by)
    return answers


def wait_until_it_runs(provider: BatchProvider) -> None:
    while not any(held.status == "in_progress" for held in provider.batches.values()):
        time.sleep(0.01)


def check_money(folder: Path, provider: BatchProvider, *, direct: int = 0) -> None:
    """Ledger, audits' report and provider say the same: half of the teacher's price, but for so many `direct` calls."""
    with closing(open_database(folder / "a.db")) as database:
        bill = provider.dollars(1, 2)
        spent = sum(float(s.dollars or 0) for s in Ledger(database).summary("all"))
        assert spent == pytest.approx(bill + direct * (100 * 2 + 10 * 4) / 1e6, abs=1e-12)
        assert float(count_audits(database, "default").dollars or 0) == pytest.approx(bill, abs=1e-12)
        assert count_audits(database, "another").dollars == 0


async def test_audits_go_as_one_batch_and_are_kept_and_billed(tmp_path: Path, provider: BatchProvider) -> None:
    provider.answer = lambda b: (200, completion(b, ["wait" if "Task 3" in b["messages"][-1]["content"] else "look"]))
    seen = Seen()
    async with make(tmp_path, provider, observer=seen, audit={"batch_size": 5}) as cascade:
        assert await take_steps(cascade, 5) == ["student"] * 5
        await cascade.settle(batches=True)
        assert cascade.engine.state.rounds is not None
    assert [len(held.requests) for held in provider.batches.values()] == [5]
    assert provider.count("POST", "/v1/chat/completions") == 0
    assert [loss for _, loss, *_ in seen.audits] == [0, 0, 0, 1, 0]
    with closing(open_database(tmp_path / "a.db")) as database:
        steps = export(database, kinds=("audit",))
        assert sorted(s.teacher or "" for s in steps) == ["look"] * 4 + ["wait"]
        assert count_audits(database)[:2] == (5, 1)
        assert {s.group for s in Ledger(database).summary("mode")} == {"batch", "cascade"}
        assert (BatchStore(database).newest()[0].purpose, BatchStore(database).newest(open_only=True)) == ("audit", [])
        assert BatchStore(database).outcomes_of(BatchStore(database).newest()[0].id) == {"taken": 5}
    check_money(tmp_path, provider)


async def test_differing_answers_alarm_the_guard(tmp_path: Path, provider: BatchProvider) -> None:
    provider.answer = say("wait")
    async with make(tmp_path, provider, audit={"risk": 0.05}) as cascade:
        assert await take_steps(cascade, 6) == ["student"] * 6
        assert cascade.context.guard is not None
        assert not cascade.context.guard.alarmed
        await cascade.settle(batches=True)
        assert cascade.context.guard.alarmed
    check_money(tmp_path, provider)


@pytest.mark.parametrize("fault", ["refused", "expired", "unread"])
async def test_a_batch_that_fails_makes_failed_audits(tmp_path: Path, provider: BatchProvider, fault: str) -> None:
    if fault == "refused":
        provider.on_creation((400, {"error": {"message": "no", "type": "invalid_request_error", "code": None}}))
    elif fault == "expired":
        provider.expires_after = 1
    else:
        provider.answer = lambda body: (500, {"error": {"message": "broken"}})
    seen = Seen()
    direct = (200, completion({"model": "gpt-4o"}, ["look"]))
    provider.hooks.append(lambda method, path: direct if path == "/v1/chat/completions" else None)
    student = ["look"] * 12 + ["a", "b", "c"] * 4
    async with make(tmp_path, provider, student=student, observer=seen, audit={"risk": 0.5}) as cascade:
        assert await take_steps(cascade, 8) == ["student"] * 4 + ["teacher"] * 4
        await cascade.settle(batches=True)
    answered = 1 if fault == "expired" else 0
    losses = [loss for _, loss, *_ in seen.audits]
    assert len(losses) == answered + answered, "as large a share of the steps without an audit is left out"
    with closing(open_database(tmp_path / "a.db")) as database:
        assert (count_audits(database).steps, len(list(export(database, kinds=("audit",))))) == (answered, 4)
    check_money(tmp_path, provider, direct=4)


async def test_what_waits_when_it_is_closed_is_not_sent_and_what_was_sent_is_judged_by_the_next(
    tmp_path: Path, provider: BatchProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_rounds, "CLOSE_SECONDS", 60.0)  # of a busy machine
    seen = Seen()
    async with make(tmp_path, provider, observer=seen, audit={"risk": 0.05, "batch_size": 3}) as cascade:
        provider.polls = 10**9
        await take_steps(cascade, 5)
        await asyncio.to_thread(wait_until_it_runs, provider)
    assert seen.audits == []
    assert [len(held.requests) for held in provider.batches.values()] == [3]
    with closing(open_database(tmp_path / "a.db")) as database:
        assert count_audits(database).steps == 0
        assert len(list(export(database, kinds=("audit",)))) == 2, "those that were not sent"
        assert len(BatchStore(database).newest(open_only=True)) == 1, "`batch wait` bills it"
    provider.polls = 0
    async with make(tmp_path, provider, observer=seen, audit={"risk": 0.05, "batch_size": 3}) as again:
        await again.settle(batches=True)
    assert [loss for _, loss, *_ in seen.audits] == [0, 0, 0]
    with closing(open_database(tmp_path / "a.db")) as database:
        assert count_audits(database)[:2] == (3, 0)
    assert len(provider.batches) == 1
    check_money(tmp_path, provider)


async def test_audits_that_do_not_fit_into_a_budget_are_not_sent(tmp_path: Path, provider: BatchProvider) -> None:
    async with make(tmp_path, provider, budgets={"per_namespace": "0.0001"}, audit={"batch_size": 5}) as cascade:
        assert await take_steps(cascade, 5) == ["student"] * 5
        await cascade.settle(batches=True)
    assert not provider.batches
    with closing(open_database(tmp_path / "a.db")) as database:
        assert (count_audits(database).steps, len(list(export(database, kinds=("audit",))))) == (0, 5)
        budgets = DatabaseBudgets(database)
        balance = budgets.balance(Account(scope="namespace", name="default", limit=Decimal(1), period="month"))
        assert [balance.spent, balance.reserved] == [0, 0]
        budgets.close()
    check_money(tmp_path, provider)


async def test_budgets_of_episodes_and_those_of_the_namespace_are_settled(
    tmp_path: Path, provider: BatchProvider
) -> None:
    async with make(tmp_path, provider, budgets={"per_namespace": 1, "per_episode": "0.5"}) as cascade:
        await take_steps(cascade, 3)
        await cascade.settle(batches=True)
    assert [len(held.requests) for held in provider.batches.values()] == [1, 1, 1], "each within its episode's budget"
    with closing(open_database(tmp_path / "a.db")) as database:
        budgets = DatabaseBudgets(database)
        balance = budgets.balance(Account(scope="namespace", name="default", limit=Decimal(1), period="month"))
        assert float(balance.spent) == pytest.approx(provider.dollars(1, 2))
        assert balance.reserved == 0
        budgets.close()
    check_money(tmp_path, provider)


def test_a_blocking_episode_has_them_too(tmp_path: Path, provider: BatchProvider) -> None:
    with make(tmp_path, provider) as cascade:
        for i in range(2):
            episode = cascade.sync_episode(f"task {i}")
            episode.complete([{"role": "user", "content": f"Task {i}"}])
        asyncio.run(cascade.settle(batches=True))
    assert [len(held.requests) for held in provider.batches.values()] == [2]
    check_money(tmp_path, provider)


async def test_no_more_wait_than_are_allowed(tmp_path: Path, provider: BatchProvider) -> None:
    async with make(tmp_path, provider, audit={"batch_pending": 2}) as cascade:
        assert await take_steps(cascade, 4) == ["student"] * 4
        await cascade.settle(batches=True)
    assert [len(held.requests) for held in provider.batches.values()] == [2]


def test_an_endpoint_without_batches_is_refused_when_the_cascade_is_built(
    tmp_path: Path, provider: BatchProvider
) -> None:
    provider.hooks.append(lambda method, path: (404, {"error": {"message": "Not Found"}}))
    with pytest.raises(NoBatches, match=r"GET /batches answers 404.*audit\.batch"):
        make(tmp_path, provider)
    with pytest.raises(NoBatches, match=r"gemini.*audit\.batch"):
        build(
            teacher="gemini/gemini-2.5-pro", student=ScriptedModel(["a"]), audit={"rate": 0.1, "batch": True},
            bank={"url": f"sqlite:///{tmp_path / 'b.db'}"}, retrieval={"k": 0},
        )  # fmt: skip


def test_a_teacher_of_ones_own_is_refused(tmp_path: Path, provider: BatchProvider) -> None:
    from openai import OpenAI

    from agentcascade import wrap

    own = ScriptedModel(["a"])
    place: Any = {"bank": {"url": f"sqlite:///{tmp_path / 'b.db'}"}, "retrieval": {"k": 0}}
    audit: Any = {"rate": 0.1, "batch": True}
    with pytest.raises(ConfigError, match=r"audit\.batch needs the teacher of the configuration"):
        build(teacher=own, student=own, audit=audit, **place)
    named = {"name": "openai/gpt-4o", "api_base": provider.url, "api_key": "k"}
    given: list[Any] = [{}, {"teacher": named}]
    for teacher in given:
        with pytest.raises(ConfigError, match=r"audit\.batch needs the teacher of the configuration"):
            wrap(OpenAI(api_key="k", base_url=provider.url), student=own, audit=audit, **place, **teacher)
    with make(tmp_path, provider) as cascade, pytest.raises(ConfigError, match=r"audit\.batch needs"):
        cascade.twin(teacher=own)


def test_direct_audits_have_no_rounds(tmp_path: Path, provider: BatchProvider) -> None:
    with make(tmp_path, provider, audit={"batch": False}) as cascade:
        assert cascade.engine.state.rounds is None
        assert isinstance(cascade.engine.state.audits, BackgroundTasks)
    assert provider.asked == []


async def test_audits_of_a_batch_share_requests(tmp_path: Path, provider: BatchProvider) -> None:
    """Three to a request, at half the price; what a shared answer lacks is sent once more, alone."""

    def answer(body: Any) -> tuple[int, Any]:
        prompt = body["messages"][-1]["content"]
        codes = re.findall(r"<situation (\d+-[0-9a-f]{6,})>", prompt)
        blocks = [f"<{code}>\nlook\n</{code}>" for code in codes if not code.startswith("2-")]
        return 200, completion(body, ["\n".join(blocks) or "look"])

    provider.answer = answer
    seen = Seen()
    async with make(tmp_path, provider, observer=seen, audit={"batch_size": 5, "together": 3}) as cascade:
        await take_steps(cascade, 5)
        await cascade.settle(batches=True)
        sizes = [[r["body"]["max_tokens"] // 50 for r in held.requests] for held in provider.batches.values()]
        assert sizes == [[3, 2], [1, 1]]
        assert [loss for _, loss, *_ in seen.audits] == [0.0] * 5
        assert cascade.context.database is not None
        spent = {line.group: float(line.dollars or 0) for line in Ledger(cascade.context.database).summary("mode")}
        assert spent["batch"] == pytest.approx(provider.dollars(1, 2))
        assert cascade.context.recorder is not None
        cascade.context.recorder.flush()
        logged = export(cascade.context.database, kinds=("audit",))
        assert Counter(step.asked_together for step in logged) == {3: 2, 2: 1, None: 2}
