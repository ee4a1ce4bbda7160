"""Lifetimes: what a cascade or a memory has opened is closed once, by `close`, at exit, or when nobody holds it.

A program that ends without `close` loses nothing: what is open is closed by `atexit`, within `EXIT_SECONDS`.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from agentcascade._util import forking, threads
from agentcascade._util.forking import on_fork
from agentcascade.errors import describe

if TYPE_CHECKING:
    from agentcascade.event_loop import LoopThread

log = logging.getLogger("agentcascade")

EXIT_SECONDS = 5.0
"""At the end of a program, for shadows under way and for records on their way; the journal keeps what is left."""


class _Held:
    """What is open. Nothing here may refer to the object whose lifetime it is."""

    def __init__(self) -> None:
        self.closers: list[Callable[[], object]] = []
        self.pending: list[set[asyncio.Task[Any]]] = []
        self.models: list[Any] = []
        self.loop: LoopThread | None = None
        self.closed = False
        self._begun, self._over, self._by = forking.rlock(), threading.Event(), 0
        on_fork(self.forked)

    def forked(self) -> None:
        """In a child process: tasks under way are the parent's, and so is whoever was closing it."""
        self._over = threading.Event()
        if self.closed:
            self._over.set()
        for tasks in self.pending:
            _inherited.extend(tasks)
            tasks.clear()

    def close(self, seconds: float | None = None) -> None:
        """The first caller closes; others wait until that is done, but for whoever it may be waiting for."""
        with self._begun:
            first, self.closed = not self.closed, True
            self._by = threading.get_ident() if first else self._by
        if not first:
            if threading.get_ident() != self._by and not _in_loop():
                self._over.wait(seconds)
            return
        try:
            self._close(seconds)
        finally:
            _open.pop(id(self), None)
            self._over.set()

    def _close(self, seconds: float | None) -> None:
        failures: list[BaseException] = []
        self.closers += [self._end_loop, lambda: wait_for(self.pending, seconds)]
        while self.closers:
            try:
                self.closers.pop()()
            except BaseException as error:  # the others are closed all the same
                log.warning("closing failed: %s", describe(error))
                failures.append(error)
        threads.dismiss()
        if failures:
            raise failures[0]

    def _end_loop(self) -> None:
        loop, self.loop = self.loop, None
        if loop is not None:
            try:
                loop.run(close_models(self.models), seconds=EXIT_SECONDS)
            finally:
                loop.close()


class Lifetime:
    """The life of what is opened, shared by copies: it ends at `close`, or with the last of them."""

    def __init__(self) -> None:
        self._held = held = _Held()
        _open[id(held)] = held
        weakref.finalize(self, _collected, held).atexit = False

    @property
    def closed(self) -> bool:
        return self._held.closed

    @property
    def loop(self) -> LoopThread | None:
        """The loop of the blocking face, where it was used."""
        return self._held.loop

    @loop.setter
    def loop(self, loop: LoopThread) -> None:
        self._held.loop = loop

    @property
    def models(self) -> list[Any]:
        """Models whose connections are closed with it."""
        return self._held.models

    def add(self, closer: Callable[[], object], *, last: bool = False) -> None:
        """Call `closer()` at the end: the last that was added first, or, `last`, after all else."""
        self._held.closers.insert(0 if last else len(self._held.closers), closer)

    def waits_for(self, pending: set[asyncio.Task[Any]]) -> None:
        """Tasks, as they will be by then, that are waited for before anything is closed."""
        self._held.pending.append(pending)

    def close(self, seconds: float | None = None) -> None:
        """Wait for tasks (up to `seconds`), then close all; a second call does nothing. Raises what failed first."""
        self._held.close(seconds)


_open: dict[int, _Held] = {}
_inherited: list[asyncio.Task[Any]] = []
"""Tasks of a parent's loops, which would complain when they are collected."""
_exiting = False


def exiting() -> bool:
    """Whether the program is ending."""
    return _exiting


def _collected(held: _Held) -> None:
    """The garbage collector may run anywhere, under any lock: what closes does so in a thread of its own."""
    if not held.closed:
        with suppress(Exception):
            _thread.start_new_thread(_close_quietly, (held,))


def _close_quietly(held: _Held) -> None:
    """In a raw thread, which may start a proper one."""
    threading.Thread(target=_closing, args=(held,), name="agentcascade-close", daemon=True).start()


def _closing(held: _Held) -> None:
    with suppress(Exception):
        held.close(EXIT_SECONDS)


@atexit.register
def _close_all() -> None:
    global _exiting
    _exiting = True
    for held in list(_open.values())[::-1]:
        with suppress(Exception):
            held.close(EXIT_SECONDS)


def _in_loop() -> bool:
    try:
        return bool(asyncio.get_running_loop())
    except RuntimeError:
        return False


def wait_for(pending: Sequence[Collection[asyncio.Task[Any]]], seconds: float | None = None) -> None:
    """Block until tasks of other threads' loops are done; those of loops that do not run cannot be waited for."""
    ends = None if seconds is None else time.monotonic() + seconds
    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    for tasks in pending:
        while running := [t for t in list(tasks) if not t.done() and t.get_loop().is_running()]:
            others = [t for t in running if t.get_loop() is not here]
            if not others:
                break
            left = None if ends is None else ends - time.monotonic()
            if left is not None and left <= 0:
                return
            waiting = asyncio.run_coroutine_threadsafe(asyncio.wait([others[0]]), others[0].get_loop())
            try:
                waiting.result(min(1.0, left) if left is not None else 1.0)
            except TimeoutError:
                waiting.cancel()


async def close_models(models: Sequence[Any]) -> None:
    """Close the connections that these models have in the running loop."""
    for model in models:
        close = getattr(model, "aclose", None)
        if close is not None:
            with suppress(Exception):
                await close()
