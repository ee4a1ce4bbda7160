"""Where work is played: worker processes of this machine, or a Ray cluster. Whoever hands out work knows neither."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Protocol, TypeVar

J = TypeVar("J")
R = TypeVar("R")

LOCAL = "local"
"""In place of a cluster's address: start one on this machine, for this run."""


class WorkersDied(Exception):
    """A worker died at work. What it had returned before is good; `for_good`: others have tried its work and died."""

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


class Pool(Protocol):
    """Workers that are ready. Leaving the context with an error stops them at once, in the middle of their work."""

    shares_files: bool
    """Whether every worker is on this machine, so that it sees its files."""

    def map(self, function: Callable[[J], R], items: Iterable[J]) -> Iterator[R]:
        """`function` of each item, as results come in. Raises what `function` raised, or `WorkersDied`."""
        ...

    def __enter__(self) -> Pool: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_pool(workers: int, start: Callable[..., None], *arguments: Any, ray: str | None = None) -> Pool:
    """`workers` workers, on each of which ``start(*arguments)`` has run; all of it picklable.

    `ray` is the address of a cluster (``host:port``, ``ray://host:port``, ``auto``) or `LOCAL`. Raises `MissingExtra`
    and `BenchError`.
    """
    if ray is None:
        return ProcessPool(workers, start, *arguments)
    from agentcascade.bench.pools.ray import RayPool

    return RayPool(ray, workers, start, *arguments)


def check(ray: str | None) -> None:
    """Raises what `open_pool` would, as far as it can be known before there is work."""
    if ray is not None:
        from agentcascade.bench.pools import ray as ray_pool

        ray_pool.check(ray)


class ProcessPool:
    """Fresh processes of this machine."""

    shares_files = True

    def __init__(self, workers: int, start: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers = workers
        self._pool = ProcessPoolExecutor(workers, context, initializer=start, initargs=arguments)

    def map(self, function: Callable[[J], R], items: Iterable[J]) -> Iterator[R]:
        queue = iter(items)
        running: set[Future[R]] = set()
        try:
            while True:
                # A short queue, so that Ctrl-C does not wait for work nobody asked for.
                while len(running) < 2 * self._workers and (item := next(queue, None)) is not None:
                    running.add(self._pool.submit(function, item))
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BrokenProcessPool as error:
            raise WorkersDied(str(error)) from error

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)
