"""Work in the loop of a thread: what it gives, raises and sees, who cancels it, and what is left of it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import inspect
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from agentcascade.errors import CascadeClosed
from agentcascade.event_loop import LoopThread, _Call


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


class Refused(Exception):
    """One of our own, so that it can be seen to go."""


class Hanging:
    """Work that ends by being cancelled alone."""

    def __init__(self) -> None:
        self.begun, self.cancelled = threading.Event(), threading.Event()

    async def __call__(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def failing(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def test_what_it_gives(loop: LoopThread) -> None:
    asked: ContextVar[str] = ContextVar("asked")
    asked.set("here")

    async def where() -> tuple[str, str]:
        await asyncio.sleep(0)
        return asked.get(), threading.current_thread().name

    assert loop.run(where()) == ("here", "agentcascade-sync")


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("its own"), StopAsyncIteration()])
def test_errors_are_those_of_the_work(loop: LoopThread, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        loop.run(failing(error))
    assert raised.value is error


def test_work_that_cancels_itself(loop: LoopThread) -> None:
    with pytest.raises(concurrent.futures.CancelledError):
        loop.run(failing(asyncio.CancelledError()))


def test_nothing_holds_an_error_that_was_handled(loop: LoopThread) -> None:
    async def refuse() -> None:
        await asyncio.sleep(0)
        raise Refused

    def fail() -> weakref.ref[BaseException]:
        try:
            loop.run(refuse())
        except Refused as error:
            return weakref.ref(error)
        raise AssertionError("it raises")

    gc.disable()
    try:
        left = fail()
        loop.run(asyncio.sleep(0))  # its thread has let go of the work before
        assert left() is None
    finally:
        gc.enable()


def test_seconds_that_are_over_cancel_it(loop: LoopThread) -> None:
    work = Hanging()
    with pytest.raises(TimeoutError):
        loop.run(work(), seconds=0.01)
    assert work.cancelled.wait(60)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals go to threads on POSIX alone")
def test_ctrl_c_cancels_it(loop: LoopThread) -> None:
    work = Hanging()

    def interrupt() -> None:
        work.begun.wait(60)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        loop.run(work())
    assert work.cancelled.wait(60)


def test_closed_under_the_callers_feet(loop: LoopThread) -> None:
    work = Hanging()

    def close() -> None:
        work.begun.wait(60)
        loop.close()

    threading.Thread(target=close).start()
    with pytest.raises(CascadeClosed):
        loop.run(work())
    assert work.cancelled.is_set()
    never = work()
    with pytest.raises(CascadeClosed):
        loop.run(never)
    assert inspect.getcoroutinestate(never) == inspect.CORO_CLOSED, "it is not left behind unawaited"


def test_an_answer_that_comes_as_the_loop_ends_is_given(loop: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    wait, looks = _Call.wait, []

    def late(call: _Call[str], seconds: float) -> bool:
        looks.append(seconds)
        if len(looks) > 1:
            return wait(call, seconds)
        while call.task is None or not call.task.done():
            time.sleep(0.001)
        loop.close()
        return False

    monkeypatch.setattr(_Call, "wait", late)
    assert loop.run(asyncio.sleep(0, "answer")) == "answer"


def test_calls_of_many_threads_are_answered_each_to_its_own(loop: LoopThread) -> None:
    async def same(number: int) -> int:
        await asyncio.sleep(0.001 * (number % 3))
        return number

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: loop.run(same(i)), range(200))) == list(range(200))
