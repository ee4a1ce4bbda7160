"""What several replicas of a proxy share at once, on SQLite and on a real PostgreSQL; and old databases upgraded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import MetaData, event, func, select

from agentcascade.errors import BudgetExceeded
from agentcascade.ledger.ledger import DatabaseRecorder
from agentcascade.storage import Database, open_database, retention, tables
from agentcascade.storage import budgets as budgets_module
from agentcascade.storage.budget_rows import read_balance
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.storage.keys import Keys
from agentcascade.storage.rate_limiter import RateLimiter
from agentcascade.storage.responses import KeptResponse, ResponseStore
from agentcascade.storage.retention import Pruned, RetentionPolicy, prune, prune_daily, vacuum
from agentcascade.storage.shared_value import SharedValue
from agentcascade.storage.switch import Switch
from agentcascade.types import Account, Call, Decision, Usage, now

KEY = Account(scope="key", name="k", limit=Decimal(1))


@pytest.fixture
def replicas(url: str) -> Iterator[list[Database]]:
    opened = [open_database(url) for _ in range(2)]
    yield opened
    for database in opened:
        database.close()


def at_once(*work: Callable[[], Any]) -> list[Any]:
    """Results or errors of all, started together."""
    gate, results = threading.Barrier(len(work)), [None] * len(work)

    def one(index: int) -> None:
        gate.wait(60)
        try:
            results[index] = work[index]()
        except Exception as error:
            results[index] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def decision(age_days: float) -> Decision:
    call = Call(role="teacher", model="m", usage=Usage(input=1), dollars=Decimal("0.01"))
    created = now() - timedelta(days=age_days)
    return Decision(
        episode="e", step=0, mode="teacher", answered_by="teacher", reason="r", calls=(call,), created_at=created
    )


def rows(database: Database, name: str) -> int:
    with database.begin() as connection:
        return connection.execute(select(func.count()).select_from(tables.metadata.tables[name])).scalar_one()


def test_a_reservation_settled_by_two_at_once_is_booked_once(replicas: list[Database]) -> None:
    here, there = (DatabaseBudgets(d) for d in replicas)
    for round in range(1, 6):
        id = here._reserve([KEY], Decimal("0.1"), 60)
        results = at_once(*(lambda b=b, id=id: b._settle(id, Decimal("0.1")) for b in (here, there, here, there)))
        assert results == [None] * 4
        assert here.balance(KEY) == (Decimal("0.1") * round, Decimal(0))


def test_replicas_that_pay_and_spend_at_once_stay_within_the_limit(
    replicas: list[Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_balance

    def slowly(*arguments: Any) -> Any:
        """Between reading what is left and taking it, others have time to do the same."""
        balance = read(*arguments)
        time.sleep(0.01)
        return balance

    monkeypatch.setattr(budgets_module, "read_balance", slowly)
    budgets = [DatabaseBudgets(d) for d in replicas]
    space = Account(scope="namespace", name="n", limit=Decimal("0.6"), period="day")
    paid: list[Decimal] = []

    def work(number: int) -> int:
        own, refused = budgets[number % 2], 0
        for turn in range(8):
            try:
                id = own._reserve([KEY, space][:: 1 if number % 3 else -1], Decimal("0.1"), 60)
            except BudgetExceeded:
                refused += 1
                continue
            assert sum(own.balance(space)) <= space.limit
            cost = Decimal("0.1") if turn % 2 else Decimal("0.03")
            own._settle(id, cost)
            paid.append(cost)
        return refused

    results = at_once(*(lambda n=n: work(n) for n in range(6)))
    assert all(isinstance(r, int) for r in results), results
    assert sum(results) > 0
    for account in (KEY, space):
        assert budgets[0].balance(account) == (sum(paid, Decimal(0)), Decimal(0))
    assert sum(paid) <= space.limit


def test_a_balance_read_while_a_call_is_settled_counts_it_once(replicas: list[Database]) -> None:
    here, there = (DatabaseBudgets(d) for d in replicas)
    id = here._reserve([KEY], Decimal("0.1"), 60)
    event.listen(replicas[0].engine, "after_cursor_execute", lambda *_: there._settle(id, Decimal("0.1")))
    assert sum(here.balance(KEY)) == Decimal("0.1")
    assert there.balance(KEY) == (Decimal("0.1"), Decimal(0))


def test_paying_does_not_wait_for_the_bank(postgres_url: str) -> None:
    """SQLite has one writer at a time, whatever it writes; a server need not."""
    database = open_database(postgres_url)
    with database.begin(write=True):
        reserving = threading.Thread(target=DatabaseBudgets(database)._reserve, args=([KEY], Decimal(1), 60))
        reserving.start()
        reserving.join(60)
        assert not reserving.is_alive()
    assert DatabaseBudgets(database).balance(KEY).reserved == 1
    database.close()


def test_who_waits_to_write_to_the_bank_leaves_connections_to_those_who_read(postgres_url: str) -> None:
    """A bank that is embedded anew is written to for minutes; so many threads would have every connection."""
    database, other = open_database(postgres_url), open_database(postgres_url)
    done = []

    def write() -> None:
        with database.begin(write=True):
            done.append(1)

    writers = [threading.Thread(target=write, daemon=True) for _ in range(20)]
    with other.begin(write=True):
        for writer in writers:
            writer.start()
        time.sleep(0.5)
        reading = threading.Thread(target=database.ping, daemon=True)
        reading.start()
        reading.join(15)
        assert (reading.is_alive(), done) == (False, [])
    for writer in writers:
        writer.join(60)
    assert len(done) == len(writers)
    database.close()
    other.close()


def test_keys_switch_and_stored_responses_do_not_wait_for_the_bank(postgres_url: str) -> None:
    """Who has to stop a cascade, or a key, does so at once."""
    database, other = open_database(postgres_url), open_database(postgres_url)
    keys, switch, watched = Keys(database), Switch(database), SharedValue(database, "watch")

    def work() -> None:
        keys.revoke(keys.create("k")[0].id)
        switch.set(True, "stop")
        switch.set(True, "stop all")
        watched.change(lambda value: (value or "") + "x")
        ResponseStore(database).save("default", KeptResponse("r", "e", (), (), {}))

    with other.begin(write=True):
        working = threading.Thread(target=work, daemon=True)
        working.start()
        working.join(15)
        assert not working.is_alive()
        assert (keys.list()[0].valid, switch.reason, watched.read()) == (False, "stop all", "x")
        assert ResponseStore(other).find("default", "r") is not None
    database.close()
    other.close()


def test_a_minute_s_share_is_handed_out_once_whoever_asks(replicas: list[Database]) -> None:
    rates = [RateLimiter(d) for d in replicas]
    results = at_once(*(lambda n=n: [rates[n % 2]._count("k", 7, 20) for _ in range(6)] for n in range(6)))
    assert all(isinstance(r, list) for r in results), results
    assert sum(map(sum, results)) == 20


def test_a_new_key_opens_the_other_replica_although_it_has_just_looked(replicas: list[Database]) -> None:
    here, there = (Keys(d) for d in replicas)
    assert not there.exist()
    made, token = here.create("me", cascades=["a"], budget=Decimal("0.123456789012"), expires_at=now() + timedelta(1))
    time.sleep(0.25)
    assert there.authenticate(token) == made


def test_of_all_replicas_one_prunes_a_day(replicas: list[Database]) -> None:
    recorder = DatabaseRecorder(replicas[0])
    recorder.record(decision(100))
    recorder.close()
    for day, removed in ((0, 1), (2, 0)):
        at = now() + timedelta(days=day)
        results = at_once(*(lambda d=d, at=at: prune_daily(d, RetentionPolicy(), at=at) for d in replicas * 3))
        pruned = [r for r in results if r is not None]
        assert len(pruned) == 1, results
        assert isinstance(pruned[0], Pruned)
        assert pruned[0].decisions == removed


def test_writers_go_on_while_old_records_are_removed(replicas: list[Database], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 50)
    here, there = replicas
    recorder = DatabaseRecorder(here)
    for _ in range(300):
        recorder.record(decision(100))
    recorder.flush()
    stop = threading.Event()

    def write() -> int:
        written = 0
        while not stop.is_set() or written < 20:
            recorder.record(decision(0))
            recorder.flush()
            written += 1
        return written

    def clean() -> Pruned:
        try:
            return prune(there, RetentionPolicy())
        finally:
            stop.set()

    written, pruned = at_once(write, clean)
    recorder.close()
    assert pruned.decisions == 300
    assert (rows(here, "decisions"), rows(here, "calls")) == (written, written)
    vacuum(there)
    assert rows(here, "decisions") == written


def test_every_row_of_the_first_release_s_database_is_kept(url: str) -> None:
    at = datetime(2026, 11, 1, 10, tzinfo=UTC)
    old: dict[str, dict[str, Any]] = {
        "settings": {"name": "embedder", "value": "minilm"},
        "trajectories": {
            "pk": 7, "id": "t", "namespace": "n", "goal": "g", "plan": "", "category": "", "model": "m",
            "success": True, "length": 1, "metadata": {"a": 1}, "created_at": at, "digest": "d", "episode": "e",
            "goal_key": "k", "plan_key": "k",
        },
        "steps": {
            "trajectory": 7, "position": 0, "observation": "o", "reasoning": "", "action": "a", "observation_key": "k",
        },
        "embeddings": {"key": "k", "vector": b"\0\1\2"},
        "removals": {"pk": 3, "trajectory": 5, "namespace": "n"},
        "episodes": {
            "id": "e", "namespace": "n", "goal": "g", "plan": "p", "mode": "collect", "success": None, "steps": 1,
            "started_at": at, "finished_at": at,
        },
        "decisions": {
            "id": "d", "episode": "e", "namespace": "n", "step": 0, "mode": "cascade", "answered_by": "student",
            "reason": "agreement 2/3", "agreement": 0.5, "samples": 3, "invalid_samples": 1, "votes": {"a": 2},
            "action": "a", "demonstrations": ["t:0-1"], "dropped_demonstrations": 0, "dollars": 10, "overhead_ms": 1.5,
            "teacher_dollars": None, "embedding_ms": 0.5, "failures": ["x"], "created_at": at,
        },
        "calls": {
            "pk": 9, "decision": "d", "role": "student", "purpose": "sample", "model": "m", "input": 1,
            "cached_input": 2, "cache_write": 3, "cache_write_1h": 4, "output": 5, "reasoning": 6, "dollars": 10**13,
            "seconds": 0.5,
        },
    }  # fmt: skip
    make_first(url, old)
    with ExitStack() as stack:
        opened = open_database(url)
        stack.callback(opened.close)
        with opened.begin() as connection:
            for name, row in old.items():
                kept = connection.execute(select(tables.metadata.tables[name])).mappings().one()
                expected = row | {
                    k: Decimal(row[k]) / tables.PICO for k in ("dollars", "teacher_dollars") if row.get(k) is not None
                }
                assert {k: kept[k] for k in row} == expected, name
            heads = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
        made, token = Keys(opened).create("me")
        assert Keys(opened).authenticate(token) == made
        again = open_database(url)
        stack.callback(again.close)
        with again.begin() as connection:
            assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all() == heads
        recorder = DatabaseRecorder(again)
        recorder.record(decision(0))
        recorder.close()
        assert rows(opened, "calls") == 2


def make_first(url: str, old: dict[str, dict[str, Any]]) -> None:
    """A database as the first release left it, with these rows."""
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
        first = MetaData()
        first.reflect(connection)
        for name, row in old.items():
            connection.execute(first.tables[name].insert(), row)
        connection.commit()
    engine.dispose()
