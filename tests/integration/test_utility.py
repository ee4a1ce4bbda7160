"""Which demonstrations helped: counted when episodes end, on SQLite and on PostgreSQL, and used when retrieving."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select

from agentcascade.bank import success_ranking
from agentcascade.bank.bank import Bank
from agentcascade.bank.catalog import Catalog
from agentcascade.bank.success_ranking import SuccessRanking
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.storage import Database, open_database, tables
from agentcascade.storage.record_rows import write_records
from agentcascade.types import Decision, EpisodeEnd, Situation, Step, Trajectory, now


def make_bank(database, weight=0.0, dimension=32):
    weighed = SuccessRanking(database, weight) if weight else None
    return Bank(database, HashEmbedder(dimension), ExactRetriever(3 * dimension), utility=weighed)


def trajectory(name, goal="find the cup", **values):
    steps = (Step(observation="a room", reasoning="hm", action=f"take {name}"),)
    return Trajectory(**{"id": name, "goal": goal, "steps": steps, "success": True} | values)


def decision(episode, *windows, answered_by="student", **values):
    return Decision(
        **{"episode": episode, "step": 0, "mode": "cascade", "answered_by": answered_by, "reason": "so"}
        | {"demonstrations": windows}
        | values
    )


def end(episode, success, **values):
    return EpisodeEnd(
        **{"episode": episode, "goal": "g", "mode": "cascade", "success": success, "steps": 1, "started_at": now()}
        | values
    )


def record(database, *entries):
    with database.begin(write=True) as connection:
        write_records(connection, list(entries))


def counts(database):
    query = select(tables.trajectories.c.id, tables.uses.c.episodes, tables.uses.c.successes).join(tables.uses)
    with database.begin() as connection:
        return {row.id: (row.episodes, row.successes) for row in connection.execute(query)}


async def test_each_trajectory_counts_once_per_episode_that_the_student_acted_in(database: Database) -> None:
    await make_bank(database).add_many([trajectory("a"), trajectory("b"), trajectory("c:1")])
    first = [decision("e1", "a:0-1", "b:0-3"), decision("e1", "a:2-4", "c:1:0-2")]
    deferred = decision("e1", "b:0-3", "unknown:0-1", answered_by="teacher")
    record(database, *first, deferred, end("e1", True))
    assert counts(database) == {"a": (1, 1), "b": (1, 1), "c:1": (1, 1)}
    record(database, decision("e2", "a:0-1"), decision("e2", "b:0-1", answered_by="teacher"), end("e2", False))
    assert counts(database) == {"a": (2, 1), "b": (1, 1), "c:1": (1, 1)}, "b was shown, but the teacher acted"


async def test_an_outcome_may_be_repeated_changed_unknown_and_late(database: Database) -> None:
    await make_bank(database).add_many([trajectory("a"), trajectory("b")])
    record(database, decision("e1", "a:0-1"), end("e1", None))
    assert counts(database) == {}
    record(database, end("e1", True))
    record(database, end("e1", True), end("e1", True))
    assert counts(database) == {"a": (1, 1)}
    record(database, end("e1", False))
    assert counts(database) == {"a": (1, 0)}
    record(database, decision("e1", "b:0-1"), end("e1", True), end("e1", False))
    assert counts(database) == {"a": (1, 0), "b": (1, 0)}, "it went on after its end"
    with database.begin(write=True) as connection:
        connection.execute(tables.decisions.delete())
    record(database, end("e1", True))
    assert counts(database) == {"a": (1, 1), "b": (1, 1)}, "the old decisions were pruned meanwhile"
    record(database, end("e1", None))
    assert counts(database) == {"a": (0, 0), "b": (0, 0)}


async def test_episodes_of_one_name_in_two_namespaces_are_two(database: Database) -> None:
    await make_bank(database).add_many([trajectory("a"), trajectory("b", namespace="other")])
    record(database, decision("e1", "a:0-1"), decision("e1", "b:0-1", namespace="other"), end("e1", True))
    assert counts(database) == {"a": (1, 1)}
    record(database, end("e1", False, namespace="other"))
    assert counts(database) == {"a": (1, 1), "b": (1, 0)}


async def test_counts_go_with_the_trajectory_and_stay_when_it_is_embedded_anew(database: Database) -> None:
    await make_bank(database).add_many([trajectory("a"), trajectory("b")])
    record(database, decision("e1", "a:0-1", "b:0-1"), end("e1", True))
    Catalog(database).remove("b")
    record(database, end("e1", False))
    assert counts(database) == {"a": (1, 0)}
    make_bank(database, dimension=16).reembed()
    assert counts(database) == {"a": (1, 0)}


async def test_many_writers_count_every_episode_once(url: str, database: Database) -> None:
    await make_bank(database).add_many([trajectory("a"), trajectory("b")])

    def work(number):
        own = open_database(url)
        for i in range(10):
            shown = ("a:0-1", "b:0-1") if number % 2 else ("b:0-1", "a:0-1")
            record(own, decision(f"e{i}", *shown, id=f"de_{number}_{i}"), end(f"e{i}", i % 2 == 0))
        own.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(database) == {"a": (10, 5), "b": (10, 5)}


async def test_what_helped_ranks_higher_and_what_was_never_used_stays_where_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(success_ranking, "SECONDS", 0.0)
    plain, weighed = make_bank(database), make_bank(database, weight=0.5)
    goals = {"near": "find the cup", "good": "find the cup now", "bad": "find the cup now please"}
    await plain.add_many([trajectory(name, goal) for name, goal in goals.items()])
    wanted = Situation(goal="find the cup", observation="a room")

    async def ranked(bank, k=3):
        await bank.refresh()
        return [d.trajectory for d in (await bank.retrieve(wanted, k)).demonstrations]

    assert await ranked(plain) == await ranked(weighed) == ["near", "good", "bad"]
    for i in range(40):
        record(database, decision(f"g{i}", "good:0-1"), end(f"g{i}", True))
        record(database, decision(f"b{i}", "bad:0-1"), end(f"b{i}", False))
    assert await ranked(weighed) == ["good", "near", "bad"]
    assert await ranked(plain) == ["near", "good", "bad"]
    assert await ranked(weighed, 1) == ["good"], "although it is not the nearest"


async def test_a_namespace_where_everything_succeeds_favours_nothing(database: Database) -> None:
    bank = make_bank(database, weight=5.0)
    await bank.add_many([trajectory("near"), trajectory("far", "find the cup in a drawer of the desk")])
    for i in range(30):
        record(database, decision(f"e{i}", "far:0-1"), end(f"e{i}", True))
    found = (await bank.retrieve(Situation(goal="find the cup", observation="a room"), 2)).demonstrations
    assert [d.trajectory for d in found] == ["near", "far"]


async def test_a_helpful_one_beyond_the_first_hits_is_found(database: Database) -> None:
    bank = make_bank(database, weight=1.0)
    crowd = [trajectory(f"t{i}", "find the cup") for i in range(10)]
    await bank.add_many([*crowd, trajectory("far", "find the cup soon")])
    record(database, *(d for i in range(60) for d in (decision(f"e{i}", "far:0-1"), end(f"e{i}", True))))
    record(database, *(d for i in range(60) for d in (decision(f"f{i}", "t0:0-1"), end(f"f{i}", False))))
    found = (await bank.retrieve(Situation(goal="find the cup", observation="a room"), 1)).demonstrations
    assert [d.trajectory for d in found] == ["far"]
