"""Results of pure functions of a list's items, kept while the list grows: a conversation's next step costs what is new.

A conversation is sent whole at every step, so whatever is asked of each of its messages (tokens, fingerprints, …) was
asked of nearly all of them one step before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import compress, count, islice
from operator import is_not
from typing import Any, Generic, TypeVar

R = TypeVar("R")
T = TypeVar("T")


class ItemResults(Generic[T]):
    """What functions gave for the items of one list. Thread-safe; no list that is asked of may change meanwhile.

    Args:
        items: The list; empty: nothing is known, and `of` is `map`.
        kept: Results by function and arguments, of some of the first items.
    """

    def __init__(self, items: Sequence[T] = (), kept: Mapping[Hashable, Sequence[Any]] | None = None) -> None:
        self._items = items
        self._kept: dict[Hashable, Sequence[Any]] = dict(kept or {})
        self._compared: tuple[Sequence[T], list[int]] = items, []
        """The list that was asked of last, and the places where it has other objects."""

    def followed_by(self, items: Sequence[T], same: int) -> ItemResults[T]:
        """Those of another list, whose first `same` items are equal to these."""
        return ItemResults(items, {key: results[:same] for key, results in self._kept.items()})

    def of(self, function: Callable[..., R], items: Sequence[T], *given: Any) -> Sequence[R]:
        """``[function(item, *given) for item in items]``; not called for items that stand in the list at their place.

        Args:
            function: Gives the same for equal items.
            items: The list, or another that has most of its objects at the same places.
            given: Further arguments, hashable.
        """
        key = function, *given
        kept = self._kept.get(key, ())
        if len(kept) < len(self._items):
            kept = [*kept, *[function(item, *given) for item in islice(self._items, len(kept), None)]]
            self._kept[key] = kept
        if items is self._items:
            return kept
        results = list(kept[: len(items)])
        for index in self._places_of_others(items):
            results[index] = function(items[index], *given)
        results += [function(item, *given) for item in items[len(kept) :]]
        return results

    def _places_of_others(self, items: Sequence[T]) -> list[int]:
        """Where the list has other objects than this one's: several functions are asked of the same prompt."""
        compared, places = self._compared
        if compared is not items and self._items:
            places = list(compress(count(), map(is_not, self._items, items)))
            self._compared = items, places
        return places
