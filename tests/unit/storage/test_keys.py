"""API keys: what is remembered of them, how the database being away is borne, and `agentcascade keys`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import event

from agentcascade.cli import main
from agentcascade.errors import ConfigError, InvalidKey, StorageError
from agentcascade.server.auth import OPEN, Gate
from agentcascade.storage import Database, open_database
from agentcascade.storage import keys as module
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.storage.keys import TOKEN, Keys
from agentcascade.storage.rate_limiter import RateLimiter
from agentcascade.storage.sessions import Sessions
from agentcascade.types import now


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/cascade.db"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url)
    yield opened
    opened.close()


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", *arguments, "--url", url], env={"COLUMNS": "200"})


def queries(database: Database) -> list[str]:
    """Grows by every question to the database from now on."""
    seen: list[str] = []

    def see(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        if statement.startswith("SELECT"):
            seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", see)
    return seen


def test_a_thousand_requests_with_one_key_read_the_database_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED_SECONDS", 60.0)
    keys = Keys(database)
    _, token = keys.create("me")
    seen = queries(database)
    for _ in range(1000):
        keys.authenticate(token)
        assert keys.exist()
    assert len(seen) == 1


def test_guesses_neither_grow_what_is_remembered_nor_query_once_each(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEW_SECONDS", 60.0)
    keys = Keys(database)
    keys.create("me")
    seen = queries(database)
    for number in range(1000):
        with pytest.raises(InvalidKey):
            keys.authenticate(f"ac-{number:012x}-{'A' * 43}")
    assert len(seen) == 1
    assert len(keys._known) == 1


async def test_who_sends_the_first_key_is_no_guest_where_none_was_known_a_moment_ago(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another replica's records, budgets and demonstrations would be those of the server's own namespace."""
    monkeypatch.setattr(module, "REMEMBERED_SECONDS", 60.0)
    monkeypatch.setattr(module, "NEW_SECONDS", 0.0)
    here = Keys(database)
    gate = Gate(here, RateLimiter(database), Sessions(here, "s" * 32), open=False)
    assert await gate.enter({}) == OPEN
    _, token = Keys(database).create("first", namespace="own")
    assert (await gate.enter({"authorization": f"Bearer {token}"})).namespace == "own"
    with pytest.raises(InvalidKey):
        await gate.enter({})


async def test_tokens_at_a_server_without_keys_do_not_query_once_each(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEW_SECONDS", 60.0)
    keys, seen = Keys(database), queries(database)
    for number in range(1000):
        assert not await keys.any(f"ac-{number:012x}-{'A' * 43}")
    assert len(seen) == 1


@pytest.mark.parametrize(
    "token", ["", "ac-", "ac--", "Bearer x", "ac-000000000000-" + "é" * 43, "ac-\0", "x" * 100_000]
)
def test_nothing_of_a_refused_token_is_repeated(database: Database, token: str) -> None:
    with pytest.raises(InvalidKey) as refused:
        Keys(database).authenticate(token)
    assert str(refused.value) == module.REFUSED


def test_a_token_holds_256_random_bits_and_no_two_are_alike(database: Database) -> None:
    keys = Keys(database)
    made = [keys.create("same name") for _ in range(20)]
    secrets = {TOKEN.fullmatch(token)[2] for _, token in made}  # type: ignore[index]
    assert len(secrets) == 20
    assert all(len(s) * 6 >= 256 for s in secrets)
    assert {keys.authenticate(token).id for _, token in made} == {key.id for key, _ in made}


def test_one_keys_secret_does_not_open_another(database: Database) -> None:
    keys = Keys(database)
    (mine, _), (_, theirs) = keys.create("a"), keys.create("b")
    with pytest.raises(InvalidKey):
        keys.authenticate(f"ac-{mine.id}-{theirs[-43:]}")


def test_a_key_ends_at_its_hour_although_it_is_remembered(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(database)
    _, token = keys.create("me", expires_at=now() + timedelta(hours=1))
    keys.authenticate(token)
    later = now() + timedelta(hours=2)
    monkeypatch.setattr(module, "now", lambda: later)
    with pytest.raises(InvalidKey):
        keys.authenticate(token)


def test_revoking_the_last_key_does_not_open_the_door(database: Database) -> None:
    keys = Keys(database)
    made, _ = keys.create("me")
    keys.revoke(made.id)
    keys.revoke(made.id)
    assert keys.exist()
    assert [k.valid for k in keys.list()] == [False]


def test_revoking_twice_keeps_the_first_time(database: Database) -> None:
    keys = Keys(database)
    made, _ = keys.create("me")
    keys.revoke(made.id)
    first = keys.list()[0].revoked_at
    keys.revoke(made.id)
    assert keys.list()[0].revoked_at == first


def test_an_unknown_key_cannot_be_revoked(database: Database) -> None:
    keys = Keys(database)
    made, _ = keys.create("me")
    with pytest.raises(ConfigError, match=f"did you mean '{made.id}'"):
        keys.revoke(made.id[:-1] + "x")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": Decimal("1e-13")}, "at most 12 decimals"),
        ({"budget": Decimal("1e9")}, "budget 1E\\+9: give dollars from 0 to 1,000,000"),
        ({"budget": Decimal("NaN")}, "budget NaN"),
        ({"period": "week"}, "period 'week': known: day, month, total"),
        ({"cascades": ["a", ""]}, "cascade ''"),
        ({"requests_per_minute": 10**10}, "requests per minute 10000000000: give 1 to"),
        ({"expires_at": datetime(2099, 1, 1)}, "with its zone, e.g. 2099-01-01 00:00:00\\+00:00"),
    ],
)
def test_what_a_key_cannot_be_is_said_before_it_is_stored(
    database: Database, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Keys(database).create("me", **options)
    assert not Keys(database).exist()


async def test_known_keys_work_while_the_database_is_away_and_unknown_ones_are_no_ones_fault(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wait in ("REMEMBERED_SECONDS", "NEW_SECONDS"):
        monkeypatch.setattr(module, wait, 0.0)
    keys = Keys(database)
    _, token = keys.create("me")
    assert await keys.any()
    assert (await keys.check(token)).name == "me"
    with database.begin(write=True) as connection:
        connection.exec_driver_sql("ALTER TABLE keys RENAME TO away")
    assert (await keys.check(token)).name == "me"
    assert await keys.any()
    with pytest.raises(StorageError, match="the keys cannot be read"):
        await keys.check("ac-000000000000-" + "A" * 43)
    with pytest.raises(InvalidKey):
        await keys.check(token[:-1] + ("A" if token[-1] != "A" else "B"))
    monkeypatch.setattr(module, "OUTAGE_SECONDS", 0.0)
    with pytest.raises(StorageError):
        await keys.check(token)
    with database.begin(write=True) as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO keys")
    assert (await keys.check(token)).name == "me"


async def test_a_key_that_is_new_here_waits_longer_for_a_slow_database_than_a_known_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(module, "UNKNOWN_SECONDS", 60.0)
    for wait in ("REMEMBERED_SECONDS", "NEW_SECONDS"):
        monkeypatch.setattr(module, wait, 0.0)
    keys = Keys(database)
    _, token = keys.create("me")
    may_read, load = threading.Event(), Keys._load
    monkeypatch.setattr(Keys, "_load", lambda self: (may_read.wait(60), load(self))[1])
    first = asyncio.create_task(keys.check(token))
    await asyncio.sleep(0.05)
    assert not first.done(), "no key is known yet: only the database can tell"
    may_read.set()
    assert (await first).name == "me"
    may_read.clear()
    assert (await keys.check(token)).name == "me", "by what is known"
    may_read.set()


def test_a_key_made_on_the_command_line_opens_the_proxy(url: str) -> None:
    made = run(url, "create", "alice", "--namespace", "a", "--cascade", "x", "--cascade", "y", "--admin",
               "--budget", "$10.50", "--period", "day", "--rpm", "60", "--expires", "30d", "--quiet")  # fmt: skip
    assert made.exit_code == 0, made.output
    token = made.output.strip()
    database = open_database(url)
    key = Keys(database).authenticate(token)
    database.close()
    assert (key.name, key.namespace, key.cascades, key.admin) == ("alice", "a", ("x", "y"), True)
    assert (key.budget, key.period, key.requests_per_minute) == (Decimal("10.5"), "day", 60)
    assert key.expires_at is not None
    assert timedelta(days=29) < key.expires_at - now() < timedelta(days=31)


def test_the_token_alone_is_on_stdout(url: str) -> None:
    made = run(url, "create", "bob", "--expires", "2199-01-31")
    assert TOKEN.fullmatch(made.stdout.strip())
    assert "this one time" in made.stderr
    database = open_database(url)
    assert Keys(database).list()[0].expires_at == datetime(2199, 1, 31, tzinfo=UTC)
    database.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--budget", "ten"), "'ten' is no amount of dollars"),
        (("--budget", "-1"), "budget -1: give dollars from 0"),
        (("--expires", "soon"), "'soon' is no time"),
        (("--expires", "2020-01-01"), "'2020-01-01' is over already"),
        (("--rpm", "0"), "0 is not in the range"),
        (("--namespace", ""), "namespace ''"),
    ],
)
def test_a_wrong_option_is_named(url: str, arguments: tuple[str, ...], words: str) -> None:
    made = run(url, "create", "me", *arguments)
    assert made.exit_code != 0
    assert words in made.output
    assert "Traceback" not in made.output


async def test_the_list_shows_what_was_spent_and_never_a_token(url: str, database: Database) -> None:
    keys, budgets = Keys(database), DatabaseBudgets(database)
    rich, token = keys.create("[/b] rich", budget=Decimal(10), period="day")
    ended, _ = keys.create("ended")
    keys.revoke(ended.id)
    account = rich.account()
    assert account is not None
    await budgets.settle(await budgets.reserve([account], Decimal(1), 60), Decimal("0.25"))
    listed = run(url, "list")
    assert listed.exit_code == 0, listed.output
    for words in (rich.id, "[/b] rich", "$10 / day", "$0.2500", "valid", ended.id, "revoked"):
        assert words in listed.output
    data = json.loads(run(url, "list", "--json").output)
    assert [(k["name"], k["spent"]) for k in data] == [("[/b] rich", "0.25"), ("ended", None)]
    assert token[-43:] not in listed.output + json.dumps(data)
    assert not any("hash" in k for k in data)


def test_ids_are_whole_in_a_narrow_terminal(url: str, database: Database) -> None:
    made, _ = Keys(database).create("n" * 100, namespace="s" * 100, budget=Decimal("123456.789"))
    listed = CliRunner().invoke(main, ["keys", "list", "--url", url], env={"COLUMNS": "60"})
    assert made.id in listed.output


def test_a_list_without_keys_says_what_that_means(url: str, database: Database) -> None:
    assert "the proxy is open" in run(url, "list").output


def test_a_revoked_key_is_useless_and_an_unknown_one_is_named(url: str, database: Database) -> None:
    made, token = Keys(database).create("me")
    assert run(url, "revoke", made.id).output == f"revoked {made.id}\n"
    with pytest.raises(InvalidKey):
        Keys(database).authenticate(token)
    wrong = run(url, "revoke", "nobody")
    assert wrong.exit_code == 1
    assert "there is no key 'nobody'" in wrong.output
