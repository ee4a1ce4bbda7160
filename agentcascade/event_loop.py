"""An event loop in a background thread, for programs without one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from agentcascade._util import forking
from agentcascade.errors import CascadeClosed

T = TypeVar("T")


CLOSED = "the cascade of this episode was closed: build another one"


CLOSE_SECONDS = 10.0


_inherited: list[asyncio.AbstractEventLoop] = []
"""A parent's loops: closed or collected in a child, they would change the parent's."""


class LoopThread:
    """An event loop in a daemon thread, in a child process another one; `close` stops both."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting, self._closed = forking.lock(), False
        forking.on_fork(self.forked)
        self._started()

    def run(self, work: Coroutine[Any, Any, T], *, seconds: float | None = None) -> T:
        """Wait for `work`; Ctrl-C cancels it. Raises `CascadeClosed` after `close`, `TimeoutError` after `seconds`."""
        try:
            loop, thread = self._started()
        except CascadeClosed:
            work.close()
            raise
        call = _Call(loop, work)
        ends = None if seconds is None else time.monotonic() + seconds
        try:
            call.begin()
            while not call.wait(1.0):
                if not thread.is_alive():  # closed at this very moment
                    if call.wait(0):
                        break
                    raise CascadeClosed(CLOSED)
                if ends is not None and time.monotonic() > ends:
                    raise TimeoutError
        except BaseException:
            call.cancel()
            raise
        assert call.task is not None
        if call.task.cancelled():
            if self._closed:  # under the caller's feet
                raise CascadeClosed(CLOSED)
            raise concurrent.futures.CancelledError
        try:
            return call.task.result()
        finally:
            del call  # it holds the error, whose traceback holds this frame

    def start(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Begin `work`, and do not wait for it. Raises `CascadeClosed` after `close`."""
        try:
            loop, _ = self._started()
        except CascadeClosed:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, loop)

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in the loop, soon. Raises `CascadeClosed` after `close`."""
        self._started()[0].call_soon_threadsafe(function)

    def close(self) -> None:
        """Cancel what is under way, then stop. What hangs is left behind after `CLOSE_SECONDS`."""
        with self._starting:
            self._closed = True
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None:
            return
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)

    def forked(self) -> None:
        """In a child process: the thread is the parent's, and so are the loop's descriptors, which must stay as is."""
        if self._loop is not None:
            _inherited.append(self._loop)
        self._loop = self._thread = None

    def _started(self) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        with self._starting:
            if self._closed:
                raise CascadeClosed(CLOSED)
            if self._loop is None or self._thread is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="agentcascade-sync", daemon=True)
                self._thread.start()
            return self._loop, self._thread


class _Call(Generic[T]):
    """Work in a loop of another thread, which says when it is done: half of what a future of `concurrent` takes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> None:
        self._loop, self._work, self._done = loop, work, threading.Lock()
        self._done.acquire()
        self.task: asyncio.Task[T] | None = None
        """There when it is done."""

    def begin(self) -> None:
        """Begin the work, soon. Raises `CascadeClosed` where the loop was closed."""
        try:
            self._loop.call_soon_threadsafe(self._begin)
        except RuntimeError:
            self._work.close()
            raise CascadeClosed(CLOSED) from None

    def wait(self, seconds: float) -> bool:
        """Whether the work is done, one way or another, within so many seconds."""
        return self._done.acquire(timeout=seconds)

    def cancel(self) -> None:
        """Cancel it, soon, whether or not it has begun."""
        with suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self._cancel)

    def _begin(self) -> None:
        self.task = self._loop.create_task(self._work)
        self.task.add_done_callback(lambda _: self._done.release())

    def _cancel(self) -> None:
        if self.task is None:
            self._work.close()
        else:
            self.task.cancel()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """All of a loop's life is in its own thread: whoever closes it may be in a running loop."""
    try:
        loop.run_forever()
        others = asyncio.all_tasks(loop)
        for task in others:
            task.cancel()
        if others:
            loop.run_until_complete(asyncio.gather(*others, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
