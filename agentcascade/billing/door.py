"""The one door to every chat model: reserved in its budgets, watched, bounded in time, billed, settled.

Nothing else in the product calls `ChatModel.complete` or `.stream` (`tests/unit/test_door.py` looks). What a call did
cost is on the bill that it is made for, also when it failed, was cancelled or came too late; and in the budgets, to
the cent where usage is reported, else no less than what was received and what may have been generated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from agentcascade.billing import bill as billing
from agentcascade.billing import surcharges
from agentcascade.billing.worst_case import Asked
from agentcascade.errors import BudgetExceeded, EmptyCompletion, StorageError, bill_of
from agentcascade.messages import clean_completion
from agentcascade.protocols import Budgets, ChatModel, Observer, StreamingModel, TokenCounter
from agentcascade.types import Account, Call, Completion, Decision, Delta, Message, Mode, Purpose, Role, Situation

if TYPE_CHECKING:
    from agentcascade.config.sections import BudgetsConfig

BUDGET_SECONDS = 5.0
"""For the database that keeps the budgets; after that it counts as unavailable."""
LINGER_SECONDS = 10.0
"""How long the answer to a call within a budget is waited for when its caller is gone: its usage is the true bill."""
SLACK_SECONDS = 60.0
"""Beyond a call's deadline, before its reservation counts as that of a process that died."""
SECONDS = 60.0

_background: set[asyncio.Future[Any]] = set()
"""Held here, since an event loop does not hold what nobody waits for."""


class Bill(Protocol):
    """What the calls are made for: a step's record, or a `Tab`."""

    def spent_by(self, role: Role, purpose: Purpose, completion: Completion | None) -> None: ...

    def failed(self, what: str, error: BaseException) -> None: ...

    def model_time(self) -> AbstractContextManager[None]: ...


class Tab:
    """The bill of calls that are no part of a step."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.failures: list[BaseException] = []

    def spent_by(self, role: Role, purpose: Purpose, completion: Completion | None) -> None:
        if completion is not None:
            self.calls.append(Call.of(role, purpose, completion))

    def failed(self, what: str, error: BaseException) -> None:
        self.failures.append(error)

    def model_time(self) -> AbstractContextManager[None]:
        return nullcontext()


class Door:
    """Calls models. Without `budgets` nothing is reserved; all else is the same."""

    def __init__(
        self,
        *,
        budgets: Budgets | None = None,
        observer: Observer | None = None,
        count: TokenCounter | None = None,
        settings: BudgetsConfig | None = None,
    ) -> None:
        self._budgets, self._observer = budgets, observer or NullObserver()
        self._settings, self._counter = settings, count

    @property
    def _count(self) -> TokenCounter:
        if self._counter is None:
            from agentcascade.models.tokens import token_counter

            self._counter = token_counter()
        return self._counter

    async def call(
        self,
        model: ChatModel,
        messages: Sequence[Message],
        options: Mapping[str, Any],
        *,
        role: Role,
        purpose: Purpose,
        bill: Bill,
        accounts: Sequence[Account] = (),
        seconds: float | None = None,
        on_delta: Callable[[Delta], None] | None = None,
    ) -> Completion:
        """One call of `model` with `options` (`n`, `tools`, `temperature`, …), streamed to `on_delta` where it can be.

        It ends within `seconds` (default: `options`' `timeout`, else a minute), and must fit into `accounts`.
        Raises `BudgetExceeded`, `UnknownPrice`, `InvalidRequest` for what a budget cannot bound, `TimeoutError`, and
        what the model raises, which then carries what it cost (`errors.bill_of`).
        """
        n = int(options.get("n") or 1)
        limit = seconds if seconds is not None else float(options.get("timeout") or SECONDS)
        settings = self._settings
        output = settings.output_tokens if settings is not None else None
        asked = Asked(model, messages, options, n, self._count, output)
        paying: _Paying | None = None
        if accounts and self._budgets is not None:
            surcharges.check(asked.requested, messages)
            options = {**options, **asked.cap}
            paying = _Paying(self._budgets, accounts, bill, settings is None or settings.when_unavailable == "refuse")
            await paying.reserve(asked.worst(), limit)
        stream = on_delta is not None and n == 1 and isinstance(model, StreamingModel)
        watched = {"n": n, "temperature": options.get("temperature"), "stream": on_delta is not None}
        deltas: list[Delta] = []
        cost: Decimal | None = None
        try:
            with bill.model_time(), self._observer.call(role, purpose, model.name, **watched) as seen:
                try:
                    if stream:
                        assert isinstance(model, StreamingModel)
                        assert on_delta is not None
                        show = _noting(deltas, on_delta)
                        own = {k: v for k, v in options.items() if k != "n"}
                        async with asyncio.timeout(limit):
                            completion = await model.stream(messages, show, **own)
                    else:
                        completion = await _within(limit, model.complete(messages, **options), paying, asked)
                    completion = clean_completion(billing.billed(completion, asked))
                except BaseException as error:
                    if paying is not None and isinstance(error, GeneratorExit):
                        paying.abandoned = True
                    spent = _spent(error, asked, deltas)
                    if spent is not None:
                        cost = spent.dollars
                        bill.spent_by(role, purpose, spent)
                        with suppress(Exception):
                            error.completion = spent  # type: ignore[attr-defined]
                    raise
                seen(completion)
            cost = completion.dollars
            bill.spent_by(role, purpose, completion)
        finally:
            if paying is not None:
                await paying.settle(cost or Decimal(0))
        return completion


class _Paying:
    """The money of one call: reserved, then settled, whatever happens in between."""

    def __init__(self, budgets: Budgets, accounts: Sequence[Account], bill: Bill, strict: bool) -> None:
        self._budgets, self._accounts, self._bill, self._strict = budgets, accounts, bill, strict
        self._reservation: str | None = None
        self.handed_on = False
        """Somebody else settles it: the call goes on behind its caller."""
        self.abandoned = False
        """Nobody waits any more, not even an event loop."""

    async def reserve(self, most: Decimal, seconds: float) -> None:
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                self._reservation = await self._budgets.reserve(self._accounts, most, seconds + SLACK_SECONDS)
        except BudgetExceeded:
            raise
        except Exception as error:
            if self._strict:
                if isinstance(error, TimeoutError):
                    raise StorageError(f"the budgets were not read within {BUDGET_SECONDS:g} seconds") from error
                raise
            self._bill.failed("budget", error)

    def enter(self, dollars: Decimal) -> Awaitable[None]:
        """Book, now and for good; the result says when it is done."""
        if self._reservation is not None:
            return self._budgets.settle(self._reservation, dollars)
        return self._budgets.book(self._accounts, dollars)

    async def settle(self, dollars: Decimal) -> None:
        """The answer does not wait for a database that hangs: then it is booked behind it."""
        if self.handed_on:
            return
        if self.abandoned:
            with suppress(RuntimeError):
                self.enter(dollars)
            return
        booking = _kept(asyncio.ensure_future(self.enter(dollars)))
        if self._reservation is None:
            return  # the database did not answer before: it is not waited for again
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                await asyncio.shield(booking)
        except Exception as error:
            self._bill.failed("budget", error)


async def _within(limit: float, work: Awaitable[Completion], paying: _Paying | None, asked: Asked) -> Completion:
    """What `work` gives within `limit` seconds. Within a budget it goes on for a while when its caller is gone."""
    if paying is None:
        async with asyncio.timeout(limit):
            return await work
    task = asyncio.ensure_future(work)
    try:
        async with asyncio.timeout(limit):
            return await asyncio.shield(task)
    except asyncio.CancelledError as error:
        if not task.done():
            _linger(task, paying, asked)
            error.completion = billing.lost(asked)  # type: ignore[attr-defined]
        raise
    except TimeoutError as error:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)
            error.completion = _outcome(task, asked)  # type: ignore[attr-defined]
        raise


def _linger(task: asyncio.Future[Completion], paying: _Paying, asked: Asked) -> None:
    """Settle a call whose caller is gone: by its answer, if that comes soon, else by the worst that may come of it.

    By a callback, not by a task: one that is cancelled before it began would settle nothing.
    """
    paying.handed_on = True
    _background.add(task)
    giving_up = asyncio.get_running_loop().call_later(LINGER_SECONDS, task.cancel)

    def over(_: object) -> None:
        giving_up.cancel()
        completion = _outcome(task, asked)
        _kept(asyncio.ensure_future(paying.enter(completion.dollars or Decimal(0) if completion else Decimal(0))))
        _background.discard(task)

    task.add_done_callback(over)


def _outcome(task: asyncio.Future[Completion], asked: Asked) -> Completion | None:
    """What the call in `task` did cost."""
    if not task.done():
        return billing.lost(asked)
    try:
        return billing.billed(task.result(), asked)
    except BaseException as error:
        return _spent(error, asked, ())


def _spent(error: BaseException, asked: Asked, deltas: Sequence[Delta]) -> Completion | None:
    """What a call that failed has cost: as its adapter says, else as far as it can be told from here."""
    carried = bill_of(error)
    if carried is not None:
        return billing.billed(carried, asked)
    if isinstance(error, EmptyCompletion):
        return None
    if deltas:
        return billing.heard(asked, deltas)
    if isinstance(error, GeneratorExit):
        return billing.lost(asked)
    if _doubtful(error) and not getattr(asked.model, "bills_failures", False):
        return billing.lost(asked)
    return None


def _doubtful(error: BaseException) -> bool:
    """Whether an answer may have been under way, and billed, when this happened."""
    if not isinstance(error, Exception) or isinstance(error, (TimeoutError, ConnectionError)):
        return not isinstance(error, ConnectionRefusedError)
    kind = type(error).__name__
    return getattr(error, "status_code", None) is None and ("Timeout" in kind or "ConnectionError" in kind)


def _noting(deltas: list[Delta], on_delta: Callable[[Delta], None]) -> Callable[[Delta], None]:
    def show(delta: Delta) -> None:
        deltas.append(delta)
        on_delta(delta)

    return show


def _kept(work: asyncio.Future[Any]) -> asyncio.Future[Any]:
    _background.add(work)
    work.add_done_callback(_over)
    return work


def _over(work: asyncio.Future[Any]) -> None:
    _background.discard(work)
    if not work.cancelled():
        work.exception()  # it is recorded where somebody still waits for it


class NullObserver:
    """Watches nothing."""

    def step(self, situation: Situation, mode: Mode) -> AbstractContextManager[Callable[[Decision], None]]:
        return nullcontext(_ignore)

    def call(
        self, role: Role, purpose: Purpose, model: str, **request: Any
    ) -> AbstractContextManager[Callable[[Completion], None]]:
        return nullcontext(_ignore)

    def audited(self, cascade: str, loss: float, evidence: float | None, alarmed: bool) -> None:
        pass


def _ignore(_: object) -> None:
    pass
