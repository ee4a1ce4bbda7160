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
from typing import TYPE_CHECKING, Any, NamedTuple

from agentcascade._util import forking
from agentcascade.batches.types import BatchRequest, audit_job
from agentcascade.errors import BatchFailed, describe
from agentcascade.event_loop import LoopThread
from agentcascade.lifetime import close_models
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.protocols import ChatModel
from agentcascade.step.audit_together import AuditQuestion, groups_of, read_shared, shared_call
from agentcascade.types import Account, Completion, Message

if TYPE_CHECKING:
    from agentcascade.batches.run import Batches
    from agentcascade.batches.types import BatchAnswer
    from agentcascade.config.sections import AuditConfig

log = logging.getLogger("agentcascade.audit")

MOST_SECONDS = 2 * 24 * 3600.0
"""Until a round is given up: a batch has 24 hours, and those before it in the provider's queue have theirs."""
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
        read: Takes the teacher's answer, or why there is none; gives the loss, None where there is no answer.
        judge: Takes the loss, once all that was drawn before is judged.
    """

    question: AuditQuestion | None
    read: Callable[[Completion | Exception], Awaitable[float | None]]
    judge: Callable[[float], Awaitable[None]]


class _Round:
    def __init__(self, before: _Round | None) -> None:
        self.before = before
        self.entries: list[RoundEntry] = []
        self.full, self.over = asyncio.Event(), asyncio.Event()
        self.future: concurrent.futures.Future[None] | None = None

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
    """

    def __init__(self, batches: Batches, settings: AuditConfig, name: str, prompts: Prompts = DEFAULT) -> None:
        self._batches, self._settings, self._job, self._prompts = batches, settings, audit_job(name), prompts
        self._lock, self._closed = forking.lock(), False
        self._thread: LoopThread | None = None
        self._current: _Round | None = None
        self._rounds: list[_Round] = []
        self._models: dict[int, ChatModel] = {}
        forking.on_fork(self._forked)

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
        """Send what waits, and wait until all is answered and judged."""
        with self._lock:
            if self._current is not None:
                self._send(self._current)
            futures = [r.future for r in self._rounds if r.future is not None]
        await asyncio.gather(*(asyncio.shield(asyncio.wrap_future(f)) for f in futures), return_exceptions=True)

    def close(self) -> None:
        """Give up what waits and what is under way: it counts for nothing. `agentcascade batch wait` bills the latter.

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
        await close_models(list(self._models.values()))

    def _send(self, current: _Round) -> None:
        """No more entries; the lock is held."""
        assert self._thread is not None
        self._current = None
        self._thread.call(current.full.set)

    async def _lead(self, current: _Round) -> None:
        """One round, from its first entry to the last judgement."""
        losses: dict[int, float | None] = {}
        try:
            await self._gathered(current)
            answers = await self._ask([q for entry in current.entries if (q := entry.question) is not None])
            if current.before is not None:
                await current.before.over.wait()
            for index, answer in zip(current.asked, answers):
                losses[index] = None
                losses[index] = await _read(current.entries[index], _completion(answer))
            for index, entry in enumerate(current.entries):
                loss = losses.get(index, 0.0)
                if loss is not None:
                    await entry.judge(loss)
            await self._batches.take([answer for answer in answers if not isinstance(answer, Exception)])
        except BaseException as error:
            why = error if isinstance(error, Exception) else BatchFailed(CLOSED)
            for index in current.asked:
                if index not in losses:
                    await _read(current.entries[index], why)
            if not isinstance(error, Exception):
                raise
            log.warning("a round of audits is lost: %s", describe(error))
        finally:
            current.before = None
            current.over.set()
            with self._lock:
                self._rounds = [r for r in self._rounds if r is not current]

    async def _gathered(self, current: _Round) -> None:
        """Wait until the round is full, or its time is over: nothing is added to it from then on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.batch_seconds):
                await current.full.wait()
        with self._lock:
            if self._current is current:
                self._current = None

    async def _ask(self, questions: Sequence[AuditQuestion]) -> list[BatchAnswer | Exception]:
        """The answers, in the order of the questions; one batch for each teacher, namespace and set of budgets."""
        groups: dict[tuple[int, str, tuple[Account, ...]], list[int]] = {}
        for index, question in enumerate(questions):
            groups.setdefault((id(question.model), question.namespace, question.accounts), []).append(index)
            self._models[id(question.model)] = question.model
        answers: dict[int, BatchAnswer | Exception] = {}

        async def ask(indices: Sequence[int]) -> None:
            asked = [questions[i] for i in indices]
            answers.update(zip(indices, await self._ask_group(asked)))

        await asyncio.gather(*(ask(indices) for indices in groups.values()))
        return [answers[index] for index in range(len(questions))]

    async def _ask_group(self, questions: Sequence[AuditQuestion]) -> list[BatchAnswer | Exception]:
        """The answers to questions that are paid alike; what a shared request did not answer is sent again, alone."""
        groups = groups_of(questions, self._settings)
        alone = [group[0] for group in groups if len(group) == 1]
        answers: dict[int, BatchAnswer | Exception] = {}
        shared = [[questions[i] for i in group] for group in groups if len(group) > 1]
        calls = [shared_call(of_call, self._prompts) for of_call in shared]
        first = questions[0]
        requests = [(first, messages, _without_timeout(options)) for messages, options, _ in calls]
        asked = [group for group in groups if len(group) > 1]
        for group, of_call, call, answer in zip(asked, shared, calls, await self._send_all(requests)):
            parts: Sequence[Completion | None] = [None] * len(group)
            if not isinstance(answer, Exception) and answer.completion is not None:
                parts = read_shared(answer.completion, of_call, call[2])
            for index, part in zip(group, parts):
                if part is None:
                    alone.append(index)
                else:
                    assert not isinstance(answer, Exception)
                    answers[index] = answer._replace(completion=part)
        again = [(questions[i], questions[i].messages, questions[i].options) for i in alone]
        answers.update(zip(alone, await self._send_all(again)))
        return [answers[index] for index in range(len(questions))]

    async def _send_all(
        self, asked: Sequence[tuple[AuditQuestion, Sequence[Message], Mapping[str, Any]]]
    ) -> list[BatchAnswer | Exception]:
        requests: dict[int, BatchRequest] = {}
        answers: dict[int, BatchAnswer | Exception] = {}
        for index, (question, messages, options) in enumerate(asked):
            try:  # one that no budget can hold is no reason to lose the others
                self._batches.poller.door.plan(question.model, messages, options, question.accounts)
                requests[index] = BatchRequest(messages, options)
            except Exception as error:
                answers[index] = error
        try:
            async with asyncio.timeout(MOST_SECONDS):
                given = await self._complete(asked[0][0], list(requests.values())) if requests else []
            answers.update(zip(requests, given))
        except Exception as error:
            answers.update(dict.fromkeys(requests, error))
        return [answers[index] for index in range(len(asked))]

    async def _complete(self, first: AuditQuestion, requests: Sequence[BatchRequest]) -> list[BatchAnswer]:
        return await self._batches.complete_all(
            first.model,
            requests,
            job=self._job,
            role="teacher",
            purpose="audit",
            namespace=first.namespace,
            accounts=first.accounts,
        )

    def _forked(self) -> None:
        """In a child process: what waits, and what is under way, is the parent's."""
        self._current, self._rounds = None, []


def _without_timeout(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "timeout"}


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
