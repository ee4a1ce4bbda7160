"""Exclusive names: one holder over all processes, none after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from agentcascade.storage import Database, open_database
from agentcascade.storage.exclusive import hold

HOLDER = """
import sys, time
from agentcascade.storage import open_database
from agentcascade.storage.exclusive import hold
database = open_database(sys.argv[1])
assert hold(database, "a task") is not None
print("held", flush=True)
time.sleep(60)
"""


def test_a_name_is_held_by_one_and_free_after_it(database: Database) -> None:
    release = hold(database, "one")
    assert release is not None
    assert hold(database, "one") is None
    other = hold(database, "two")
    assert other is not None
    release()
    release()
    again = hold(database, "one")
    assert again is not None
    again()
    other()


def test_of_many_who_ask_at_once_one_gets_it_at_a_time(database: Database) -> None:
    inside: list[int] = []

    def enter(number: int) -> list[int] | None:
        """Who was inside beside it; None where it was not let in."""
        release = hold(database, "one")
        if release is None:
            return None
        inside.append(number)
        seen = list(inside)
        inside.remove(number)
        release()
        return seen

    with ThreadPoolExecutor(4) as pool:
        entered = {number: seen for number, seen in enumerate(pool.map(enter, range(40))) if seen is not None}
    assert entered
    assert entered == {number: [number] for number in entered}


def test_a_killed_process_holds_nothing(url: str, database: Database) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert hold(database, "a task") is None
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    for _ in range(1000):  # PostgreSQL notices a little later
        release = hold(database, "a task")
        if release is not None:
            break
    assert release is not None
    release()


def test_in_memory_everybody_holds_what_he_asks_for() -> None:
    database = open_database("sqlite://")
    assert hold(database, "one") is not None
    assert hold(database, "one") is not None
    database.close()
