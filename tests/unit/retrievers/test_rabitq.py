"""Faiss above the size at which its inverted file holds a bit for each component: over the border and back."""

from __future__ import annotations

import threading
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agentcascade.retrievers.faiss_index import FaissRetriever
from agentcascade.retrievers.inverted_file import InvertedFile
from agentcascade.retrievers.rabitq import RaBitQFile, RandomRotation
from agentcascade.retrievers.stores import CompressedStore

Vectors: TypeAlias = NDArray[np.float32]

PER_GROUP = 8
NEVER = 10**9


def like_steps(
    count: int, size: int = 96, weights: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3), seed: int = 0
) -> Vectors:
    """Steps of like episodes: they differ in hundreds of directions, by little, all at a narrow angle to one vector."""
    rng = np.random.default_rng(seed)
    parts = []
    for weight in weights:
        centres = np.random.default_rng(9).normal(size=(4, size)) + 1.5 * np.random.default_rng(8).normal(size=size)
        part = centres[np.arange(count) % 4] + 0.5 * rng.normal(size=(count, size))
        parts.append(part * np.sqrt(weight) / np.linalg.norm(part, axis=1, keepdims=True))
    return np.concatenate(parts, axis=1).astype(np.float32)


def add(index: FaissRetriever, keys: Vectors, start: int, end: int, batch: int = 500) -> None:
    """Add rows from `start` to `end`; row i is of group i // PER_GROUP."""
    for first in range(start, end, batch):
        rows = np.arange(first, min(first + batch, end))
        index.add("a", rows, rows // PER_GROUP, keys[rows])
        index.settle()


def kind_of_file(index: FaissRetriever) -> type:
    return type(index._partitions["a"]._store._file)  # type: ignore[union-attr]


def found_of_stored(index: FaissRetriever, queries: Vectors, gone: frozenset[int] = frozenset()) -> float:
    """Recall@6 against the keys as they are held; no group in `gone` may be found."""
    assert not gone & {group for query in queries for _, group, _ in index.search("a", query, 6)}
    return index.recall("a", queries)


@given(dimension=st.integers(1, 1_300), seed=st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_rotation_keeps_inner_products(dimension: int, seed: int) -> None:
    keys = np.random.default_rng(seed).normal(size=(5, dimension)).astype(np.float32)
    rotated = RandomRotation(dimension, seed).rotated(keys)
    assert rotated.shape[1] >= max(dimension, 1_024)
    np.testing.assert_allclose(rotated @ rotated.T, keys @ keys.T, rtol=1e-3, atol=1e-3 * dimension**0.5)


def test_up_to_the_border_hits_are_the_same_to_the_last_bit() -> None:
    keys, queries = like_steps(3_000), like_steps(60, seed=1)
    bordered = FaissRetriever(keys.shape[1], exact_below=500, rabitq_above=2_500)
    without = FaissRetriever(keys.shape[1], exact_below=500, rabitq_above=NEVER)
    for index in (bordered, without):
        add(index, keys, 0, 2_500)
    assert [bordered.search("a", query, 6) for query in queries] == [without.search("a", query, 6) for query in queries]
    assert kind_of_file(bordered) is InvertedFile
    add(bordered, keys, 2_500, 2_501)
    assert kind_of_file(bordered) is RaBitQFile


@pytest.mark.parametrize("weights", [(1 / 3, 1 / 3, 1 / 3), (0.1, 0.1, 0.8)])
def test_beyond_the_border_more_is_found_among_hundreds_of_like_steps(weights: tuple[float, ...]) -> None:
    keys, queries = like_steps(4_400, 256, weights), like_steps(60, 256, weights, seed=1)
    index = FaissRetriever(keys.shape[1], exact_below=1_000, rabitq_above=4_000)
    add(index, keys, 0, len(keys), batch=1_100)
    assert found_of_stored(index, queries) >= 0.97


def test_keys_added_and_searched_while_the_border_is_crossed(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, queries = like_steps(6_000), like_steps(40, seed=1)
    index = FaissRetriever(keys.shape[1], exact_below=500, rabitq_above=2_000)
    add(index, keys, 0, 2_000)
    trained, training, may_end = CompressedStore.trained, threading.Event(), threading.Event()

    def late(*arguments: Any) -> Any:
        file = trained(*arguments)
        training.set()
        assert may_end.wait(60)
        return file

    monkeypatch.setattr(CompressedStore, "trained", late)
    index.add("a", np.arange(2_000, 2_008), np.full(8, 250), keys[2_000:2_008])
    index.search("a", keys[0], 1)  # starts what is due
    assert training.wait(60)
    for first in range(2_008, 6_000, 499):  # 4,000 meanwhile, and trajectories removed that are in the file to come
        rows = np.arange(first, min(first + 499, 6_000))
        index.add("a", rows, rows // PER_GROUP, keys[rows])
        assert kind_of_file(index) is InvertedFile
        assert [row for row, _, _ in index.search("a", keys[first], 1)] == [first]
    gone = frozenset(range(20))
    index.remove("a", gone)
    may_end.set()
    index.settle()
    assert kind_of_file(index) is RaBitQFile
    assert index._partitions["a"]._store.outgrown_at == 4 * 2_008, "what came meanwhile counts as growth"  # type: ignore[union-attr]
    assert len(index) == 6_000 - 20 * PER_GROUP
    assert found_of_stored(index, queries, gone) >= 0.97
    hits = [index.search("a", keys[row], 1)[0] for row in range(200, 6_000, 100)]
    assert [row for row, _, _ in hits] == list(range(200, 6_000, 100))
    assert all(abs(score - 1) < 0.01 for _, _, score in hits)


def test_removals_take_a_bank_back_below_the_border_and_it_may_grow_again() -> None:
    keys, queries = like_steps(6_000), like_steps(30, seed=1)
    index = FaissRetriever(keys.shape[1], exact_below=500, rabitq_above=3_000)
    add(index, keys, 0, 4_400, batch=1_100)
    gone = frozenset(range(100))
    index.remove("a", gone)  # hidden only
    assert (kind_of_file(index), len(index)) == (RaBitQFile, 3_600)
    assert found_of_stored(index, queries, gone) >= 0.97
    gone |= frozenset(range(100, 160))
    index.remove("a", range(100, 160))  # dropped for good; still above
    assert (kind_of_file(index), len(index)) == (RaBitQFile, 3_120)
    assert found_of_stored(index, queries, gone) >= 0.97
    gone |= frozenset(range(160, 330))
    index.remove("a", range(160, 330))
    assert (kind_of_file(index), len(index)) == (InvertedFile, 1_760)
    assert found_of_stored(index, queries, gone) >= 0.8
    add(index, keys, 4_400, 6_000)
    assert (kind_of_file(index), len(index)) == (RaBitQFile, 3_360)
    assert found_of_stored(index, queries, gone) >= 0.97


def test_a_large_bank_gives_every_group_once_and_outgrows_its_file() -> None:
    keys = like_steps(5_000, 8)
    index = FaissRetriever(keys.shape[1], exact_below=300, rabitq_above=600)
    add(index, keys, 0, len(keys))
    assert index._partitions["a"]._store._file.size == 4_500, "the first batch over four times 1,000"  # type: ignore[union-attr]
    assert sorted(group for _, group, _ in index.search("a", keys[0], 10_000)) == list(range(625))
    again = FaissRetriever(keys.shape[1], exact_below=300, rabitq_above=600)
    add(again, keys, 0, len(keys))
    assert all(index.search("a", key, 3) == again.search("a", key, 3) for key in keys[:100])
