"""Stores of keys: what looking at bytes first leaves exact, and what it may leave out."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from faiss import IndexFlatIP
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.retrievers.faiss_index import FaissRetriever
from agentcascade.retrievers.inverted_file import FEW, InvertedFile, linear_map, nearest_lists
from agentcascade.retrievers.stores import CompressedStore, FlatStore

WIDTH = 64  # a width at which faiss rounds queries to whole numbers as well


@given(seed=st.integers(0, 1_000), spread=st.sampled_from([1e-5, 1e-3, 0.1, 3.0]), each=st.sampled_from([1, 5]))
@settings(max_examples=15, deadline=None)
def test_keys_that_their_bytes_do_not_tell_apart_are_ranked_exactly(seed: int, spread: float, each: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=WIDTH)
    keys = (base + spread * rng.normal(size=(1_200, WIDTH))).astype(np.float32)
    keys[700:] *= np.float32(1.4)  # what comes later is longer than anything before
    index, rows = FaissRetriever(WIDTH), np.arange(len(keys))
    for part in np.array_split(rows, 3):
        index.add("a", part, part // each, keys[part])
    for query in (base + rng.normal(size=(3, WIDTH))).astype(np.float32):
        scores = keys @ query
        best = np.sort(scores.reshape(-1, each).max(axis=1))[::-1][:6]
        assert [score for _, _, score in index.search("a", query, 6)] == pytest.approx(best.tolist(), rel=2e-6)


@given(seed=st.integers(0, 1_000), size=st.integers(0, 700), scale=st.sampled_from([1e-20, 0.01, 1.0, 1e10]))
@settings(max_examples=15, deadline=None)
def test_no_key_that_a_flat_store_leaves_out_exceeds_what_it_says_of_the_others(
    seed: int, size: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    keys = (scale * rng.standard_t(2, size=(size, WIDTH))).astype(np.float32)
    store, query = FlatStore(WIDTH), rng.normal(size=WIDTH).astype(np.float32)
    for part in np.array_split(keys, 4):
        store.add(part)
    for count in {1, min(size, 50), size} - {0}:
        if count > size:
            continue
        positions, scores, others = store.nearest(query, count)
        assert len(set(positions.tolist())) == count
        assert scores == pytest.approx((keys @ query)[positions], rel=1e-3, abs=1e-4 * scale)
        left = np.delete(keys @ query, positions)
        assert left.max(initial=-np.inf) <= others + 1e-5 * scale * WIDTH


@pytest.mark.parametrize("count", [1, 100, 192, 300])
def test_candidates_of_a_compressed_store_have_the_products_of_their_bytes(count: int) -> None:
    rng = np.random.default_rng(1)
    keys = rng.normal(size=(1_000, WIDTH)).astype(np.float32)
    store = CompressedStore(WIDTH, 0)
    store.add(keys)
    store.use(store.trained(len(keys), store.keys))
    for query in rng.normal(size=(3, WIDTH)).astype(np.float32):
        positions, scores, _ = store.nearest(query, count)
        assert len(positions) == count
        assert scores == pytest.approx(store.keys(positions) @ query, rel=1e-4, abs=1e-4)
    assert np.abs(store.keys(np.arange(1_000)) - keys).max() <= np.abs(keys).max() / 254 + 1e-6


def test_of_lists_that_grew_long_fewer_are_searched_and_as_much_is_found() -> None:
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(400, WIDTH)).astype(np.float32)
    keys = (centres[rng.integers(400, size=12_000)] + 0.3 * rng.normal(size=(12_000, WIDTH))).astype(np.float32)
    store, queries = CompressedStore(WIDTH, 0), keys[::400] + np.float32(0.1)
    store.add(keys[:2_400])
    store.use(store.trained(2_400, store.keys))
    assert store._file is not None
    searched = [store._file._index.nprobe]
    for part in np.array_split(keys[2_400:], 12):
        store.add(part)
        searched.append(store._file._index.nprobe)
    assert searched[0] == searched[9] > searched[10] == searched[-1], "beyond four times as many"
    found = 0
    for query in queries:
        positions, scores, _ = store.nearest(query, 96)
        best = set(np.argsort(-(keys @ query))[:6].tolist())
        found += len(best & set(positions[np.argsort(-scores)[:6]].tolist()))
    assert found / (6 * len(queries)) >= 0.95


@given(seed=st.integers(0, 1_000), lists=st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_a_few_keys_belong_into_the_lists_that_many_do(seed: int, lists: int) -> None:
    rng = np.random.default_rng(seed)
    centroids = rng.normal(size=(lists, WIDTH)).astype(np.float32)
    keys = rng.normal(size=(FEW + 1, WIDTH)).astype(np.float32)
    products, quantizer = linear_map(centroids), IndexFlatIP(WIDTH)
    quantizer.add(centroids)
    np.testing.assert_allclose(products.apply(keys), keys @ centroids.T, rtol=1e-3, atol=1e-3)
    many = nearest_lists(keys, quantizer, products)
    assert many.tolist() == (keys @ centroids.T).argmax(axis=1).tolist()
    assert nearest_lists(keys[:FEW], quantizer, products).tolist() == many[:FEW].tolist()


def test_a_sample_is_read_a_portion_at_a_time() -> None:
    rng, alive, most = np.random.default_rng(0), list[weakref.ref[np.ndarray]](), list[int]()

    def portions() -> Iterator[np.ndarray]:
        for _ in range(8):
            keys = rng.normal(size=(50, WIDTH)).astype(np.float32)
            alive.append(weakref.ref(keys))
            most.append(sum(one() is not None for one in alive))
            yield keys
            del keys

    InvertedFile(portions(), 400, WIDTH, 0)
    assert len(most) == 8
    assert max(most) <= 3, "the first, which its directions come from, the last, and the one that is made"
