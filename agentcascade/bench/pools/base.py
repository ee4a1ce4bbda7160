"""Protocol of worker pools."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, TypeVar

J = TypeVar("J")
R = TypeVar("R")

LOCAL_CLUSTER = "local"
"""In place of a Ray cluster's address: start one on this machine for this run"""


class WorkersDied(Exception):
    """A worker died; results that came before are good. `for_good`: several workers died of the same item."""

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


class Pool(Protocol):
    """Pool of workers that are ready. Leaving the context with an error stops them at once."""

    shares_files: bool
    """Whether every worker is on this machine and sees its files"""

    def map(self, function: Callable[[J], R], items: Iterable[J]) -> Iterator[R]:
        """Yield `function` of each item as results come in. Raises what `function` raised, or `WorkersDied`."""
        ...

    def __enter__(self) -> Pool: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
