"""Daemon threads for blocking calls: one for each call that waits, and none that keeps a program from ending.

`asyncio.to_thread` has as many threads as the machine has cores, and a few; with a provider's or a database's calls in
all of them, nothing else goes on. Those threads are waited for at the end of the program, too.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from agentcascade._util.forking import on_fork

P = ParamSpec("P")
T = TypeVar("T")

IDLE_SECONDS = 5.0


class _Worker:
    """A thread that works off what is put into its inbox, and ends when there is nothing for a while."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[Callable[[], Callable[[], None]] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="agentcascade-call", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            try:
                work = self.inbox.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                if _idle.leave(self):
                    return
                continue  # it was chosen a moment ago
            if work is None:
                return
            tell = work()
            del work
            _idle.join(self)
            tell()
            del tell


class _Idle:
    """Threads without work, the last one first."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        on_fork(self.forked)

    def take(self) -> _Worker:
        try:
            return self._workers.pop()
        except IndexError:
            return _Worker()

    def join(self, worker: _Worker) -> None:
        self._workers.append(worker)

    def leave(self, worker: _Worker) -> bool:
        try:
            self._workers.remove(worker)
        except ValueError:
            return False
        return True

    def dismiss(self) -> None:
        while self._workers:
            with suppress(IndexError):
                worker = self._workers.pop()
                worker.inbox.put(None)
                if worker.thread is not threading.current_thread():
                    worker.thread.join(1.0)

    def forked(self) -> None:
        self._workers = []


_idle = _Idle()


async def apart(call: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> T:
    """`call(…)` in a thread of its own, in the present context; who is cancelled waits for it no longer."""
    loop, context = asyncio.get_running_loop(), copy_context()
    future: asyncio.Future[T] = loop.create_future()

    def work() -> Callable[[], None]:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = context.run(call, *arguments, **options)
        except StopIteration as error:
            failure = RuntimeError(f"a call raised StopIteration: {error}")
        except BaseException as error:
            failure = error

        def tell() -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(_settle, future, result, failure)

        return tell

    _idle.take().inbox.put(work)
    return await future


def dismiss() -> None:
    """End the threads that have nothing to do; new ones come as they are needed."""
    _idle.dismiss()


def _settle(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.cancelled():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
