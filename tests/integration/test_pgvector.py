"""A bank whose index is in PostgreSQL: the same demonstrations as an exact search, for many processes at once."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from postgres import pgvector_server, pgvector_url, postgres_server, postgres_url  # noqa: F401

from agentcascade import assembly
from agentcascade.bank import Bank
from agentcascade.errors import ConfigError, StorageError
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.retrievers.pgvector import PgvectorRetriever
from agentcascade.storage import Database, open_database, trajectories
from agentcascade.types import Demonstration, Situation, Step, Trajectory

DIMENSION = 24
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


async def test_what_one_process_banks_is_there_for_all_and_is_indexed_once(database: Database) -> None:
    rng = random.Random(2)
    one, other = shared(database), shared(database)
    await one.add_many([trajectory(i, rng) for i in range(10)])
    added: list[int] = []
    add = other.retriever.add
    other.retriever.add = lambda namespace, rows, groups, keys: (
        added.append(len(rows))
        or add(  # type: ignore[method-assign]
            namespace, rows, groups, keys
        )
    )
    found = (await other.retrieve(situation(rng), 3)).demonstrations
    assert len(found) == 3
    assert added == [], "nothing is loaded that is in the index already"
    await other.add(trajectory(10, rng))
    assert added == [4]
    await one.refresh()
    assert len(one.retriever) == 44


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
        pks = [row.pk for row in trajectories.index_rows(connection, 0)][:4]
        trajectories.remove(connection, pks)
    assert len(other.retriever) == 8
    assert len((await other.retrieve(situation(rng), 6)).demonstrations) == 2


def test_a_large_namespace_is_searched_by_hnsw_with_little_loss(database: Database) -> None:
    rng = random.Random(5)
    bank = shared(database, exact_below=100)
    asyncio.run(bank.add_many([trajectory(i, rng) for i in range(300)]))
    retriever = bank.retriever
    assert isinstance(retriever, PgvectorRetriever)
    keys = np.random.default_rng(0).normal(size=(20, 3 * DIMENSION)).astype(np.float32)
    assert retriever.recall("default", keys, 6) >= 0.9
    near = retriever.search("default", keys[0], 6)
    without = retriever.search("default", keys[0], 6, [near[0][1]])
    assert near[0][1] not in {group for _, group, _ in without}
    assert len({group for _, group, _ in without}) == 6


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
    folders = [str(folder) for folder in Path(__file__).parents[:2]]
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


def test_other_weights_are_another_index(database: Database) -> None:
    one = PgvectorRetriever(6, database=database, space="hash {'goal': 1.0}")
    assert one.table != PgvectorRetriever(6, database=database, space="hash {'goal': 2.0}").table
    assert one.table == PgvectorRetriever(6, database=database, space="hash {'goal': 1.0}").table


def test_a_database_without_pgvector_says_what_to_do(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    lite = open_database(tmp_path / "bank.db")
    with pytest.raises(ConfigError, match=r"set bank\.url to"):
        assembly.make_retriever("pgvector", 6, lite, "x")
    lite.close()
    with pytest.raises(ConfigError, match=r"set bank\.url to"):
        assembly.make_retriever("pgvector", 6)
    plain = open_database(request.getfixturevalue("postgres_url"))
    try:
        with plain.begin() as connection:
            from sqlalchemy import text

            there = connection.execute(text("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")).scalar()
        if there:
            pytest.skip("this server has pgvector")
        with pytest.raises(StorageError, match="CREATE EXTENSION"):
            assembly.make_retriever("pgvector", 6, plain, "x")
        with pytest.raises(ConfigError, match="4,000 dimensions"):
            assembly.make_retriever("pgvector", 5000, plain, "x")
    finally:
        plain.close()
