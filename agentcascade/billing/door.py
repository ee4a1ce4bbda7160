"""The one door to every chat model: reserved in its budgets, watched, bounded in time, billed, settled.

Nothing else in the product calls `ChatModel.complete` or `.stream` (`tests/unit/billing/test_door.py` looks). What a
call did cost is on the bill that it is made for, also when it failed, was cancelled or came too late; and in the
budgets, to the cent where usage is reported, else no less than what was received and what may have been generated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from agentcascade._util.error_secrets import remove_secrets
from agentcascade._util.item_results import ItemResults
from agentcascade.billing import surcharges
from agentcascade.billing.bill import bill_of_deltas, bill_of_lost, bookable
from agentcascade.billing.reservation import Reservation, background, forget_ended_loops, keep_until_done
from agentcascade.billing.shares import Share, SharedReservation
from agentcascade.billing.tab import Bill as Bill
from agentcascade.billing.tab import Tab as Tab
from agentcascade.billing.worst_case import PlannedCall
from agentcascade.errors import EmptyCompletion, bill_of
from agentcascade.messages import clean_completion, encodable_messages, encodable_options
from agentcascade.protocols import Budgets, ChatModel, Observer, TokenCounter, can_stream
from agentcascade.types import (
    Account,
    CacheUse,
    Completion,
    Decision,
    Delta,
    Message,
    Mode,
    Purpose,
    Role,
    Situation,
)

if TYPE_CHECKING:
    from agentcascade.billing.response_cache import ResponseCache
    from agentcascade.config.sections import BudgetsConfig

LINGER_SECONDS = 10.0
"""How long the answer to a call within a budget is waited for when its caller is gone: its usage is the true bill."""
SECONDS = 60.0
"""Of a call that says nothing else."""


class Door:
    """Calls models, within budgets where there are any.

    Args:
        budgets: Where the calls' worst cases are reserved; None: nothing is reserved, all else is the same.
        observer: Watches each call, for telemetry.
        count: Counts tokens where a server does not; default: tiktoken's ``cl100k_base``.
        settings: The configuration's ``budgets``.
        cache: Answers calls that are equal to earlier ones: nothing is reserved, asked or paid for these.
    """

    def __init__(
        self,
        *,
        budgets: Budgets | None = None,
        observer: Observer | None = None,
        count: TokenCounter | None = None,
        settings: BudgetsConfig | None = None,
        cache: ResponseCache | None = None,
    ) -> None:
        self._budgets, self._observer = budgets, observer or NullObserver()
        self._settings, self._counter, self._cache = settings, count, cache

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
        namespace: str | None = None,
        cache_use: CacheUse = "auto",
        shares: Sequence[Share] = (),
        known: ItemResults[Message] | None = None,
    ) -> Completion:
        """One call of `model`: answered from the cache, or reserved, watched, bounded in time, billed, settled.

        Args:
            model: Who is asked.
            messages: The conversation.
            options: What goes with it: `n`, `tools`, `temperature`, ….
            role: In which the model answers.
            purpose: What for, as the ledger sums it up.
            bill: Where the call is noted with what it cost, also when it fails.
            accounts: Budgets into which its worst case must fit.
            seconds: Within which it ends; default: `timeout` of `options`, else a minute.
            on_delta: Gets the answer as it comes, where the model streams and `n` is 1. Of one from the cache nothing.
            namespace: Whose response cache; None: none.
            cache_use: What the request says of it.
            shares: Of a call that several questions share, instead of `accounts`: what each bears of it.
            known: Of the messages, from calls before.

        Returns:
            The model's completion, whose `usage` (tokens) and `dollars` can be booked: never below what was received.

        Raises:
            BudgetExceeded: The worst case does not fit into a budget.
            UnknownPrice: A budget is to hold, and the model has no price.
            InvalidRequest: A budget is to hold, and the options ask for what it cannot bound.
            StorageError: The budgets cannot be read, and ``budgets.when_unavailable`` is ``refuse``.
            TimeoutError: `seconds` have passed.
            Exception: What the model raises, which then carries what it cost (`errors.bill_of`).
        """
        messages, options = encodable_messages(messages, known), encodable_options(options)
        n = int(options.get("n") or 1)
        entry = None
        if self._cache is not None and namespace is not None:
            entry = self._cache.entry(namespace, model, messages, options, cache_use)
            if entry is not None and (kept := await entry.find(role)) is not None:
                bill.add_call(role, purpose, kept)
                return kept
        limit = seconds if seconds is not None else float(options.get("timeout") or SECONDS)
        settings = self._settings
        output_tokens = settings.output_tokens if settings is not None else None
        call = PlannedCall(model, messages, options, n, self._count, output_tokens)
        reservation: Reservation | SharedReservation | None = None
        limited = False
        if (accounts or any(share.accounts for share in shares)) and self._budgets is not None:
            surcharges.refuse_surcharges(call.caller_options, messages)
            limited = bool(call.limit_to_set)
            options = {**options, **call.limit_to_set}
            strict = settings is None or settings.when_unavailable == "refuse"
            one = partial(Reservation, self._budgets, failures=bill, strict=strict)
            reservation = SharedReservation(shares, one) if shares else one(accounts)
            await reservation.reserve(call.worst_case_dollars(), limit)
        request = {"n": n, "temperature": options.get("temperature"), "stream": on_delta is not None}
        deltas: list[Delta] = []
        cost: Decimal | None = None
        try:
            with bill.model_time(), self._observer.call(role, purpose, model.name, **request) as observe:
                try:
                    if on_delta is not None and n == 1 and can_stream(model):
                        stream_options = {k: v for k, v in options.items() if k != "n"}
                        async with asyncio.timeout(limit):
                            completion = await model.stream(
                                list(messages), _keeping(deltas, on_delta), **stream_options
                            )
                    else:
                        # a list of its own: others hold this one, and the next call's prompt may be the very same
                        answering = model.complete(list(messages), **options)
                        completion = await _within(limit, answering, reservation, call)
                    completion = clean_completion(bookable(completion, call))
                except BaseException as error:
                    remove_secrets(error)
                    if reservation is not None and isinstance(error, GeneratorExit):
                        reservation.is_abandoned = True
                    spent = _bill_of_failure(error, call, deltas)
                    if spent is not None:
                        cost = spent.dollars
                        bill.add_call(role, purpose, spent)
                        with suppress(Exception):
                            error.completion = spent  # type: ignore[attr-defined]
                    raise
                observe(completion)
            cost = completion.dollars
            bill.add_call(role, purpose, completion)
            if entry is not None:
                entry.keep(completion, n, limited=limited)
        finally:
            if reservation is not None:
                await reservation.settle(cost or Decimal(0))
        return completion


async def _within(
    limit: float, work: Awaitable[Completion], reservation: Reservation | SharedReservation | None, call: PlannedCall
) -> Completion:
    """What `work` gives within `limit` seconds. Within a budget it goes on for a while when its caller is gone."""
    if reservation is None:
        async with asyncio.timeout(limit):
            return await work
    task = asyncio.ensure_future(work)
    try:
        async with asyncio.timeout(limit):
            return await asyncio.shield(task)
    except asyncio.CancelledError as error:
        if task.done():  # the answer came in the moment in which its caller went
            error.completion = _bill_of_task(task, call)  # type: ignore[attr-defined]
        else:
            _settle_when_done(task, reservation, call)
            error.completion = bill_of_lost(call)  # type: ignore[attr-defined]
        raise
    except TimeoutError as error:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)
        error.completion = _bill_of_task(task, call)  # type: ignore[attr-defined]
        raise


def _settle_when_done(
    task: asyncio.Future[Completion], reservation: Reservation | SharedReservation, call: PlannedCall
) -> None:
    """Settle a call whose caller is gone: by its answer, if that comes soon, else by the worst that may come of it.

    By a callback, not by a task: one that is cancelled before it began would settle nothing.
    """
    reservation.is_handed_on = True
    forget_ended_loops()
    background.add(task)
    giving_up = asyncio.get_running_loop().call_later(LINGER_SECONDS, task.cancel)

    def settle(_: object) -> None:
        giving_up.cancel()
        completion = _bill_of_task(task, call)
        dollars = completion.dollars or Decimal(0) if completion else Decimal(0)
        keep_until_done(asyncio.ensure_future(reservation.book(dollars)))
        background.discard(task)

    task.add_done_callback(settle)


def _bill_of_task(task: asyncio.Future[Completion], call: PlannedCall) -> Completion | None:
    """What the call in `task` did cost."""
    if not task.done():
        return bill_of_lost(call)
    try:
        return bookable(task.result(), call)
    except BaseException as error:
        return _bill_of_failure(error, call, ())


def _bill_of_failure(error: BaseException, call: PlannedCall, deltas: Sequence[Delta]) -> Completion | None:
    """What a call that failed has cost: as its adapter says, else as far as it can be told from here."""
    bill = bill_of(error)
    if bill is not None:
        return bookable(bill, call)
    if isinstance(error, EmptyCompletion):
        return None
    if deltas:
        return bill_of_deltas(call, deltas)
    if isinstance(error, GeneratorExit):
        return bill_of_lost(call)
    if _may_be_billed(error) and not getattr(call.model, "bills_failures", False):
        return bill_of_lost(call)
    return None


def _may_be_billed(error: BaseException) -> bool:
    """Whether an answer may have been under way, and billed, when this happened."""
    if not isinstance(error, Exception) or isinstance(error, (TimeoutError, ConnectionError)):
        return not isinstance(error, ConnectionRefusedError)
    kind = type(error).__name__
    return getattr(error, "status_code", None) is None and ("Timeout" in kind or "ConnectionError" in kind)


def _keeping(deltas: list[Delta], on_delta: Callable[[Delta], None]) -> Callable[[Delta], None]:
    def keep_and_show(delta: Delta) -> None:
        deltas.append(delta)
        on_delta(delta)

    return keep_and_show


class NullObserver:
    """Watches nothing."""

    def step(self, situation: Situation, mode: Mode) -> AbstractContextManager[Callable[[Decision], None]]:
        return nullcontext(_ignore)

    def call(
        self, role: Role, purpose: Purpose, model: str, **request: Any
    ) -> AbstractContextManager[Callable[[Completion], None]]:
        return nullcontext(_ignore)

    def on_audit(self, cascade: str, loss: float, evidence: float | None, alarmed: bool) -> None:
        pass


def _ignore(_: object) -> None:
    pass
