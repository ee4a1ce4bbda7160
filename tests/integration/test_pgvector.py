"""A bank whose index is in PostgreSQL: the same demonstrations as an exact search, for many processes at once."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from agentcascade.assembly import components
from agentcascade.bank.bank import Bank
from agentcascade.errors import ConfigError, EmbeddingError, MissingExtra, StorageError
from agentcascade.retrievers import pgvector, pgvector_table
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.retrievers.pgvector import PgvectorRetriever
from agentcascade.storage import Database, open_database, trajectories
from agentcascade.storage.exclusive import hold
from agentcascade.storage.schemas import within_schema
from agentcascade.types import Demonstration, Situation, Step, Trajectory

DIMENSION = 24
Operation = tuple[str, list[tuple[int, list[int]]], set[int]]
"""Namespace, (group, key) of the steps to add, groups to remove afterwards"""
vectors = st.lists(st.integers(-2, 2), min_size=3, max_size=3)  # products are exact, and ties are frequent
operations = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", ""]),
        st.lists(st.tuples(st.integers(0, 5), vectors), max_size=6),
        st.sets(st.integers(0, 7), max_size=3),
    ),
    max_size=4,
)
WORDS = [f"{colour} {thing}" for colour in ("red", "blue", "green", "grey") for thing in ("cup", "door", "key", "lamp")]


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    made = open_database(request.getfixturevalue("pgvector_url"))
    yield made
    made.close()


def trajectory(number: int, rng: random.Random, namespace: str = "default", episode: str = "") -> Trajectory:
    steps = [Step(observation=f"you see a {rng.choice(WORDS)} {i}", action=f"take {number} {i}") for i in range(4)]
    return Trajectory(
        id=f"{namespace}-{number}",
        namespace=namespace,
        goal=f"find the {rng.choice(WORDS)}",
        plan=rng.choice(WORDS),
        steps=tuple(steps),
        success=True,
        metadata={"episode": episode} if episode else {},
    )


def shared(database: Database, **options: int) -> Bank:
    embedder = HashEmbedder(DIMENSION)
    return Bank(database, embedder, PgvectorRetriever(3 * DIMENSION, database=database, space="test", **options))


def situation(rng: random.Random, namespace: str = "default") -> Situation:
    return Situation(
        goal=f"find the {rng.choice(WORDS)}", observation=f"you see a {rng.choice(WORDS)} 1", namespace=namespace
    )


def scores(found: list[Demonstration]) -> list[float]:
    return [d.score for d in found]


async def test_demonstrations_are_those_of_an_exact_search(database: Database) -> None:
    rng = random.Random(1)
    items = [trajectory(i, rng, namespace) for i in range(40) for namespace in ("default", "other")]
    bank = shared(database)
    assert all(await bank.add_many(items))
    assert len(bank.retriever) == 4 * len(items)
    exact = Bank(database, HashEmbedder(DIMENSION), ExactRetriever(3 * DIMENSION))
    for _ in range(25):
        asked = situation(rng, rng.choice(["default", "other"]))
        ours, theirs = [(await b.retrieve(asked, 5)).demonstrations for b in (bank, exact)]
        assert scores(ours) == pytest.approx(scores(theirs), abs=2e-3)  # keys are kept in half precision
        assert all(d.trajectory.startswith(asked.namespace) for d in ours)
    assert (await bank.retrieve(situation(rng, "empty"), 5)).demonstrations == []


async def test_what_one_process_banks_is_there_for_all_and_is_indexed_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(2)
    one, other = shared(database), shared(database)
    await one.add_many([trajectory(i, rng) for i in range(10)])
    added: list[int] = []
    add = other.retriever.add

    def counted(namespace: str, rows: Any, groups: Any, keys: Any) -> None:
        added.append(len(rows))
        add(namespace, rows, groups, keys)

    monkeypatch.setattr(other.retriever, "add", counted)
    assert len((await other.retrieve(situation(rng), 3)).demonstrations) == 3
    await one.add(trajectory(10, rng))
    await other.refresh()
    assert added == [], "nothing is loaded that is in the index already"
    await other.add(trajectory(11, rng))
    assert added == [4]
    assert len(one.retriever) == 48


async def test_an_episode_never_sees_what_was_banked_from_it(database: Database) -> None:
    rng = random.Random(3)
    own = trajectory(0, rng, episode="mine")
    await shared(database).add_many([own, *(trajectory(i, rng) for i in range(1, 4))])
    asked = Situation(goal=own.goal, plan=own.plan, observation=own.steps[0].observation)
    later = shared(database)  # which was not there when it was banked
    assert (await later.retrieve(asked, 4)).demonstrations[0].trajectory == own.id
    found = (await later.retrieve(asked.model_copy(update={"episode": "mine"}), 4)).demonstrations
    assert len(found) == 3
    assert own.id not in [d.trajectory for d in found]


async def test_what_is_removed_is_gone_at_once(database: Database) -> None:
    rng = random.Random(4)
    bank, other = shared(database), shared(database)
    await bank.add_many([trajectory(i, rng) for i in range(6)])
    assert len((await other.retrieve(situation(rng), 6)).demonstrations) == 6
    with database.begin(write=True) as connection:
        pks = [row.pk for row in trajectories.read_index_rows(connection, 0)][:4]
        trajectories.delete_trajectories(connection, pks)
    assert len(other.retriever) == 8
    assert len((await other.retrieve(situation(rng), 6)).demonstrations) == 2


ADDS = """
import asyncio, random, sys
sys.path[:0] = {folders!r}
import test_pgvector as here
from agentcascade.storage import open_database
database = open_database({url!r})
bank, rng = here.shared(database), random.Random({seed})
for i in range(5):
    asyncio.run(bank.add(here.trajectory({seed} * 100 + i, rng)))
    found = asyncio.run(bank.retrieve(here.situation(rng), 3)).demonstrations
    assert found
print(len(bank.retriever))
database.close()
"""


def test_several_processes_add_and_search_at_once(database: Database) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    folders = [str(folder) for folder in Path(__file__).parents[:3]]
    programs = [ADDS.format(folders=folders, url=url, seed=seed) for seed in (1, 2, 3)]
    running = [
        subprocess.Popen([sys.executable, "-c", p], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for p in programs
    ]
    for process in running:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    bank = shared(database)
    asyncio.run(bank.refresh())
    assert len(bank.retriever) == 3 * 5 * 4


class Interrupted(Exception):
    pass


async def test_what_a_process_left_half_done_is_done_by_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(6)
    dying = shared(database)
    add = dying.retriever.add
    calls: list[str] = []

    def half(namespace: str, rows: Any, groups: Any, keys: Any) -> None:
        if calls:
            raise Interrupted
        calls.append(namespace)
        add(namespace, rows[-3:], groups[-3:], keys[-3:])

    monkeypatch.setattr(dying.retriever, "add", half)
    items = [trajectory(i, rng, namespace) for i in range(5) for namespace in ("default", "other")]
    with pytest.raises(Interrupted):
        await dying.add_many(items)
    assert len(dying.retriever) == 3
    following = shared(database)
    assert len((await following.retrieve(situation(rng), 5)).demonstrations) == 5
    assert len(following.retriever) == 4 * len(items)


def uses(database: Database) -> int:
    """Searches that went through an HNSW index, as the server counts them."""
    with database.begin() as connection:  # the pool's one connection, which searched
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    with database.begin() as connection:
        query = text(
            "SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_indexes JOIN pg_indexes ON indexname = indexrelname "
            "WHERE indexdef LIKE '%USING hnsw%'"
        )
        return int(connection.execute(query).scalar() or 0)


def banked(database: Database, namespace: str, first: int, count: int) -> None:
    """Trajectories without steps, for keys to belong to."""
    columns = "pk, id, namespace, goal, plan, category, model, success, length, metadata, created_at, digest, episode"
    with database.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO trajectories ({columns}, goal_key, plan_key) SELECT i, i, :namespace, '', '', '', '', "
                "true, 1, '{}', now(), i, '', '', '' FROM generate_series(CAST(:first AS integer), :last) AS i "
                "ON CONFLICT DO NOTHING"
            ),
            {"namespace": namespace, "first": first, "last": first + count - 1},
        )


def test_only_a_large_namespace_has_an_index_and_its_searches_use_it_with_little_loss(database: Database) -> None:
    rng, small = np.random.default_rng(0), "sm'all %s :x"
    retriever = PgvectorRetriever(DIMENSION, database=database, space="large", exact_below=4_000)
    centres = rng.normal(size=(80, DIMENSION))
    keys = centres[rng.integers(0, 80, 8_000)] + 0.4 * rng.normal(size=(8_000, DIMENSION))
    keys = (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)
    banked(database, "large", 0, 2_000)
    retriever.add("large", np.arange(8_000), np.arange(8_000) // 4, keys)
    banked(database, small, 5_000, 20)
    retriever.add(small, np.arange(80) + 10_000, np.arange(80) // 4 + 5_000, keys[:80])
    retriever.settle()
    database.engine.dispose()  # the server counts a session's searches when another asks only after a while
    with database.begin() as connection:
        found = text("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%USING hnsw%'")
        assert connection.execute(found).scalar() == 1
    before = uses(database)
    assert {group for _, group, _ in retriever.search(small, keys[0], 30)} == set(range(5_000, 5_020))
    assert uses(database) == before
    near = retriever.search("large", keys[0], 6)
    assert uses(database) > before
    assert near[0] == pytest.approx((0, 0, 1), abs=2e-3)
    without = {group for _, group, _ in retriever.search("large", keys[0], 6, [near[0][1], near[1][1]])}
    assert len(without) == 6
    assert not without & {near[0][1], near[1][1]}
    assert retriever.recall("large", keys[::200], 6) >= 0.95
    everything = retriever.search("large", keys[0], 3_000)
    assert len({group for _, group, _ in everything}) == 2_000, "k beyond what the index goes through is found exactly"


def test_a_namespace_that_grew_gets_its_index_behind_the_searches(database: Database) -> None:
    rng = random.Random(8)
    retriever = shared(database, exact_below=40).retriever
    assert isinstance(retriever, PgvectorRetriever)
    asyncio.run(Bank(database, HashEmbedder(DIMENSION), retriever).add_many([trajectory(i, rng) for i in range(3)]))
    key = np.random.default_rng(0).normal(size=3 * DIMENSION).astype(np.float32)
    other = Bank(database, HashEmbedder(DIMENSION), retriever)
    asyncio.run(other.add_many([trajectory(i, rng) for i in range(3, 30)]))
    retriever._keys._states.clear()  # instead of two seconds
    before = retriever.search("default", key, 6)
    other.close()
    assert retriever.recall("default", key[None], 6) >= 5 / 6
    assert len(before) == 6


def test_processes_that_make_indexes_of_several_namespaces_do_not_wait_for_each_other_in_a_circle(
    database: Database,
) -> None:
    keys = np.random.default_rng(0).normal(size=(1_000, 24)).astype(np.float32)
    banked(database, "", 0, 1_000)
    others = [open_database(database.engine.url.render_as_string(hide_password=False)) for _ in range(6)]
    makers = [PgvectorRetriever(24, database=other, space="circle", exact_below=40) for other in others]
    for number, maker in enumerate(makers):
        maker.add(f"space {number}", np.arange(1_000) + 1_000 * number, np.arange(1_000), keys)
    with ThreadPoolExecutor(6) as threads:
        for made in [threads.submit(maker.settle) for maker in makers]:
            made.result()  # StorageError: PostgreSQL ended one that waited in a circle
    with database.reading() as connection:
        assert {makers[0]._keys.state(connection, f"space {number}") for number in range(6)} == {"indexed"}
    for other in others:
        other.close()


def test_an_index_is_left_to_the_process_that_makes_one_and_asked_for_again_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector_table, "RECHECK_SECONDS", 0.0)
    retriever = PgvectorRetriever(24, database=database, space="left", exact_below=40)
    keys = np.random.default_rng(0).normal(size=(60, 24)).astype(np.float32)
    banked(database, "", 0, 60)
    retriever.add("", np.arange(60), np.arange(60), keys)
    release = hold(database, f"indexes of {retriever.table}")
    assert release is not None
    assert len(retriever.search("", keys[0], 6)) == 6
    building = retriever._keys._building
    assert building is not None
    building.join(60)  # it does not wait for hours, as the other may
    assert not building.is_alive()
    release()
    assert len(retriever.search("", keys[0], 6)) == 6
    retriever.settle()
    with database.reading() as connection:
        assert retriever._keys.state(connection, "") == "indexed"


def test_an_index_is_made_with_the_memory_that_it_needs_and_the_server_allows(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pgvector_table, "BUILDING_MEMORY", 1 << 20)
    monkeypatch.setattr(pgvector_table, "NODE_BYTES", 100_000)
    retriever = PgvectorRetriever(6, database=database, space="room", exact_below=40)
    asked: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda _, __, statement, *___: asked.append(statement))
    keys = np.random.default_rng(0).normal(size=(900, 6)).astype(np.float32)
    banked(database, "", 0, 900)
    for number, (allowed, expected) in enumerate((("1MB", 1 << 10), ("2GB", 900 * 100_012 >> 10))):
        with database.begin() as connection:
            name = database.engine.url.database
            connection.execute(text(f"ALTER DATABASE {name} SET maintenance_work_mem = '{allowed}'"))
        database.engine.dispose()
        caplog.clear()
        retriever.add(f"room {number}", np.arange(900) + 1000 * number, np.arange(900), keys)
        retriever.settle()
        assert f"SET maintenance_work_mem = {expected}" in asked
        told = [r.getMessage() for r in caplog.records if "maintenance_work_mem" in r.getMessage()]
        assert [("900 steps" in t, "takes 0.1 GB" in t) for t in told] == ([(True, True)] if allowed == "1MB" else [])


def test_a_larger_index_is_searched_further(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgvector, "STEPS_A_CANDIDATE", 4)
    retriever = PgvectorRetriever(6, database=database, space="further", exact_below=40)
    keys = np.random.default_rng(0).normal(size=(1_200, 6)).astype(np.float32)
    banked(database, "", 0, 1_200)
    used = []
    for name, size in (("small", 60), ("large", 1_200), ("small", 0)):
        retriever.add(name, np.arange(size) + size * 10, np.arange(size), keys[:size])
        retriever.settle()
        database.engine.dispose()
        assert len(retriever.search(name, keys[0], 6)) == 6
        with database.reading() as connection:  # the pool's one connection, which searched
            used.append(connection.execute(text("SHOW hnsw.ef_search")).scalar())
    assert used == ["200", "300", "200"]
    monkeypatch.undo()
    assert [pgvector.in_view(size) for size in (0, 100_000, 300_000, 10**7)] == [200, 250, 750, 1000]


@given(steps=operations, key=vectors, k=st.integers(-1, 9), exclude=st.sets(st.integers(0, 7), max_size=3))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_adds_removals_and_searches_are_those_of_the_exact_index(
    database: Database, steps: list[Operation], key: list[int], k: int, exclude: set[int]
) -> None:
    ours, exact = PgvectorRetriever(3, database=database, space="property"), ExactRetriever(3)
    banked(database, "", 0, 8)
    with database.begin() as connection:
        connection.execute(text(f"DELETE FROM {ours.table}"))
    for number, (namespace, added, removed) in enumerate(steps):
        rows = np.array([(50 * number + i) * 37 % 1009 for i in range(len(added))], dtype=np.int64)
        groups = np.array([group for group, _ in added], dtype=np.int64)
        keys = np.array([own for _, own in added], dtype=np.float32).reshape(len(added), 3)
        for index in (ours, exact):
            index.add(namespace, rows, groups, keys)
            index.remove(namespace, removed)
    assert len(ours) == len(exact)
    for namespace in ("a", "b", "", "never written"):
        asked = namespace, np.array(key, dtype=np.float32), k, exclude
        assert ours.search(*asked) == exact.search(*asked)


def test_unusable_keys_are_refused(database: Database) -> None:
    index = PgvectorRetriever(2, database=database, space="checks")
    for keys, message in (([[np.nan, 0]], "NaN or infinity"), ([[1e5, 0]], "half precision"), ([[1, 0, 0]], "shape")):
        with pytest.raises(EmbeddingError, match=message):
            index.add("a", np.array([1]), np.array([1]), np.array(keys, dtype=np.float32))
    with pytest.raises(EmbeddingError):
        index.search("a", np.full(2, np.nan, dtype=np.float32), 1)
    assert len(index) == 0


def test_without_the_package_the_extra_is_named(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pgvector", None)
    with pytest.raises(MissingExtra, match=r'pip install "agentcascade\[pgvector\]"'):
        components.make_retriever("pgvector", 6, database, "x")


def test_two_schemas_of_one_database_are_two_indexes(database: Database) -> None:
    """Even where both are on a search path, as those of a benchmark's banks are."""
    url = database.engine.url.render_as_string(hide_password=False)
    rng = random.Random(9)
    asyncio.run(shared(database).add_many([trajectory(i, rng) for i in range(3)]))
    own = open_database(within_schema(url, "bench_1"))
    bank = shared(own)
    assert len(bank.retriever) == 0
    asyncio.run(bank.add_many([trajectory(i, rng) for i in range(5)]))
    assert (len(bank.retriever), len(shared(database).retriever)) == (20, 12)
    own.close()


def test_other_weights_are_another_index(database: Database) -> None:
    one = PgvectorRetriever(6, database=database, space="hash {'goal': 1.0}")
    assert one.table != PgvectorRetriever(6, database=database, space="hash {'goal': 2.0}").table
    assert one.table == PgvectorRetriever(6, database=database, space="hash {'goal': 1.0}").table


def test_a_database_without_pgvector_says_what_to_do(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    lite = open_database(tmp_path / "bank.db")
    with pytest.raises(ConfigError, match=r"set bank\.url to"):
        components.make_retriever("pgvector", 6, lite, "x")
    lite.close()
    with pytest.raises(ConfigError, match=r"set bank\.url to"):
        components.make_retriever("pgvector", 6)
    plain = open_database(request.getfixturevalue("postgres_url"))
    try:
        with plain.begin() as connection:
            there = connection.execute(text("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")).scalar()
        if there:
            pytest.skip("this server has pgvector")
        with pytest.raises(StorageError, match="CREATE EXTENSION"):
            components.make_retriever("pgvector", 6, plain, "x")
        with pytest.raises(ConfigError, match="4,000 dimensions"):
            components.make_retriever("pgvector", 5000, plain, "x")
    finally:
        plain.close()
