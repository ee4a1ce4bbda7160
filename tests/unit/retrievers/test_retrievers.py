"""Both indexes against brute force: the same answers while they are exact, nearly the same once keys are compressed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agentcascade.bank.bank import Bank
from agentcascade.bank.step_index import KEYS
from agentcascade.errors import EmbeddingError
from agentcascade.protocols import Retriever
from agentcascade.retrievers.faiss_index import ADDED_AT_ONCE, FaissRetriever, _Partition
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.inverted_file import InvertedFile
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.retrievers.stores import CompressedStore, FlatStore
from agentcascade.storage import open_database
from agentcascade.types import Situation, Step, Trajectory

Vectors: TypeAlias = NDArray[np.float32]
Make: TypeAlias = Callable[[int], Retriever]
Held: TypeAlias = list[tuple[int, int, Sequence[int]]]
"""(row, group, key)"""
Operation: TypeAlias = tuple[str, list[tuple[int, Sequence[int]]], set[int]]
"""Namespace, (group, key) of the steps to add, groups to remove afterwards."""

both = pytest.mark.parametrize("make", [ExactRetriever, FaissRetriever])

SIZE = 24
PER_GROUP = 8


def brute_force(held: Held, key: Sequence[int], k: int, exclude: Collection[int] = ()) -> list[tuple[int, int, float]]:
    """What `search` should give: everything sorted by score, then row; the first of each group; the k first."""
    best: dict[int, tuple[int, int, float]] = {}
    scored = [(row, group, float(np.dot(own, key))) for row, group, own in held if group not in exclude]
    for hit in sorted(scored, key=lambda hit: (-hit[2], hit[0])):
        best.setdefault(hit[1], hit)
    return list(best.values())[:k]


# small whole numbers: inner products are exact in any order of summing, and ties are frequent
vectors = st.lists(st.integers(-2, 2), min_size=3, max_size=3)
groups = st.integers(0, 5)
operations = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", ""]),
        st.lists(st.tuples(groups, vectors), max_size=6),
        st.sets(st.integers(0, 7), max_size=3),
    ),
    max_size=4,
)


@both
@given(steps=operations, key=vectors, k=st.integers(-1, 9), exclude=st.sets(st.integers(0, 7), max_size=3))
@example(steps=[("a", [(1, [1, 0, 0])], {1})], key=[1, 0, 0], k=1, exclude=set())
@example(steps=[("a", [], set())], key=[1, 0, 0], k=1, exclude=set())
def test_adds_removals_and_searches_match_brute_force(
    make: Make, steps: list[Operation], key: list[int], k: int, exclude: set[int]
) -> None:
    index, held = make(3), {"a": Held(), "b": Held(), "": Held()}
    for number, (namespace, added, removed) in enumerate(steps):
        rows = [(50 * number + i) * 37 % 1009 for i in range(len(added))]  # rows do not come in order
        held[namespace] += [(row, group, own) for row, (group, own) in zip(rows, added)]
        keys = np.array([own for _, own in added], dtype=np.float32).reshape(len(added), 3)
        index.add(namespace, np.array(rows), np.array([group for group, _ in added]), keys)
        index.remove(namespace, removed)
        held[namespace] = [h for h in held[namespace] if h[1] not in removed]
    assert len(index) == sum(map(len, held.values()))
    for namespace in (*held, "never written"):
        expected = brute_force(held.get(namespace, []), key, max(k, 0), exclude)
        assert index.search(namespace, np.array(key, dtype=np.float32), k, exclude) == expected


@both
@given(seed=st.integers(0, 10_000), k=st.integers(1, 12), crowd=st.integers(0, 600) | st.just(2_500))
@settings(max_examples=25, deadline=None)
def test_a_crowd_of_steps_of_one_trajectory_does_not_hide_the_other_trajectories(
    make: Make, seed: int, k: int, crowd: int
) -> None:
    rng = np.random.default_rng(seed)
    query = rng.normal(size=8).astype(np.float32)
    keys = np.concatenate([query + 0.01 * rng.normal(size=(crowd, 8)), rng.normal(size=(60, 8))]).astype(np.float32)
    rows, owners = np.arange(len(keys)), np.array([99] * crowd + [i // 4 for i in range(60)])
    index = make(8)
    for part in np.array_split(rows, 3):
        index.add("a", part, owners[part], keys[part])
    hits, scores = index.search("a", query, k), keys @ query
    best = {int(g): max(map(float, scores[owners == g])) for g in set(owners)}
    assert [group for _, group, _ in hits] == sorted(best, key=lambda g: -best[g])[:k]
    assert [score for _, _, score in hits] == pytest.approx([best[group] for _, group, _ in hits], rel=1e-4)
    assert all(owners[row] == group and scores[row] == pytest.approx(score, rel=1e-4) for row, group, score in hits)


@both
def test_a_namespace_never_sees_anothers_rows(make: Make) -> None:
    index, key = make(2), np.array([1, 0], dtype=np.float32)
    index.add("a", np.array([1]), np.array([1]), key[None])
    index.add("b", np.array([2, 3]), np.array([1, 2]), np.stack([key, key]))
    index.remove("b", [1])
    assert index.search("a", key, 5) == [(1, 1, 1.0)]
    assert index.search("b", key, 5) == [(3, 2, 1.0)]
    assert index.search("", key, 5) == []
    assert len(index) == 2


@both
def test_removing_what_is_unknown_changes_nothing(make: Make) -> None:
    index, key = make(2), np.array([1, 0], dtype=np.float32)
    index.remove("a", [1, 2])
    index.add("a", np.array([1]), np.array([1]), key[None])
    index.remove("a", [2, 10**15])
    index.remove("b", [1])
    index.remove("a", [])
    assert (len(index), index.search("a", key, 1)) == (1, [(1, 1, 1.0)])


@both
def test_a_namespace_that_was_emptied_finds_nothing_and_takes_new_steps(make: Make) -> None:
    index, key = make(2), np.array([1, 0], dtype=np.float32)
    index.add("a", np.array([1, 2]), np.array([1, 2]), np.stack([key, key]))
    index.remove("a", [1, 2])
    assert (len(index), index.search("a", key, 3)) == (0, [])
    index.add("a", np.array([3]), np.array([1]), key[None])
    assert index.search("a", key, 3) == [(3, 1, 1.0)]


@both
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([[1, 0], [np.nan, 0]], "key 1 of 2 holds NaN or infinity"),
        ([[1, 0], [0, -np.inf]], "key 1 of 2 holds NaN or infinity"),
        ([[1, 0], [1e300, 0]], "key 1 of 2 holds NaN or infinity"),
        ([[1, 0, 0], [0, 1, 0]], r"shape \(2, 3\), the index takes \(n, 2\): was the embedder changed"),
        ([[1, 0]], "1 keys need as many rows and groups"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_unusable_keys_are_refused_and_nothing_of_them_is_kept(
    make: Make, keys: list[list[float]], message: str
) -> None:
    index = make(2)
    with pytest.raises(EmbeddingError, match=message):
        index.add("a", np.array([1, 2]), np.array([1, 2]), np.array(keys))
    assert (len(index), index.search("a", np.array([1, 0], dtype=np.float32), 5)) == (0, [])


@both
def test_an_unusable_query_is_refused(make: Make) -> None:
    index = make(2)
    index.add("a", np.array([1]), np.array([1]), np.ones((1, 2), dtype=np.float32))
    for query in (np.array([np.nan, 0.0]), np.zeros(3), np.zeros((1, 2))):
        with pytest.raises(EmbeddingError):
            index.search("a", query.astype(np.float32), 1)


words = st.lists(st.sampled_from(["red", "mug", "clean", "sink", "heat", "egg", "desk"]), max_size=5).map(" ".join)


@both
@given(
    texts=st.lists(st.tuples(words.filter(bool), words, words), min_size=1, max_size=12),
    asked=st.tuples(words, words, words),
    weights=st.tuples(*[st.floats(0, 5)] * 3).filter(lambda w: sum(w) > 0.1),
)
@settings(max_examples=30, deadline=None)
def test_the_inner_product_of_keys_ranks_as_the_weighted_mean_of_cosines(
    make: Make, texts: list[tuple[str, str, str]], asked: tuple[str, str, str], weights: tuple[float, float, float]
) -> None:
    embedder, database = HashEmbedder(32), open_database("sqlite://")

    def mean(own: tuple[str, str, str]) -> float:
        cosines = [float(np.dot(*embedder.embed([a, b]))) if a and b else 0.0 for a, b in zip(own, asked)]
        return sum(w * c for w, c in zip(weights, cosines)) / sum(weights)

    async def found() -> dict[str, float]:
        bank = Bank(database, embedder, make(3 * 32), weights=dict(zip(KEYS, weights)))
        steps = [(Step(observation=o, action=f"act {i}"),) for i, (_, _, o) in enumerate(texts)]
        await bank.add_many(
            [
                Trajectory(id=str(i), goal=goal, plan=plan, steps=steps[i], success=True)
                for i, (goal, plan, _) in enumerate(texts)
            ]
        )
        goal, plan, observation = asked
        here = Situation(goal=goal, plan=plan, observation=observation)
        return {d.trajectory: d.score for d in (await bank.retrieve(here, len(texts))).demonstrations}

    scores = asyncio.run(found())
    database.close()
    assert scores == pytest.approx({str(i): mean(own) for i, own in enumerate(texts)}, abs=1e-5)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)


def clustered(count: int, seed: int = 0) -> Vectors:
    """Unit vectors in bunches, as the steps of similar tasks are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(80, SIZE))
    keys = centres[rng.integers(0, 80, count)] + 0.4 * rng.normal(size=(count, SIZE))
    return np.asarray(keys / np.linalg.norm(keys, axis=1, keepdims=True), dtype=np.float32)


def grown(keys: Vectors, *, exact_below: int, batch: int = 700) -> FaissRetriever:
    """An index of `keys` that went over to compressed ones on the way; row i is of group i // PER_GROUP."""
    index, rows = FaissRetriever(keys.shape[1], exact_below=exact_below), np.arange(len(keys))
    for part in np.split(rows, range(batch, len(rows), batch)):
        index.add("a", part, part // PER_GROUP, keys[part])
    index.settle()
    return index


def best_groups(keys: Vectors, query: Vectors, k: int, gone: Iterable[int] = ()) -> dict[int, float]:
    """The k best groups with their best scores, by looking at every key."""
    scores = keys @ query
    best = {g: float(scores[g * PER_GROUP : (g + 1) * PER_GROUP].max()) for g in range(-(-len(keys) // PER_GROUP))}
    alive = sorted(set(best) - set(gone), key=lambda g: -best[g])
    return {g: best[g] for g in alive[:k]}


@pytest.mark.parametrize("exact_below", [4_000, 300])
def test_an_index_that_outgrew_its_exact_limit_finds_nearly_the_same(exact_below: int) -> None:
    """With the smaller limit the inverted file has been trained anew on the way."""
    keys, queries = clustered(5_000), clustered(100, seed=1)
    index = grown(keys, exact_below=exact_below)
    found, errors = 0, []
    for query in queries:
        best, hits = best_groups(keys, query, 10), index.search("a", query, 10)
        assert len(hits) == 10
        assert [s for _, _, s in hits] == sorted((s for _, _, s in hits), reverse=True)
        found += len(best.keys() & {group for _, group, _ in hits})
        errors += [abs(score - float(keys[row] @ query)) for row, _, score in hits]
    assert found / (10 * len(queries)) >= 0.95
    assert 0 < max(errors) < 0.02, "scores are of keys rounded to bytes"
    assert 0.95 <= index.recall("a", queries, k=10) <= 1
    assert 0.95 <= index.recall("a") <= 1


def test_recall_is_a_share_whatever_is_asked() -> None:
    index = grown(clustered(500), exact_below=100)
    assert index.recall("nothing here") == 1.0
    assert index.recall("a", np.zeros((0, SIZE), dtype=np.float32)) == 1.0
    strange = np.random.default_rng(5).normal(size=(20, SIZE)).astype(np.float32)
    assert all(0 <= index.recall("a", strange, k=k) <= 1 for k in (1, 7, 1000))
    with pytest.raises(EmbeddingError):
        index.recall("a", np.full((1, SIZE), np.nan, dtype=np.float32))
    index.remove("a", range(63))
    assert (len(index), index.recall("a")) == (0, 1.0)


def test_an_exact_index_has_full_recall() -> None:
    keys = clustered(900)
    index = grown(keys, exact_below=1_000)
    assert index.recall("a") == 1.0
    hits = index.search("a", keys[7], 3)
    assert [group for _, group, _ in hits] == list(best_groups(keys, keys[7], 3))


def test_k_beyond_what_a_compressed_index_holds_gives_every_group_once() -> None:
    index = grown(clustered(4_000), exact_below=3_000)
    assert sorted(group for _, group, _ in index.search("a", clustered(1)[0], 10_000)) == list(range(500))


def test_removed_and_excluded_groups_stay_out_of_a_compressed_index() -> None:
    keys, queries = clustered(4_000), clustered(30, seed=2)
    index = grown(keys, exact_below=1_000)
    removed: set[int] = set()
    for gone in (range(60), range(60, 260), range(260, 430)):  # hidden, then dropped for good, then few enough
        index.remove("a", gone)
        removed |= set(gone)
        assert len(index) == len(keys) - PER_GROUP * len(removed)
        found = 0
        for query in queries:
            excluded = set(list(best_groups(keys, query, 4, removed))[::2])
            hits = {group for _, group, _ in index.search("a", query, 6, excluded)}
            assert not hits & (removed | excluded)
            found += len(hits & best_groups(keys, query, 6, removed | excluded).keys())
        assert found / (6 * len(queries)) >= 0.95
    index.add("a", np.array([10**9]), np.array([3]), queries[:1])
    row, group, score = index.search("a", queries[0], 1)[0]
    assert (row, group) == (10**9, 3)
    assert score == pytest.approx(1, abs=0.02)


def test_the_same_steps_make_the_same_compressed_index() -> None:
    keys = np.random.default_rng(4).normal(size=(5_000, SIZE)).astype(np.float32)
    one, other = grown(keys, exact_below=4_000), grown(keys, exact_below=4_000)
    for query in np.random.default_rng(3).normal(size=(200, SIZE)).astype(np.float32):
        assert one.search("a", query, 1) == other.search("a", query, 1)


def test_searches_go_on_while_the_index_grows_and_is_trained() -> None:
    keys = clustered(6_000)
    index, failures = FaissRetriever(SIZE, exact_below=500), list[BaseException]()

    def add() -> None:
        try:
            for start in range(0, len(keys), 100):
                rows = np.arange(start, start + 100)
                index.add("a", rows, rows // PER_GROUP, keys[rows])
        except BaseException as error:
            failures.append(error)

    adding, searches = threading.Thread(target=add), 0
    adding.start()
    while adding.is_alive() or searches < 20:
        query = keys[searches % len(keys)]
        hits = index.search("a", query, 6)
        assert len({group for _, group, _ in hits}) == len(hits)
        assert all(row // PER_GROUP == group for row, group, _ in hits)
        assert all(abs(score - float(keys[row] @ query)) < 0.02 for row, _, score in hits)
        searches += 1
    adding.join()
    index.settle()
    assert (failures, len(index)) == ([], len(keys))
    assert index.recall("a", keys[:50]) >= 0.95


def test_searches_wait_for_little_of_the_work_of_adding_and_training(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = clustered(5_000)
    index = FaissRetriever(SIZE, exact_below=500)

    def add(start: int, end: int) -> None:
        rows = np.arange(start, end)
        index.add("a", rows, rows // PER_GROUP, keys[start:end])

    add(0, 600)
    index.settle()
    partition, held, training, may_end = index._partitions["a"], list[int](), threading.Event(), threading.Event()
    placed, trained = InvertedFile.placed, CompressedStore.trained

    def watched(file: InvertedFile, own: Vectors) -> Any:
        if partition._lock.locked():
            held.append(len(own))
        return placed(file, own)

    def late(*arguments: Any) -> Any:
        file = trained(*arguments)
        training.set()
        assert may_end.wait(30)
        return file

    monkeypatch.setattr(InvertedFile, "placed", watched)
    monkeypatch.setattr(CompressedStore, "trained", late)
    add(600, 3_700)
    assert held == [], "keys find their lists before the lock is taken"
    index.search("a", keys[0], 1)  # six times as many: a larger file is trained meanwhile
    assert training.wait(30)
    held.clear()  # the search may have had the lock then
    add(3_700, 5_000)
    may_end.set()
    index.settle()
    assert sum(held) <= ADDED_AT_ONCE
    assert index.recall("a", keys[:50]) >= 0.95
    found = [row for row, _, _ in (index.search("a", keys[row], 1)[0] for row in range(0, 5_000, 100))]
    assert np.mean(np.array(found) == np.arange(0, 5_000, 100)) >= 0.9


def test_a_bulk_load_is_trained_for_once_it_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, sizes, trained = clustered(8_000), list[int](), CompressedStore.trained

    def watched(store: CompressedStore, size: int, *arguments: Any) -> Any:
        sizes.append(size)
        return trained(store, size, *arguments)

    monkeypatch.setattr(CompressedStore, "trained", watched)
    index = FaissRetriever(SIZE, exact_below=250)
    for rows in np.array_split(np.arange(8_000), 32):
        index.add("a", rows, rows // PER_GROUP, keys[rows])
    assert sizes == [1_250], "floats are not kept beyond four times 250"
    index.search("a", keys[0], 1)
    index.settle()
    assert sizes == [1_250, 8_000]
    assert index.recall("a", keys[:50]) >= 0.95


def test_what_was_trained_of_steps_that_were_compacted_meanwhile_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, may_end = clustered(1_500), threading.Event()
    index, rows = FaissRetriever(SIZE, exact_below=500), np.arange(1_500)
    index.add("a", rows, rows, keys)
    partition, wait, trained = index._partitions["a"], _Partition._wait, CompressedStore.trained

    def late(*arguments: Any) -> Any:
        assert may_end.wait(30)
        return trained(*arguments)

    def searched_after(own: _Partition) -> None:
        wait(own)
        index.search("a", keys[0], 1)  # starts a training that compaction does not wait for

    monkeypatch.setattr(CompressedStore, "trained", late)
    with monkeypatch.context() as patch:
        patch.setattr(_Partition, "_wait", searched_after)
        index.remove("a", range(1_100))
    assert partition._training is not None
    assert partition._training.is_alive()
    may_end.set()
    index.settle()
    assert isinstance(partition._store, FlatStore), "400 are left"
    assert len(index) == 400
    assert [index.search("a", keys[row], 1)[0][0] for row in range(1_100, 1_500, 50)] == list(range(1_100, 1_500, 50))


def test_a_training_that_is_about_to_start_can_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    index, rows, start = FaissRetriever(SIZE, exact_below=250), np.arange(300), threading.Thread.start
    index.add("a", rows, rows, clustered(300))
    waited = []

    def waited_for(thread: threading.Thread) -> None:
        if thread.name == "faiss-training":
            index._partitions["a"]._wait()  # as another thread may, at any time
            waited.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", waited_for)
    index.search("a", clustered(1)[0], 1)
    assert len(waited) == 1
    index.settle()
    assert isinstance(index._partitions["a"]._store, CompressedStore)


def test_a_training_that_fails_is_tried_again_later_not_at_each_search(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys, tried = clustered(3_000), []

    def fails(store: CompressedStore, size: int, read: object) -> None:
        tried.append(size)
        raise MemoryError("no room")

    index, rows = FaissRetriever(SIZE, exact_below=250), np.arange(3_000)
    with monkeypatch.context() as patch:
        patch.setattr(CompressedStore, "trained", fails)
        for part in np.array_split(rows, 12):
            index.add("a", part, part, keys[part])
            assert index.search("a", keys[part[0]], 1)[0][0] == part[0]
            index.settle()
        assert tried == [500]
        assert "no room" in caplog.text
        patch.setattr("agentcascade.retrievers.faiss_index.time.monotonic", lambda: float("inf"))
        index.settle()
        assert tried == [500, 3_000]
    index._partitions["a"]._not_before = 0.0
    index.settle()
    assert isinstance(index._partitions["a"]._store, CompressedStore)


def test_a_search_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, rows = clustered(300), np.arange(300)
    index = FaissRetriever(SIZE, exact_below=250)
    index.add("a", rows, rows, keys)

    def refuses(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    assert index.search("a", keys[7], 1)[0][0] == 7
    index.settle()
