"""LRU cache: what is looked up together counts as used, in that order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentcascade._util.lru_cache import LRUCache

KEYS = st.integers(0, 6)


@given(st.lists(st.lists(KEYS, max_size=5) | KEYS, max_size=30), st.integers(1, 5))
def test_many_at_once_are_each_looked_up(work: list[list[int] | int], size: int) -> None:
    """A number is put, a list looked up."""
    at_once, each = LRUCache[int, str](size), LRUCache[int, str](size)
    for done in work:
        if isinstance(done, int):
            at_once.put(done, str(done))
            each.put(done, str(done))
        else:
            assert at_once.get_many(done) == [each.get(key) for key in done]
    assert [*at_once._items] == [*each._items]
