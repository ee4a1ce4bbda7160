"""Retention: what goes, what stays whatever happens, in steps that let others write; and `agentcascade db`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import event, func, select

from agentcascade.bank.bank import Bank
from agentcascade.cli import main
from agentcascade.errors import StorageError
from agentcascade.ledger.ledger import DatabaseRecorder
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.storage import Database, open_database, retention, tables
from agentcascade.storage.batches import Batch, BatchStore, BilledRequest, ClaimedRequest
from agentcascade.storage.keys import Keys
from agentcascade.storage.responses import KeptResponse, ResponseStore
from agentcascade.storage.retention import RetentionPolicy, prune, vacuum
from agentcascade.storage.switch import Switch
from agentcascade.types import Call, Decision, Draft, EpisodeEnd, Step, Trajectory, Usage, now


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/cascade.db"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url)
    yield opened
    opened.close()


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["db", *arguments, "--url", url], env={"COLUMNS": "200"})


def decide(database: Database, *ages: float) -> None:
    """Decisions of so many days ago, with one call each."""
    recorder = DatabaseRecorder(database)
    call = Call(role="teacher", model="m", usage=Usage(input=1), dollars=Decimal("0.01"))
    for number, age in enumerate(ages):
        recorder.record(
            Decision(
                episode="e",
                step=number,
                mode="teacher",
                answered_by="teacher",
                reason="r" * 200,
                calls=(call,),
                created_at=now() - timedelta(days=age),
            )
        )
    recorder.close()


def rows(database: Database, name: str) -> int:
    with database.begin() as connection:
        return connection.execute(select(func.count()).select_from(tables.metadata.tables[name])).scalar_one()


def fill(database: Database, table: Any, *values: dict[str, Any]) -> None:
    with database.begin(write=True) as connection:
        connection.execute(table.insert(), list(values))


async def test_bank_keys_and_switch_outlive_everything(database: Database) -> None:
    old = now() - timedelta(days=10_000)
    bank = Bank(database, HashEmbedder(32), ExactRetriever(96))
    await bank.add(Trajectory(goal="g", steps=(Step(observation="o", action="a"),), success=True, created_at=old))
    Keys(database).create("me", expires_at=old)
    Switch(database).set(True)
    kept = {name: rows(database, name) for name in ("trajectories", "steps", "embeddings", "keys", "settings")}
    prune(
        database, RetentionPolicy(decisions=1, episodes=1, drafts=1, max_decisions=1), at=now() + timedelta(days=10_000)
    )
    assert {name: rows(database, name) for name in kept} == kept
    assert all(kept.values())


def test_many_rows_go_in_several_transactions(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    decide(database, *[100.0] * 35, 0.0)
    deletions: list[int] = []

    def see(_connection: Any, cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith("DELETE FROM decisions"):
            deletions.append(cursor.rowcount)

    event.listen(database.engine, "after_cursor_execute", see)
    assert prune(database, RetentionPolicy()).decisions == 35
    assert deletions == [10, 10, 10, 5]
    assert (rows(database, "decisions"), rows(database, "calls")) == (1, 1)


def test_it_stops_between_transactions_when_told_to(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    decide(database, *[100.0] * 35)
    asked = iter([False, False])
    assert prune(database, RetentionPolicy(), stop=lambda: next(asked, True)).decisions == 20
    assert rows(database, "decisions") == 15


def test_the_newest_are_kept_when_there_are_too_many(database: Database) -> None:
    decide(database, 3, 1, 5, 2, 4)
    assert prune(database, RetentionPolicy(max_decisions=5)).decisions == 0
    assert prune(database, RetentionPolicy(max_decisions=2), dry_run=True).decisions == 3
    assert prune(database, RetentionPolicy(max_decisions=2)).decisions == 3
    with database.begin() as connection:
        left = connection.execute(select(tables.decisions.c.step).order_by(tables.decisions.c.step)).scalars().all()
    assert list(left) == [1, 3]


def test_for_ever_is_for_ever(database: Database) -> None:
    decide(database, 5000)
    recorder = DatabaseRecorder(database)
    old = now() - timedelta(days=5000)
    recorder.record_draft(
        Draft(namespace="n", episode="e", position=0, goal="g", mode="collect", observation="o", action="a",
              created_at=old)
    )  # fmt: skip
    recorder.record_end(
        EpisodeEnd(episode="e", goal="g", mode="collect", success=None, steps=1, started_at=old, finished_at=old)
    )
    recorder.close()
    ResponseStore(database).save("n", KeptResponse("resp_1", "e", (), [], {}))
    with database.begin(write=True) as connection:
        connection.execute(tables.responses.update().values(created_at=old))
    never = RetentionPolicy(decisions=None, episodes=None, drafts=None, responses=None, max_decisions=None)
    assert prune(database, never) == retention.Pruned()
    assert prune(database, RetentionPolicy()).model_dump() == {
        "decisions": 1,
        "episodes": 1,
        "drafts": 1,
        "recalls": 0,
        "responses": 1,
        "accounts": 0,
        "rates": 0,
    }


def test_requests_of_batches_go_when_no_result_can_come_any_more_and_bills_with_decisions(database: Database) -> None:
    store = BatchStore(database)
    ages = {"bt_new": 1, "bt_old": 61, "bt_ancient": 91, "bt_open": 500, "bt_unsettled": 500}
    call = Call(role="teacher", model="m", usage=Usage(input=1), dollars=Decimal("0.01"))
    for id, age in ages.items():
        at = now() - timedelta(days=age)
        batch = Batch(id, "j", "n", "teacher", "act", "m", "", 1, None, at, at)
        assert store.prepare(batch, [ClaimedRequest(f"{id}-0", id, f"k-{id}", "waiting", 1, 5, 5)])
        store.change(id, "prepared", "submitted")
        if id != "bt_open":
            store.finish(id, "completed", "", [BilledRequest(f"{id}-0", "succeeded", "", call, Decimal("0.02"))])
        if id not in ("bt_open", "bt_unsettled"):
            store.note_settled(id)
        with database.begin(write=True) as connection:
            own = tables.batches.update().where(tables.batches.c.id == id, tables.batches.c.ended_at.is_not(None))
            connection.execute(own.values(ended_at=at))
    prune(database, RetentionPolicy(decisions=None))
    assert {b.id for b in store.newest()} == ages.keys(), "bills are kept for ever"
    assert {id for id in ages if store.requests_of(id)} == {"bt_new", "bt_open", "bt_unsettled"}
    assert store.bill().requests == 4
    prune(database, RetentionPolicy())
    assert {b.id for b in store.newest()} == ages.keys() - {"bt_ancient"}
    assert store.bill().requests == rows(database, "batch_calls") == 3


def test_spent_periods_go_and_what_a_key_spent_in_all_stays(database: Database) -> None:
    old, young = now() - timedelta(days=400), now() - timedelta(days=1)
    fill(
        database,
        tables.accounts,
        *(
            {"scope": scope, "name": name, "window": window, "spent": Decimal(1), "updated_at": at}
            for scope, name, window, at in (
                ("key", "k", "total", old),
                ("key", "k", "2025-10", old),
                ("key", "k", "2026-11", young),
                ("episode", "e", "total", old),
                ("episode", "f", "total", young),
            )
        ),
    )
    assert prune(database, RetentionPolicy()).accounts == 2
    with database.begin() as connection:
        left = connection.execute(select(tables.accounts.c.name, tables.accounts.c.window)).all()
    assert sorted(map(tuple, left)) == [("f", "total"), ("k", "2026-11"), ("k", "total")]


def test_old_minutes_and_dead_reservations_go(database: Database) -> None:
    minute = int(now().timestamp() // 60)
    fill(database, tables.rates, *({"key": "k", "minute": m, "requests": 1} for m in (minute - 1000, minute)))
    fill(
        database,
        tables.reservations,
        *(
            {
                "id": id,
                "scope": "key",
                "name": "k",
                "window": "total",
                "dollars": Decimal(1),
                "expires_at": now() - timedelta(days=age),
            }
            for id, age in (("dead", 2), ("late", 0.5), ("live", -1))
        ),
    )
    assert prune(database, RetentionPolicy()).rates == 2
    assert (rows(database, "rates"), rows(database, "reservations")) == (1, 2)


def test_vacuum_gives_the_room_back(database: Database) -> None:
    decide(database, *[100.0] * 2000)
    prune(database, RetentionPolicy())
    before, after = vacuum(database)
    assert after < before / 2
    assert Path(str(database.path)).stat().st_size == after


def test_a_database_in_use_is_vacuumed_another_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentcascade.storage.engine.BUSY_SECONDS", 0.1)
    opened = open_database(url)
    writer = sqlite3.connect(str(opened.path))
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match=r"cannot be vacuumed .*locked.*: try again when it is idle"):
        vacuum(opened)
    result = run(url, "vacuum")
    assert result.exit_code == 1
    assert "try again when it is idle" in result.output
    writer.close()
    vacuum(opened)
    opened.close()


def test_db_prune_counts_first_and_then_removes(url: str, database: Database) -> None:
    decide(database, 100, 50, 10)
    assert "would remove 1 decisions" in run(url, "prune", "--dry-run").output
    assert "would remove 2 decisions" in run(url, "prune", "--dry-run", "--decisions-days", "20").output
    assert rows(database, "decisions") == 3
    assert "removed 2 decisions, 0 episodes" in run(url, "prune", "--decisions-days", "20").output
    assert rows(database, "decisions") == 1


def test_db_prune_follows_the_configuration(url: str, database: Database, tmp_path: Path) -> None:
    decide(database, 100, 50, 10)
    config = tmp_path / "agentcascade.yaml"
    config.write_text("retention: {decisions: 20}\n")
    assert "would remove 2 decisions" in run(url, "prune", "--dry-run", "--config", str(config)).output


def test_db_info_says_which_database_and_what_is_in_it(url: str, database: Database) -> None:
    decide(database, 0, 0)
    shown = run(url, "info")
    assert shown.exit_code == 0, shown.output
    assert url in shown.output
    assert "2 decisions" in shown.output
    data = json.loads(run(url, "info", "--json").output)
    assert data["rows"]["calls"] == 2
    assert data["rows"].keys() == tables.metadata.tables.keys()
    assert data["bytes"] > 0
    assert f"revision {data['revision']}," in shown.output


def test_db_upgrade_makes_a_database_and_other_commands_do_not(url: str, tmp_path: Path) -> None:
    for command in ("info", "prune", "vacuum"):
        missing = run(url, command)
        assert missing.exit_code == 1
        assert "there is no database" in missing.output
    assert not (tmp_path / "cascade.db").exists()
    newest = max(file.name for file in Path(retention.__file__).parent.glob("migrations/versions/0*.py"))[:4]
    assert f"revision {newest}" in run(url, "upgrade").output
    assert "vacuum" not in run(url, "vacuum").output
    assert "bytes before" in run(url, "vacuum").output
