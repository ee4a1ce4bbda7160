"""The bank: what goes in, which windows come out, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select

from agentcascade.bank import catalog as catalogs
from agentcascade.bank.bank import Bank
from agentcascade.bank.catalog import Catalog, import_export, read_export
from agentcascade.errors import BankError, EmbeddingError, EmbeddingModelChanged, UnknownTrajectory
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.storage import open_database, trajectories
from agentcascade.storage.tables import embeddings
from agentcascade.storage.trajectories import text_key
from agentcascade.types import Situation, Step, Trajectory


class CountingEmbedder(HashEmbedder):
    """Remembers what it was asked for."""

    def __init__(self, dimension=32):
        super().__init__(dimension)
        self.batches = []

    def embed(self, texts):
        self.batches.append(list(texts))
        return super().embed(texts)


@pytest.fixture
def database():
    opened = open_database("sqlite://")
    yield opened
    opened.close()


def make(database, embedder=None, **options):
    embedder = embedder or CountingEmbedder()
    return Bank(database, embedder, ExactRetriever(3 * embedder.dimension), **options)


def trajectory(goal, *observations, **values):
    steps = tuple(Step(observation=o, action=values.pop("action", None) or f"do {goal} {o}") for o in observations)
    return Trajectory(**{"goal": goal, "steps": steps, "success": True} | values)


async def test_the_matching_step_comes_with_its_neighbours(database):
    bank = make(database, window_before=1, window_after=2)
    await bank.add(trajectory("clean mug", "alpha", "beta", "gamma", "delta", "epsilon", plan="wash it", id="t1"))
    (found,) = (await bank.retrieve(Situation(goal="clean mug", plan="wash it", observation="gamma"), 5)).demonstrations
    assert [s.observation for s in found.steps] == ["beta", "gamma", "delta", "epsilon"]
    assert (found.trajectory, found.start, found.match, found.length) == ("t1", 1, 2, 5)
    assert found.score == pytest.approx(1.0, abs=1e-5)


@given(
    length=st.integers(1, 12),
    match=st.integers(0, 11),
    before=st.integers(0, 4),
    after=st.integers(0, 4),
)
@settings(max_examples=30, deadline=None)
def test_windows_are_clipped_to_the_trajectory(length, match, before, after):
    match %= length
    database = open_database("sqlite://")
    bank = make(database, HashEmbedder(1024), window_before=before, window_after=after)
    words = [f"word{i}" for i in range(length)]

    async def go():
        await bank.add(trajectory("a goal", *words))
        return (await bank.retrieve(Situation(goal="a goal", observation=words[match]), 1)).demonstrations

    (found,) = asyncio.run(go())
    database.close()
    assert [s.observation for s in found.steps] == words[max(0, match - before) : match + after + 1]
    assert found.steps[found.match - found.start].observation == words[match]


async def test_the_score_is_the_weighted_mean_of_three_cosines(database):
    embedder = HashEmbedder(64)
    bank = make(database, embedder, weights={"goal": 2, "plan": 1, "observation": 1})
    await bank.add(trajectory("clean the red mug", "a sink and a tap", plan="find it then wash it"))
    (found,) = (
        await bank.retrieve(Situation(goal="clean a red cup", plan="wash it", observation="a tap"), 1)
    ).demonstrations
    pairs = [
        ("clean the red mug", "clean a red cup"),
        ("find it then wash it", "wash it"),
        ("a sink and a tap", "a tap"),
    ]
    cosines = [float(np.dot(*embedder.embed(pair))) for pair in pairs]
    assert found.score == pytest.approx((2 * cosines[0] + cosines[1] + cosines[2]) / 4, abs=1e-5)


async def test_a_missing_plan_counts_as_no_similarity(database):
    bank = make(database)
    await bank.add(trajectory("clean mug", "a sink", plan="wash it"))
    (found,) = (await bank.retrieve(Situation(goal="clean mug", observation="a sink"), 1)).demonstrations
    assert found.score == pytest.approx(2 / 3, abs=1e-5)


async def test_namespaces_and_the_own_episode_stay_out(database):
    bank = make(database)
    await bank.add_many(
        [
            trajectory("clean mug", "sink", namespace="a", id="mine", metadata={"episode": "e1"}),
            trajectory("clean mug", "sink two", namespace="a", id="e1"),
            trajectory("clean mug", "sink", namespace="b", id="foreign"),
            trajectory("heat egg", "oven", namespace="a", id="other"),
        ]
    )
    found = await bank.retrieve(Situation(goal="clean mug", observation="sink", namespace="a", episode="e1"), 4)
    assert [d.trajectory for d in found.demonstrations] == ["other"]


async def test_near_duplicates_make_room_for_others(database):
    bank = make(database)
    same = [trajectory("clean mug", f"sink {i}", action="wash", id=f"same{i}") for i in range(9)]
    await bank.add_many([*same, trajectory("clean mug", "garden", action="dig", id="else")])
    found = await bank.retrieve(Situation(goal="clean mug", observation="sink 3"), 2)
    assert [d.trajectory for d in found.demonstrations] == ["same3", "else"]


async def test_an_exact_repeat_is_banked_once_per_namespace(database):
    bank = make(database)
    first = trajectory("clean mug", "sink")
    assert await bank.add(first)
    assert not await bank.add(trajectory("clean mug", "sink"))
    assert await bank.add_many([trajectory("clean mug", "sink", namespace="b")] * 2) == [True, False]
    assert Catalog(database).counts() == {"default": (1, 1), "b": (1, 1)}


async def test_each_text_is_embedded_once_in_one_batch(database):
    bank = make(database)
    await bank.add(trajectory("clean mug", "sink", "tap", "sink"))
    assert [sorted(b) for b in bank.embedder.batches] == [["clean mug", "sink", "tap"]]
    bank.embedder.batches.clear()
    first = await bank.retrieve(Situation(goal="clean mug", plan="a new plan", observation="a new room"), 1)
    second = await bank.retrieve(Situation(goal="clean mug", plan="a new plan", observation="a new room"), 1)
    assert [sorted(b) for b in bank.embedder.batches] == [["a new plan", "a new room"]]
    assert first.embedding_seconds > 0
    assert second == (first.demonstrations, 0.0)


async def test_a_warm_retrieval_does_not_leave_the_event_loop(database, monkeypatch):
    bank = make(database)
    await bank.add(trajectory("clean mug", "sink"))
    situation = Situation(goal="clean mug", observation="sink")
    await bank.retrieve(situation, 1)

    def refuse(*_):
        raise AssertionError("a thread was used")

    monkeypatch.setattr(asyncio, "to_thread", refuse)
    assert (await bank.retrieve(situation, 1)).demonstrations


async def test_a_retrieval_does_not_wait_while_the_index_takes_in_others_rows(database, monkeypatch):
    monkeypatch.setattr("agentcascade.bank.bank.REFRESH_SECONDS", 0.0)
    bank = make(database)
    await bank.add(trajectory("clean mug", "sink"))
    await bank.retrieve(Situation(goal="clean mug"), 1)
    training, go_on = threading.Event(), threading.Event()
    add = bank.retriever.add

    def slow_add(*rows):
        training.set()
        assert go_on.wait(60)
        add(*rows)

    monkeypatch.setattr(bank.retriever, "add", slow_add)
    adding = asyncio.create_task(bank.add(trajectory("heat egg", "oven")))
    await asyncio.to_thread(training.wait, 60)
    found = await asyncio.wait_for(bank.retrieve(Situation(goal="clean mug"), 2), 30)
    assert [d.goal for d in found.demonstrations] == ["clean mug"]
    go_on.set()
    assert await adding


async def test_what_was_added_does_not_wait_for_long_while_the_index_takes_in_others_rows(database, monkeypatch):
    monkeypatch.setattr("agentcascade.bank.step_index.WAIT_SECONDS", 0.1)
    bank = make(database)
    await bank.add(trajectory("a", "one"))
    held, over = threading.Event(), threading.Event()

    def hold():
        with bank._index.lock:
            held.set()
            over.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    try:
        assert await asyncio.wait_for(bank.add(trajectory("b", "two")), 10)
    finally:
        over.set()
        holder.join()
    found = (await bank.retrieve(Situation(goal="b", observation="two"), 1)).demonstrations
    assert [d.goal for d in found] == ["b"], "the next retrieval takes it in"


async def test_what_others_removed_leaves_an_index_at_once(database, monkeypatch):
    """One by one, each with a copy of the index that nobody may search meanwhile, thousands took a minute."""
    bank, removed = make(database), []
    remove = ExactRetriever.remove

    def counted(self, namespace, groups):
        removed.append((namespace, len(groups)))
        remove(self, namespace, groups)

    monkeypatch.setattr(ExactRetriever, "remove", counted)
    await bank.add_many([trajectory(f"{n} {i}", "one", namespace=n) for n in "ab" for i in range(10)])
    for namespace in "ab":
        Catalog(database).prune(namespace, keep=3)
    await bank.refresh()
    assert sorted(removed) == [("a", 7), ("b", 7)]
    assert len(bank.retriever) == 6


async def test_a_look_at_the_database_is_one_statement_while_nothing_is_new(database, monkeypatch):
    monkeypatch.setattr("agentcascade.bank.bank.REFRESH_SECONDS", -1.0)
    bank, other, said = make(database), make(database), []
    await bank.add(trajectory("clean mug", "sink", id="t1"))
    situation = Situation(goal="clean mug", observation="sink")
    await bank.retrieve(situation, 5)
    event.listen(database.engine, "before_cursor_execute", lambda *call: said.append(call[2].split()[0]))

    async def found():
        said.clear()
        return {d.trajectory for d in (await bank.retrieve(situation, 5)).demonstrations}

    assert (await found(), said.count("SELECT")) == ({"t1"}, 1)
    await other.add(trajectory("heat egg", "oven", id="t2"))
    assert await found() == {"t1", "t2"}
    assert (await found(), said.count("SELECT")) == ({"t1", "t2"}, 1)
    Catalog(database).remove("t1")
    assert await found() == {"t2"}
    assert (await found(), said.count("SELECT")) == ({"t2"}, 1)
    make(database, CountingEmbedder(16)).reembed()
    with pytest.raises(EmbeddingModelChanged):
        await bank.retrieve(situation, 5)


async def test_the_first_retrievals_all_wait_for_the_index(database):
    await make(database).add_many([trajectory(f"goal {i}", "sink") for i in range(30)])
    bank = make(database)
    looks = [bank.retrieve(Situation(goal=f"goal {i}", observation="sink"), 1) for i in range(8)]
    assert all(found.demonstrations for found in await asyncio.gather(*looks))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (trajectory("g", "o", success=False, id="t9"), "t9 failed: only successful"),
        (trajectory("g", id="t9"), "t9 has no steps"),
        (trajectory(" ", "o", id="t9"), "t9 has no goal"),
    ],
)
async def test_what_cannot_teach_is_refused(database, bad, message):
    with pytest.raises(BankError, match=message):
        await make(database).add_many([trajectory("fine", "o"), bad])
    assert Catalog(database).list() == []


class Broken(HashEmbedder):
    def __init__(self, spoil):
        super().__init__(16)
        self.spoil = spoil

    def embed(self, texts):
        return self.spoil(super().embed(texts))


def with_entry(value):
    def spoil(vectors):
        vectors[-1, 0] = value
        return vectors

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_entry(np.nan), "length nan"),
        (with_entry(np.inf), "length inf"),
        (lambda v: v * 2, "length 2"),
        (lambda v: v * 0, "length 0"),
        (lambda v: v[:, :8], "16 dimensions"),
        (lambda v: v[1:], "for 2 texts"),
    ],
)
async def test_unusable_vectors_are_refused_before_anything_is_written(database, spoil, message):
    bank = make(database, Broken(spoil))
    with pytest.raises(EmbeddingError, match=message):
        await bank.add(trajectory("goal", "observation"))
    assert Catalog(database).list() == []
    bank.embedder.spoil = lambda v: v
    assert await bank.add(trajectory("goal", "observation"))


async def test_another_embedding_model_is_noticed_and_mended(database):
    await make(database, HashEmbedder(32)).add(trajectory("clean mug", "sink", id="t1"))
    bank = make(database, HashEmbedder(16))
    for use in (bank.add(trajectory("heat egg", "oven")), bank.retrieve(Situation(goal="clean mug"), 1)):
        with pytest.raises(EmbeddingModelChanged, match=r"hashing-32.*hashing-16.*bank reembed"):
            await use
    assert [e.id for e in Catalog(database).list()] == ["t1"]
    assert await asyncio.to_thread(bank.reembed) == 2
    (found,) = (await bank.retrieve(Situation(goal="clean mug", observation="sink"), 1)).demonstrations
    assert (found.trajectory, found.score) == ("t1", pytest.approx(2 / 3, abs=1e-5))


async def test_a_bank_embedded_anew_by_another_process_is_noticed(database):
    old = make(database, HashEmbedder(32))
    await old.add(trajectory("clean mug", "sink"))
    await asyncio.to_thread(make(database, HashEmbedder(16)).reembed)
    with pytest.raises(EmbeddingModelChanged):
        await old.refresh()


async def test_others_bank_while_all_is_embedded_anew(database):
    old = make(database, HashEmbedder(32))
    await old.add_many([trajectory(f"goal {i}", "sink") for i in range(3)])
    late = [trajectory("heat egg", "oven", id="late")]

    class Embedder(CountingEmbedder):
        def embed(self, texts):
            if late:
                old._add([late.pop()])  # an error, where whoever embeds holds the database meanwhile
            return super().embed(texts)

    bank = make(database, Embedder(16))
    assert await asyncio.to_thread(bank.reembed) == 6
    banked = ["goal 0", "goal 1", "goal 2", "sink", "heat egg", "oven"]
    assert sorted(text for batch in bank.embedder.batches for text in batch) == sorted(banked), "each of them once"
    assert len(bank.embedder.batches) == 2
    (found, _) = (await bank.retrieve(Situation(goal="heat egg", observation="oven"), 2)).demonstrations
    assert (found.trajectory, found.score) == ("late", pytest.approx(2 / 3, abs=1e-5))


async def test_an_empty_bank_may_change_its_embedder(database):
    await make(database, HashEmbedder(32)).add(trajectory("clean mug", "sink", id="t1"))
    Catalog(database).remove("t1")
    assert await make(database, HashEmbedder(16)).add(trajectory("clean mug", "sink"))


async def test_nothing_is_found_in_an_empty_bank_or_for_no_demonstrations(database):
    bank = make(database)
    assert (await bank.retrieve(Situation(goal="clean mug"), 3)).demonstrations == []
    await bank.add(trajectory("clean mug", "sink"))
    assert (await bank.retrieve(Situation(goal="clean mug"), 0)).demonstrations == []


async def test_many_threads_of_work_at_once(database):
    bank = make(database)
    items = [trajectory(f"goal {i}", f"room {i}", f"hall {i}") for i in range(20)]
    looks = [bank.retrieve(Situation(goal="goal 3", observation="room 3"), 4) for _ in range(20)]
    await asyncio.gather(*map(bank.add, items), *looks)
    assert len(bank.retriever) == 40
    (best, *_) = (await bank.retrieve(Situation(goal="goal 3", observation="room 3"), 4)).demonstrations
    assert best.goal == "goal 3"


def test_weights_must_make_sense(database):
    for weights in ({"goal": 1.0}, dict.fromkeys(("goal", "plan", "observation"), 0.0), {"goal": 1, "plan": 1, "x": 1}):
        with pytest.raises(BankError, match="goal, plan and observation"):
            make(database, weights=weights)


async def test_listing_pages_newest_first_and_prunes(database):
    bank, catalog, start = make(database), Catalog(database), datetime(2026, 1, 1, tzinfo=UTC)
    days = [start + timedelta(days=i) for i in range(5)]
    await bank.add_many([trajectory(f"g{i}", "o", id=f"t{i}", created_at=day) for i, day in enumerate(days)])
    assert [e.id for e in catalog.list(limit=2, offset=1)] == ["t3", "t2"]
    assert catalog.prune(before=days[1]) == 1
    assert catalog.prune(keep=2) == 2
    assert [e.id for e in catalog.list()] == ["t4", "t3"]
    assert catalog.get("t4").created_at == days[4]
    with pytest.raises(UnknownTrajectory, match="there is no trajectory 't0'"):
        catalog.get("t0")
    with pytest.raises(UnknownTrajectory):
        catalog.remove("t0")
    with pytest.raises(BankError, match="keep=N"):
        catalog.prune()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
STEPS = st.builds(Step, observation=TEXT, reasoning=TEXT, action=TEXT)
TRAJECTORIES = st.lists(
    st.builds(
        Trajectory,
        goal=TEXT.filter(str.strip),
        plan=TEXT,
        category=TEXT,
        model=TEXT,
        steps=st.lists(STEPS, min_size=1, max_size=3).map(tuple),
        success=st.just(True),
        metadata=st.dictionaries(TEXT, st.integers() | TEXT | st.booleans(), max_size=2),
        created_at=st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
    ),
    max_size=4,
    unique_by=lambda t: (t.goal, t.plan, t.steps),
)


@given(items=TRAJECTORIES)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_export_and_import_give_back_the_same_trajectories(items, tmp_path):
    path = tmp_path / "bank.jsonl"
    source, target = open_database("sqlite://"), open_database("sqlite://")

    async def go():
        await make(source).add_many(items)
        assert Catalog(source).export(path) == (len(items), 0)
        bank = make(target)
        assert await import_export(bank, path) == (len(items), 0, 0)
        assert await import_export(bank, path) == (0, len(items), 0)

    asyncio.run(go())
    assert {t.id: t for t in Catalog(target).all()} == {t.id: t for t in items}
    source.close()
    target.close()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3: the line: Invalid JSON"),
        ('{"goal": "g", "steps": [{"observation": ""}], "success": true}', r"line 3: steps\.0\.action: Field required"),
        ('{"goal": "g", "steps": [], "success": true}', "line 3: trajectory .* has no steps"),
        ('{"goal": "g", "steps": [], "success": true, "gaol": 1}', "line 3: gaol: Extra inputs"),
    ],
)
async def test_a_bad_line_is_named_and_nothing_is_imported(database, tmp_path, line, message):
    path = tmp_path / "bank.jsonl"
    path.write_text(trajectory("fine", "o").model_dump_json() + "\n\n" + line + "\n")
    with pytest.raises(BankError, match=message):
        await import_export(make(database), path)
    assert Catalog(database).list() == []


def test_a_missing_export_is_named(tmp_path):
    with pytest.raises(BankError, match=r"none\.jsonl cannot be read"):
        read_export(tmp_path / "none.jsonl")


async def test_others_write_between_two_portions_of_what_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogs, "PORTION", 2)
    left: list[int] = []
    delete_rows = trajectories.delete_rows

    def seen_by_another(connection, pks):
        left.extend(count for count, _ in Catalog(other).counts().values())
        return delete_rows(connection, pks)

    monkeypatch.setattr(trajectories, "delete_rows", seen_by_another)
    with closing(open_database(tmp_path / "a.db")) as database, closing(open_database(tmp_path / "a.db")) as other:
        await make(database).add_many([trajectory(f"goal {i}", "sink") for i in range(7)])
        assert Catalog(database).prune(keep=2) == 5
        assert left == [7, 5, 3]
        assert Catalog(other).counts() == {"default": (2, 2)}


async def test_a_text_that_is_banked_again_while_its_vector_is_removed_keeps_it(tmp_path, monkeypatch):
    find = trajectories.unused_vectors

    def find_and_bank(connection):
        found = find(connection)
        bank._add([trajectory("clean mug", "sink", id="again")])
        return found

    with closing(open_database(tmp_path / "a.db")) as database, closing(open_database(tmp_path / "a.db")) as other:
        bank = make(other)
        await bank.add_many([trajectory("clean mug", "sink", id="t1"), trajectory("heat egg", "oven", id="t2")])
        monkeypatch.setattr(trajectories, "unused_vectors", find_and_bank)
        assert Catalog(database).prune(keep=0) == 2
        with database.begin() as connection:
            keys = set(connection.execute(select(embeddings.c.key)).scalars())
        assert keys == {text_key(bank.embedder.name, text) for text in ("clean mug", "sink")}
        (found,) = (await make(database).retrieve(Situation(goal="clean mug", observation="sink"), 1)).demonstrations
        assert (found.trajectory, found.score) == ("again", pytest.approx(2 / 3, abs=1e-5))


@pytest.mark.parametrize("damage", [b"", b"abc", b"\x00\x00\xc0\x7f" * 32, b"\0" * 124])
async def test_a_damaged_vector_keeps_nothing_from_starting(database, damage, caplog):
    embedder = HashEmbedder(32)
    await make(database, embedder).add(trajectory("clean mug", "alpha", "beta", id="t1"))
    with database.begin(write=True) as connection:
        key = text_key(embedder.name, "alpha")
        connection.execute(embeddings.update().where(embeddings.c.key == key).values(vector=damage))
    (found,) = (
        await make(database, embedder).retrieve(Situation(goal="clean mug", observation="beta"), 2)
    ).demonstrations
    assert (found.trajectory, found.match) == ("t1", 1)
    assert "bank reembed" in caplog.text


async def test_episodes_of_removed_trajectories_are_forgotten(database):
    bank = make(database)
    for i in range(3):
        await bank.add(trajectory("g", f"o{i}", metadata={"episode": f"e{i // 2}"}, id=f"t{i}"))
    for name in ("t0", "t2"):
        Catalog(database).remove(name)
    await bank.refresh()
    assert [len(pks) for pks in bank._index._trajectories_of.values()] == [1]
    assert len(bank._index._episode_of) == 1
