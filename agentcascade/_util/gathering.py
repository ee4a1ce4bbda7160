"""Gathering of questions that share a call: those that come within a moment, of one event loop, are asked together.

Each asker waits for its own answer, and may go away: the others then bear its part of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

Q = TypeVar("Q")
A = TypeVar("A")

Gone: TypeAlias = Callable[[int], bool]
"""Whether nobody waits any more for the question of that index."""
AskShared: TypeAlias = Callable[[Sequence[Q], Gone], Awaitable[Sequence[A]]]
CANCEL_SECONDS = 5.0
"""For a call that nobody waits for any more, until its bill is known."""


class _Entry(NamedTuple, Generic[Q, A]):
    question: Q
    size: int
    answer: asyncio.Future[A]


class _Group(Generic[Q, A]):
    def __init__(self, ask: AskShared[Q, A]) -> None:
        self.ask = ask
        self.entries: list[_Entry[Q, A]] = []
        self.gone: set[asyncio.Future[A]] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    def is_gone(self, index: int) -> bool:
        return self.entries[index].answer in self.gone


class Gatherer(Generic[Q, A]):
    """Gathers questions into shared calls.

    Args:
        most: Questions of one call.
        size: The most that the sizes of a call's questions sum up to.
        seconds: For which the first question waits for others.
    """

    def __init__(self, most: int, size: int, seconds: float) -> None:
        self._most, self._size, self._seconds = most, size, seconds
        self._open: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Group[Q, A]]] = WeakKeyDictionary()

    async def ask(self, key: Hashable, question: Q, size: int, ask: AskShared[Q, A]) -> A:
        """The answer to a question, which is asked together with others of the same `key`.

        Args:
            key: What the questions of one call must have in common.
            question: What is asked.
            size: Of it.
            ask: Asks a call's questions, and gives their answers in order; that of the first question is called.

        Raises what `ask` raises.
        """
        loop = asyncio.get_running_loop()
        groups = self._open.setdefault(loop, {})
        group = groups.get(key)
        if group is not None and group.size + size > self._size:
            _send(groups, key, group)
            group = None
        if group is None:
            group = groups[key] = _Group(ask)
            group.timer = loop.call_later(self._seconds, _send, groups, key, group)
        entry = _Entry(question, size, loop.create_future())
        group.entries.append(entry)
        if len(group.entries) >= self._most:
            _send(groups, key, group)
        try:
            answer: A = await entry.answer
            return answer
        except asyncio.CancelledError:
            if group.task is None:
                group.entries.remove(entry)
            elif len(group.gone) < len(group.entries) - 1:
                group.gone.add(entry.answer)
            else:  # the last one that waits sees to the bill
                group.task.cancel()
                await asyncio.wait({group.task}, timeout=CANCEL_SECONDS)
            raise

    def flush(self) -> None:
        """Ask what waits, without waiting for more, in this loop and in others that run."""
        here = asyncio.get_running_loop()
        for loop in list(self._open):
            if loop is here:
                self._flush(loop)
            elif loop.is_running():
                loop.call_soon_threadsafe(self._flush, loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        groups = self._open.get(loop, {})
        for key, group in list(groups.items()):
            _send(groups, key, group)


def _send(groups: dict[Hashable, _Group[Q, A]], key: Hashable, group: _Group[Q, A]) -> None:
    """No more questions; what was gathered is asked."""
    if groups.get(key) is group:
        del groups[key]
    if group.timer is not None:
        group.timer.cancel()
    if group.entries:
        group.task = asyncio.get_running_loop().create_task(_answer(group))


async def _answer(group: _Group[Q, A]) -> None:
    try:
        answers = await group.ask([entry.question for entry in group.entries], group.is_gone)
    except Exception as error:
        for entry in group.entries:
            if not entry.answer.done():
                entry.answer.set_exception(error)
        return
    except BaseException:
        for entry in group.entries:
            entry.answer.cancel()
        raise
    for entry, answer in zip(group.entries, answers, strict=True):
        if not entry.answer.done():
            entry.answer.set_result(answer)
