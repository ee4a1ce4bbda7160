"""Keys, budgets, rate limits, retention and the kill switch: the same promises on SQLite and a real PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, func, select, text

from agentcascade.errors import BudgetExceeded, ConfigError, InvalidKey, RateLimited, UnknownEpisode
from agentcascade.ledger.ledger import DatabaseRecorder
from agentcascade.storage import open_database, tables
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.storage.drafts import find_unfinished
from agentcascade.storage.keys import REFUSED, Keys
from agentcascade.storage.rate_limiter import RateLimiter
from agentcascade.storage.retention import RetentionPolicy, prune, prune_daily, vacuum
from agentcascade.storage.switch import Switch
from agentcascade.types import (
    Account,
    Call,
    Decision,
    Draft,
    EpisodeEnd,
    LoggedSample,
    Shadow,
    Usage,
    now,
)


def account(limit: str = "1", **more: Any) -> Account:
    return Account(**{"scope": "key", "name": "k", "limit": Decimal(limit)} | more)


async def test_what_is_reserved_cannot_be_spent_twice_and_what_was_settled_stays_spent(database: Any) -> None:
    budgets = DatabaseBudgets(database)
    first = await budgets.reserve([account()], Decimal("0.6"), 60)
    with pytest.raises(BudgetExceeded, match=r"budget of this key is \$1") as refused:
        await budgets.reserve([account()], Decimal("0.5"), 60)
    assert refused.value.scope == "key"
    await budgets.settle(first, Decimal("0.1000000000001"))
    await budgets.settle(first, Decimal("0.5"))
    await budgets.settle("rs_unknown", Decimal("0.5"))
    assert budgets.balance(account()) == (Decimal("0.100000000001"), Decimal(0))
    await budgets.reserve([account()], Decimal("0.89"), 60)


async def test_one_account_without_enough_leaves_the_others_untouched(database: Any) -> None:
    budgets = DatabaseBudgets(database)
    rich, poor = account("10"), account("0.01", scope="episode", name="e")
    with pytest.raises(BudgetExceeded) as refused:
        await budgets.reserve([rich, poor], Decimal("0.5"), 60)
    assert refused.value.scope == "episode"
    assert budgets.balance(rich) == (Decimal(0), Decimal(0))


async def test_a_reservation_whose_process_died_ends_as_spent(database: Any) -> None:
    budgets = DatabaseBudgets(database)
    lost = await budgets.reserve([account()], Decimal("0.9"), -1)
    with pytest.raises(BudgetExceeded, match=r"\$0\.900000 are spent"):
        await budgets.reserve([account()], Decimal("0.9"), 60)
    await budgets.settle(lost, Decimal("0.3"))
    assert budgets.balance(account()) == (Decimal("0.3"), Decimal(0))


async def test_a_new_day_is_a_new_budget(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = DatabaseBudgets(database)
    daily = account(period="day")
    await budgets.settle(await budgets.reserve([daily], Decimal(1), 60), Decimal(1))
    with pytest.raises(BudgetExceeded, match="a day"):
        await budgets.reserve([daily], Decimal("0.1"), 60)
    tomorrow = now() + timedelta(days=1)
    monkeypatch.setattr("agentcascade.storage.budgets.now", lambda: tomorrow)
    await budgets.reserve([daily], Decimal("0.1"), 60)


def test_many_threads_and_two_replicas_never_overspend(url: str) -> None:
    replicas = [open_database(url) for _ in range(2)]
    budgets = [DatabaseBudgets(d) for d in replicas]
    wanted = [account("1"), account("2", scope="namespace", name="n")]
    granted: list[str] = []
    refused: list[BudgetExceeded] = []
    failed: list[BaseException] = []

    def work(number: int) -> None:
        for _ in range(5):
            try:
                granted.append(budgets[number % 2]._reserve(wanted[:: 1 if number % 3 else -1], Decimal("0.07"), 60))
            except BudgetExceeded as error:
                refused.append(error)
            except BaseException as error:
                failed.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(granted) == 14  # 14 x 0.07 fit into 1
    assert len(refused) == 26
    for id in granted:
        budgets[0]._settle(id, Decimal("0.01"))
    assert budgets[1].balance(wanted[0]) == (Decimal("0.14"), Decimal(0))
    for opened in replicas:
        opened.close()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.decimals("0", "0.5", places=6)), max_size=25))
def test_any_order_of_reserving_and_settling_stays_within_the_limit(tmp_path: Path, work: Any) -> None:
    database = open_database("sqlite:///:memory:")
    budgets, open_ones, spent = DatabaseBudgets(database), {}, dict.fromkeys("abc", Decimal(0))
    for reserve, index, amount in work:
        name = "abc"[index]
        if reserve:
            try:
                open_ones[budgets._reserve([account(name=name)], amount, 60)] = (name, amount)
            except BudgetExceeded:
                held = sum(a for n, a in open_ones.values() if n == name)
                assert spent[name] + held + amount > 1
        elif open_ones:
            id, (owner, ceiling) = open_ones.popitem()
            budgets._settle(id, ceiling / 2)
            spent[owner] += (ceiling / 2).quantize(Decimal("1e-12"))
        for own in "abc":
            balance = budgets.balance(account(name=own))
            assert balance.spent == spent[own]
            assert sum(balance) <= 1
    database.close()


async def test_a_rate_holds_over_replicas_until_the_minute_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = 1_800_000_015.5
    monkeypatch.setattr("agentcascade.storage.rate_limiter.time", SimpleNamespace(time=lambda: at))
    replicas = [open_database(url) for _ in range(2)]
    rates = [RateLimiter(d) for d in replicas]
    for i in range(5):
        await rates[i % 2].allow("k", 5)
    with pytest.raises(RateLimited) as refused:
        await rates[1].allow("k", 5)
    assert refused.value.retry_after == 44.5
    await rates[0].allow("other", 5)
    at += 44.5
    await rates[1].allow("k", 5)
    for opened in replicas:
        opened.close()


def test_a_token_opens_and_only_its_hash_is_stored(database: Any, tmp_path: Path) -> None:
    keys = Keys(database)
    assert not keys.exist()
    made, token = keys.create("me", namespace="mine", cascades=["a"], budget=Decimal("2.5"), period="day")
    assert keys.exist()
    found = keys.authenticate(token)
    assert found == made
    assert found.account() == Account(scope="key", name=made.id, limit=Decimal("2.5"), period="day")
    secret = token.rsplit("-", 1)[-1] if token.count("-") == 2 else token.split("-", 2)[2]
    with database.begin() as connection:
        assert secret not in repr(connection.execute(select(tables.keys)).all())


@pytest.mark.parametrize("how", ["unknown", "malformed", "revoked", "expired", "wrong secret"])
def test_whatever_is_wrong_with_a_key_the_words_are_the_same(database: Any, how: str) -> None:
    keys = Keys(database)
    expires = now() - timedelta(seconds=1) if how == "expired" else None
    made, token = keys.create("me", expires_at=expires)
    if how == "revoked":
        keys.revoke(made.id)
    bad = {
        "unknown": "ac-000000000000-" + "A" * 43,
        "malformed": "sk-123",
        "wrong secret": f"ac-{made.id}-" + "A" * 43,
    }.get(how, token)
    with pytest.raises(InvalidKey) as refused:
        keys.authenticate(bad)
    assert str(refused.value) == REFUSED


def test_a_revocation_reaches_another_replica_within_seconds(url: str) -> None:
    here, there = open_database(url), open_database(url)
    made, token = Keys(here).create("me")
    elsewhere = Keys(there)
    elsewhere.authenticate(token)
    Keys(here).revoke(made.id)
    deadline = time.monotonic() + 60
    works = True
    while works and time.monotonic() < deadline:
        time.sleep(0.1)
        try:
            elsewhere.authenticate(token)
        except InvalidKey:
            works = False
    assert not works
    here.close()
    there.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": ""}, "name ''"),
        ({"name": "a\nb"}, "printable"),
        ({"name": "x", "namespace": " "}, "namespace"),
        ({"name": "x", "budget": Decimal("-1")}, "budget -1"),
        ({"name": "x", "requests_per_minute": 0}, "requests per minute 0"),
    ],
)
def test_an_impossible_key_is_refused(options: dict[str, Any], words: str) -> None:
    database = open_database("sqlite:///:memory:")
    with pytest.raises(ConfigError, match=words):
        Keys(database).create(**options)
    database.close()


def test_the_switch_is_seen_elsewhere_without_a_restart_and_survives_one(url: str) -> None:
    here, there = open_database(url), open_database(url)
    switch, other = Switch(here, every=0.05), Switch(there, every=0.05)
    assert not other.on
    switch.set(True, "drill")
    deadline = time.monotonic() + 60
    while not other.on and time.monotonic() < deadline:
        time.sleep(0.02)
    assert other.on
    assert other.reason == "drill"
    again = Switch(there)
    assert again.on
    switch.set(False)
    assert not again.refresh()
    for part in (switch, other, again):
        part.close()
    here.close()
    there.close()


def test_a_switch_that_cannot_be_read_keeps_its_last_position(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/a.db")
    switch = Switch(database, every=0.0)
    switch.set(True)
    with database.begin(write=True) as connection:
        connection.execute(text("DROP TABLE settings"))
    for _ in range(3):
        assert switch.on
        time.sleep(0.05)
    switch.close()
    database.close()


def decided(number: int, age_days: float = 0, **more: Any) -> Decision:
    call = Call(role="student", purpose="sample", model="m", usage=Usage(input=1), dollars=Decimal("0.01"))
    return Decision(
        **{
            "id": f"de_{number}",
            "episode": "e",
            "step": number,
            "mode": "shadow",
            "answered_by": "teacher",
            "reason": "r",
            "calls": (call,),
            "created_at": now() - timedelta(days=age_days),
        }
        | more
    )


def test_old_records_go_with_what_belongs_to_them_and_young_ones_stay(database: Any) -> None:
    recorder = DatabaseRecorder(database)
    for number, age in enumerate((100, 91, 89, 0)):
        recorder.record(decided(number, age))
        recorder.record_shadow(shadow_of(number))
    recorder.record_end(EpisodeEnd(episode="e", goal="g", mode="teacher", success=True, steps=1, started_at=now()))
    recorder.close()
    assert prune(database, RetentionPolicy(), dry_run=True).decisions == 2
    assert counted(database, "decisions", "calls", "shadows") == [4, 8, 4]
    assert prune(database, RetentionPolicy()).decisions == 2
    assert counted(database, "decisions", "calls", "shadows", "episodes") == [2, 4, 2, 1]
    assert prune(database, RetentionPolicy(max_decisions=1)).decisions == 1
    assert prune(database, RetentionPolicy(decisions=None, max_decisions=None)).decisions == 0
    before, after = vacuum(database)
    assert before > 0
    assert after > 0
    assert counted(database, "decisions") == [1]


def counted(database: Any, *names: str) -> list[int]:
    with database.begin() as connection:
        return [connection.execute(select(func.count()).select_from(tables.metadata.tables[n])).scalar() for n in names]


def test_once_a_day_one_process_prunes(database: Any) -> None:
    assert prune_daily(database, RetentionPolicy()) is not None
    assert prune_daily(database, RetentionPolicy()) is None
    assert prune_daily(database, RetentionPolicy(), at=now() + timedelta(hours=25)) is not None


def shadow_of(number: int) -> Shadow:
    call = Call(role="student", purpose="shadow", model="m", usage=Usage(input=2), dollars=Decimal("0.02"))
    samples = (LoggedSample(action="look", text="look"), LoggedSample(action=None, text="?", invalid="no action"))
    return Shadow(
        decision=f"de_{number}", episode="e", step=number, samples=samples, accepted=True, agreement=0.5, calls=(call,)
    )


def test_a_shadow_is_written_with_its_bill_once_whatever_comes_twice(database: Any) -> None:
    for _ in range(2):
        recorder = DatabaseRecorder(database)
        recorder.record(decided(1))
        recorder.record_shadow(shadow_of(1))
        recorder.close()
    assert counted(database, "decisions", "shadows", "calls") == [1, 1, 2]
    with database.begin() as connection:
        row = connection.execute(select(tables.shadows)).mappings().one()
    assert [s["action"] for s in row["samples"]] == ["look", None]


def test_a_shadow_that_comes_before_its_decision_is_not_lost(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/a.db")
    recorder = DatabaseRecorder(database)
    recorder.record_shadow(shadow_of(1))
    recorder.flush()
    recorder.record(decided(1))
    recorder.close()
    again = DatabaseRecorder(database)
    again.close()
    assert counted(database, "decisions", "shadows") == [1, 1]
    database.close()


def test_an_id_used_in_two_namespaces_is_two_episodes(database: Any) -> None:
    recorder = DatabaseRecorder(database)
    for namespace, success in (("a", True), ("b", False), ("b", True)):
        end = EpisodeEnd(
            episode="e", namespace=namespace, goal=namespace, mode="teacher", success=success, steps=1, started_at=now()
        )
        recorder.record_end(end)
    recorder.close()
    with database.begin() as connection:
        rows = connection.execute(select(tables.episodes.c.namespace, tables.episodes.c.success)).all()
    assert sorted(map(tuple, rows)) == [("a", True), ("b", True)]


def draft(position: int, namespace: str = "a", action: str = "go") -> Draft:
    return Draft(
        namespace=namespace, episode="e", position=position, goal="g", mode="collect", observation="o", action=action
    )


def test_drafts_are_found_in_their_namespace_alone_and_a_new_run_replaces_the_old(database: Any) -> None:
    recorder = DatabaseRecorder(database)
    for item in (draft(0), draft(1), draft(2), draft(1, action="look")):
        recorder.record_draft(item)
    recorder.flush()
    found = find_unfinished(database, "a", "e")
    assert [s.action for s in found.steps] == ["go", "look", "go"]
    for namespace, episode in (("b", "e"), ("a", "f")):
        with pytest.raises(UnknownEpisode):
            find_unfinished(database, namespace, episode)
    recorder.record_draft(draft(0, action="again"))
    recorder.close()
    assert [s.action for s in find_unfinished(database, "a", "e").steps] == ["again"]


def test_an_episode_that_lacks_a_step_teaches_nothing_and_one_began_with_its_first(database: Any) -> None:
    recorder = DatabaseRecorder(database)
    recorder.record_draft(draft(0))
    recorder.record_draft(draft(2))
    recorder.record(decided(1, age_days=1, seconds=60.0))
    recorder.close()
    found = find_unfinished(database, "a", "e")
    assert (found.steps, found.taken) == ((), 2)
    found = find_unfinished(database, "default", "e")
    assert found.started is not None
    assert timedelta(days=1, seconds=59) < now() - found.started < timedelta(days=1, seconds=120)


def test_a_database_of_the_first_revision_is_upgraded_with_all_it_holds(url: str) -> None:
    from alembic import command
    from alembic.config import Config

    from agentcascade.storage.engine import new_engine
    from agentcascade.storage.upgrade import MIGRATIONS

    engine = new_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.execution_options(immediate=True).connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for namespace, id in (("a", "e1"), ("b", "e2")):
            connection.execute(
                text(
                    "INSERT INTO episodes (id, namespace, goal, plan, mode, success, steps, started_at, finished_at) "
                    "VALUES (:id, :namespace, 'g', '', 'teacher', true, 3, :at, :at)"
                ),
                {"id": id, "namespace": namespace, "at": "2026-11-01 10:00:00"},
            )
        connection.execute(
            text(
                "INSERT INTO decisions (id, episode, namespace, step, mode, answered_by, reason, samples, "
                "invalid_samples, votes, demonstrations, dropped_demonstrations, overhead_ms, embedding_ms, "
                "failures, created_at) "
                "VALUES ('d1', 'e1', 'a', 0, 'teacher', 'teacher', 'r', 0, 0, '{}', '[]', 0, 1, 1, '[]', :at)"
            ),
            {"at": "2026-11-01 10:00:00"},
        )
        connection.commit()
    engine.dispose()
    opened = open_database(url)
    with opened.begin() as connection:
        rows = connection.execute(select(tables.episodes.c.namespace, tables.episodes.c.id)).all()
        decision = connection.execute(select(tables.decisions)).mappings().one()
    assert sorted(map(tuple, rows)) == [("a", "e1"), ("b", "e2")]
    assert (decision["id"], decision["goal"], decision["seconds"]) == ("d1", "", 0)
    opened.close()
    if url.startswith("sqlite"):
        assert sqlite3.connect(url.removeprefix("sqlite:///")).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    else:
        create_engine(url.replace("postgresql://", "postgresql+psycopg://")).dispose()
