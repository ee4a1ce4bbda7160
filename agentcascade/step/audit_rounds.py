"""Rounds of audits that go by the provider's batch interface: gathered, sent together, judged in their order.

An audit of a step that the student took is answered hours later or not at all; of a step that the teacher took it
needs no answer. Were the latter judged at once, a process that ends before its batches do would count them alone, and
the marginal risk would look smaller than it is: all that was drawn waits for its round, and rounds for those before.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from agentcascade._util import forking
from agentcascade.batches.types import audit_job
from agentcascade.errors import BatchFailed, describe
from agentcascade.event_loop import LoopThread
from agentcascade.lifetime import close_models
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.step.audit_together import AuditQuestion
from agentcascade.step.kept_rounds import KeptRounds
from agentcascade.step.round_questions import MOST_SECONDS, RoundQuestions
from agentcascade.types import Completion

if TYPE_CHECKING:
    from agentcascade.batches.run import Batches
    from agentcascade.batches.types import BatchAnswer
    from agentcascade.config.sections import AuditConfig
    from agentcascade.storage.audit_rounds import DrawnAudit, StoredAudit, StoredRound

log = logging.getLogger("agentcascade.audit")

WATCH_SECONDS = 60.0
"""Between two looks for rounds that nobody holds; several of them fit into the time for which one is held."""
CLOSE_SECONDS = 5.0
CLOSED = "the cascade was closed before the batch of this audit had ended"
NEEDS_CONFIGURED = (
    "audit.batch needs the teacher of the configuration (teacher.name: openai/… or anthropic/…): for a model of your "
    "own, a wrapped client's or a caller's own key leave audit.batch out"
)


class RoundEntry(NamedTuple):
    """A step that was drawn for an audit.

    Args:
        question: None where nobody need be asked.
        drawn: What another process would need to judge it.
        read: Takes the teacher's answer, or why there is none; gives the loss, None where there is no answer.
        judge: Takes the loss, once all that was drawn before is judged.
    """

    question: AuditQuestion | None
    drawn: DrawnAudit
    read: Callable[[Completion | Exception], Awaitable[float | None]]
    judge: Callable[[float], Awaitable[None]]


class _Round:
    def __init__(self, before: _Round | None) -> None:
        self.before = before
        self.entries: list[RoundEntry] = []
        self.losses: dict[int, float | None] = {}
        self.full, self.over = asyncio.Event(), asyncio.Event()
        self.future: concurrent.futures.Future[None] | None = None
        self.kept = ""
        """Its id in the database, once it is there."""

    @property
    def asked(self) -> list[int]:
        """Indices of the entries with a question."""
        return [index for index, entry in enumerate(self.entries) if entry.question is not None]


class AuditRounds:
    """The rounds of one cascade and its twins, on a loop of their own: the agent's may end long before they do.

    Args:
        batches: Sends and bills them.
        settings: The configuration's ``audit``.
        name: Of the cascade, as their batches say.
        prompts: Templates of the question that audits share (``audit.together``).
        kept: Keeps them for a process that comes after this one.
    """

    def __init__(
        self,
        batches: Batches,
        settings: AuditConfig,
        name: str,
        prompts: Prompts = DEFAULT,
        kept: KeptRounds | None = None,
    ) -> None:
        self._batches, self._settings, self._kept = batches, settings, kept
        self._questions = RoundQuestions(batches, settings, audit_job(name), prompts, kept)
        self._restore: Callable[[StoredAudit], RoundEntry] | None = None
        self._lock, self._closed = forking.lock(), False
        self._thread: LoopThread | None = None
        self._current: _Round | None = None
        self._rounds: list[_Round] = []
        self._taking: asyncio.Lock | None = None
        self._taken: _Round | None = None
        """The latest round that another process left."""
        forking.on_fork(self._forked)

    def begin(self, restore: Callable[[StoredAudit], RoundEntry]) -> None:
        """Judge what processes that are gone have left, now and whenever there is more; the first `restore` is used."""
        with self._lock:
            if self._closed or self._kept is None or self._restore is not None:
                return
            self._restore = restore
            self._thread = self._thread or LoopThread()
            self._thread.start(self._watch())

    def add(self, entry: RoundEntry) -> None:
        """Let it wait for the next batch, unless `audit.batch_pending` wait or are under way."""
        settings = self._settings
        with self._lock:
            if self._closed:
                return
            if sum(len(r.entries) for r in self._rounds) >= settings.batch_pending:
                log.warning("an audit is left out: %d wait for batches (batch_pending)", settings.batch_pending)
                return
            self._thread = self._thread or LoopThread()
            current = self._current
            if current is None:
                current = self._current = _Round(self._rounds[-1] if self._rounds else None)
                current.future = self._thread.start(self._lead(current))
                self._rounds.append(current)
            current.entries.append(entry)
            if len(current.asked) >= settings.batch_size:
                self._send(current)

    async def wait(self) -> None:
        """Send what waits, and wait until all is answered and judged, what others left among it."""
        if self._thread is not None and self._restore is not None:
            await asyncio.wrap_future(self._thread.start(self._take_over()))
        with self._lock:
            if self._current is not None:
                self._send(self._current)
            futures = [r.future for r in self._rounds if r.future is not None]
        await asyncio.gather(*(asyncio.shield(asyncio.wrap_future(f)) for f in futures), return_exceptions=True)

    def close(self) -> None:
        """Give up what waits, which counts for nothing, and leave what was sent to the process that comes next.

        Nothing more is sent: nobody would be there for the answers.
        """
        with self._lock:
            first, self._closed, self._current = not self._closed, True, None
            thread = self._thread
        if not first or thread is None:
            return
        try:
            with suppress(Exception):
                thread.run(self._end(), seconds=CLOSE_SECONDS)
        finally:
            thread.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await close_models(self._questions.models)

    def _send(self, current: _Round) -> None:
        """No more entries; the lock is held."""
        assert self._thread is not None
        self._current = None
        self._thread.call(current.full.set)

    async def _lead(self, current: _Round) -> None:
        """One round, from its first entry to the last judgement."""
        try:
            await self._gathered(current)
            if self._kept is not None:
                current.kept = await self._kept.put([entry.drawn for entry in current.entries])
            questions = {i: q for i, entry in enumerate(current.entries) if (q := entry.question) is not None}
            answers = await self._questions.ask(questions, current.kept)
            given = {index: _completion(answer) for index, answer in zip(current.asked, answers)}
            await self._judge(current, given, [answer for answer in answers if not isinstance(answer, Exception)])
        except BaseException as error:
            if current.kept and self._kept is not None:
                log.info("a round of audits is left to the process that comes next (%s)", describe(error))
                await self._kept.leave(current.kept)
            else:
                why = error if isinstance(error, Exception) else BatchFailed(CLOSED)
                for index in current.asked:
                    if index not in current.losses:
                        await _read(current.entries[index], why)
                if isinstance(error, Exception):
                    log.warning("a round of audits is lost: %s", describe(error))
            if not isinstance(error, Exception):
                raise
        finally:
            current.before = None
            current.over.set()
            with self._lock:
                self._rounds = [r for r in self._rounds if r is not current]

    async def _judge(
        self,
        current: _Round,
        given: Mapping[int, Completion | Exception],
        answers: Sequence[BatchAnswer],
        first: int = 0,
    ) -> None:
        """Judge the entries from the `first` on, in their order, by the answers at their indices."""
        if current.before is not None:
            await current.before.over.wait()
        for index, answer in given.items():
            current.losses[index] = None
            current.losses[index] = await _read(current.entries[index], answer)
        for index in range(first, len(current.entries)):
            if self._kept is not None and not await self._kept.is_ours(current.kept, index):
                log.warning("a round of audits was taken over by another process, which judges the rest of it")
                return
            loss = current.losses.get(index, 0.0)
            if loss is not None:
                await current.entries[index].judge(loss)
        await self._batches.take(answers)
        if self._kept is not None:
            await self._kept.end(current.kept)

    async def _watch(self) -> None:
        """Hold what is led here, and take over what is nobody's, as long as the cascade is open."""
        assert self._kept is not None
        while True:
            try:
                await self._kept.hold()
                await self._take_over()
            except Exception as error:
                log.warning("audits that others left cannot be looked for: %s", describe(error))
            await asyncio.sleep(WATCH_SECONDS)

    async def _take_over(self) -> None:
        """Begin to lead the rounds that nobody holds, one after the other."""
        assert self._kept is not None
        self._taking = self._taking or asyncio.Lock()
        async with self._taking:
            for stored in await self._kept.take_over():
                assert self._restore is not None
                assert self._thread is not None
                taken = _Round(self._taken)
                taken.kept, taken.entries = stored.id, [self._restore(audit) for audit in stored.audits]
                with self._lock:
                    taken.future = self._thread.start(self._lead_stored(taken, stored))
                    self._rounds.insert(0, taken)
                self._taken = taken

    async def _lead_stored(self, taken: _Round, stored: StoredRound) -> None:
        """A round that another process drew and sent."""
        assert self._kept is not None
        try:
            given, answers = await self._kept.answers(stored, self._batches, MOST_SECONDS)
            await self._judge(taken, given, answers, stored.judged)
        except BaseException as error:
            await self._kept.leave(taken.kept)
            if not isinstance(error, Exception):
                raise
            log.warning("a round of audits that another process left is not judged yet: %s", describe(error))
        finally:
            taken.before = None
            taken.over.set()
            with self._lock:
                self._rounds = [r for r in self._rounds if r is not taken]

    async def _gathered(self, current: _Round) -> None:
        """Wait until the round is full, or its time is over: nothing is added to it from then on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.batch_seconds):
                await current.full.wait()
        with self._lock:
            if self._current is current:
                self._current = None

    def _forked(self) -> None:
        """In a child process: what waits, and what is under way, is the parent's."""
        self._current, self._rounds = None, []
        self._restore = self._taking = self._taken = None
        if self._kept is not None:
            self._kept.forked()


async def _read(entry: RoundEntry, answer: Completion | Exception) -> float | None:
    """The loss; None where what is done with the answer fails."""
    try:
        return await entry.read(answer)
    except Exception as error:
        log.warning("an audit is lost: %s", describe(error))
        return None


def _completion(answer: BatchAnswer | Exception) -> Completion | Exception:
    if isinstance(answer, Exception):
        return answer
    return answer.completion or BatchFailed(answer.error)
