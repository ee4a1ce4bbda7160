"""The kill switch: a question that never waits, and `agentcascade switch`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentcascade.cli import main
from agentcascade.errors import StorageError
from agentcascade.storage import Database, open_database
from agentcascade.storage.switch import Switch


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/cascade.db"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url)
    yield opened
    opened.close()


class Slow:
    """A database that makes everybody wait until it is let go; `asked` counts who came."""

    def __init__(self, database: Database) -> None:
        self._database, self.free, self.asked = database, threading.Event(), 0
        self.free.set()

    @contextmanager
    def begin(self, **options: Any) -> Iterator[Any]:
        self.asked += 1
        assert self.free.wait(60)
        with self._database.begin(**options) as connection:
            yield connection


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_hanging_database_delays_no_step_and_is_asked_once(database: Database) -> None:
    slow = Slow(database)
    switch = Switch(slow, every=0.0)  # type: ignore[arg-type]
    slow.free.clear()
    slow.asked = 0
    assert not any(switch.on for _ in range(1000)), "who waits is never let go"
    assert wait_for(lambda: slow.asked == 1)
    Switch(database).set(True)
    slow.free.set()
    assert wait_for(lambda: switch.on)
    switch.close()


def test_fresh_knowledge_is_not_asked_for_again(database: Database) -> None:
    slow = Slow(database)
    switch = Switch(slow, every=60.0)  # type: ignore[arg-type]
    for _ in range(100):
        assert not switch.on
    assert slow.asked == 1
    switch.close()


def test_what_was_set_here_counts_at_once(database: Database) -> None:
    switch = Switch(database, every=60.0)
    switch.set(True, "drill")
    assert switch.on
    assert switch.reason == "drill"
    switch.set(True, "in earnest")
    assert switch.reason == "in earnest"
    switch.set(False)
    switch.set(False)
    assert not switch.on
    assert switch.reason is None


def test_switching_on_needs_no_reason(database: Database) -> None:
    Switch(database).set(True)
    assert Switch(database).on


def test_asking_now_says_when_the_database_cannot(database: Database) -> None:
    switch = Switch(database)
    with database.begin(write=True) as connection:
        connection.exec_driver_sql("DROP TABLE settings")
    with pytest.raises(StorageError):
        switch.refresh()
    with pytest.raises(StorageError):
        switch.set(True)
    assert not switch.on


def test_the_command_reaches_a_running_process_and_back(url: str, database: Database) -> None:
    running = Switch(database, every=0.02)

    def command(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["switch", *arguments, "--url", url])
        assert result.exit_code == 0, result.output
        return result.output

    assert command("show").startswith("normal")
    assert command("teacher", "--reason", "student is drunk") == (
        "teacher: every step goes to the teacher (student is drunk)\n"
    )
    assert wait_for(lambda: running.on)
    assert "(student is drunk)" in command("show")
    assert command("normal").startswith("normal")
    assert wait_for(lambda: not running.on)
    running.close()


@pytest.mark.parametrize(
    ("arguments", "words"), [(["off"], "'off' is not one of"), (["show"], "there is no database"), ([], "Missing")]
)
def test_a_wrong_position_or_database_is_named(url: str, arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["switch", *arguments, "--url", url])
    assert result.exit_code != 0
    assert words in result.output
