"""Cache of two generations: bounded by weight, what is used stays, threads do not mix items up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from agentcascade._util.recent_cache import RecentCache


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 8))
def test_the_last_items_are_held_and_never_more_than_two_generations(keys: list[int], size: int) -> None:
    cache: RecentCache[int, int] = RecentCache(size)
    used: list[int] = []
    for key in keys:
        if cache.get(key) is None:
            cache.put(key, key * key)
        used = [*(k for k in used if k != key), key]
        held = [k for k in range(31) if k in cache._young or k in cache._old]
        assert set(used[-size:]) <= set(held)
        assert len(held) <= 2 * size


def test_weights_count_and_what_is_read_again_outlives_the_turn() -> None:
    cache: RecentCache[str, str] = RecentCache(10, lambda key, value: len(value))
    cache.put("kept", "four")
    cache.put("lost", "five!")
    cache.put("third", "seven..")  # a turn
    assert cache.get("kept") == "four"  # moved on: 11 of 10
    cache.put("fourth", "sixsix")
    assert (cache.get("lost"), cache.get("kept"), cache.get("fourth")) == (None, "four", "sixsix")


def test_threads_get_what_belongs_to_their_keys() -> None:
    cache: RecentCache[int, int] = RecentCache(7)

    def work(start: int) -> None:
        for i in range(start, start + 5_000):
            key = i % 23
            value = cache.get(key)
            assert value in (None, key + 1)
            cache.put(key, key + 1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
