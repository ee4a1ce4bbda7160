"""Results of items: those of the function, whatever became of the list; it is not called again for what stayed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentcascade._util.item_results import ItemResults

LISTS = st.lists(st.lists(st.integers(0, 3), max_size=2), max_size=6)


def scaled(item: list[int], factor: int) -> int:
    return factor * sum(item)


@given(st.lists(st.tuples(st.integers(0, 6), LISTS, st.integers(0, 6), LISTS), min_size=1, max_size=5))
def test_results_are_those_of_the_function(calls: list[tuple[int, list[list[int]], int, list[list[int]]]]) -> None:
    items: list[list[int]] = []
    known: ItemResults[list[int]] = ItemResults()
    for keep, new, place, others in calls:
        same = min(keep, len(items))
        items = [*[list(item) for item in items[:same]], *new]  # equal to what was there, and other objects
        known = known.followed_by(items, same)
        edited = [*items[:place], *others, *items[place + 1 :]]  # as additions to a prompt are
        for asked in (edited, items, items[:place], edited):
            for factor in (1, 2):
                assert list(known.of(scaled, asked, factor)) == [scaled(item, factor) for item in asked]
                assert list(known.of(len, asked)) == [len(item) for item in asked]


def test_what_was_asked_of_an_item_is_not_asked_again() -> None:
    asked: list[str] = []

    def length(text: str) -> int:
        asked.append(text)
        return len(text)

    known: ItemResults[str] = ItemResults()
    for count in range(1, 5):
        texts = [f"{i} is a text" for i in range(count)]
        known = known.followed_by(texts, count - 1)
        assert list(known.of(length, texts)) == list(known.of(length, [*texts])) == [len(text) for text in texts]
    assert asked == texts
    known.of(length, ["another", *texts[1:]])
    assert asked == [*texts, "another"]
