"""Worker processes of this machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any

from agentcascade.bench.pools.base import J, R, WorkersDied


def _failed(future: Future[Any]) -> bool:
    return future.cancelled() or future.exception() is not None


class ProcessPool:
    """Pool of spawned processes on this machine."""

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
                for future in sorted(finished, key=_failed):  # what came is not lost by what failed meanwhile
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
