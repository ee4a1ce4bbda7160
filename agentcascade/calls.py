"""The model calls of one step: within the budget, watched, put on the bill, in the form that each model understands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from decimal import Decimal
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from agentcascade import constraints, exchange
from agentcascade.errors import BudgetExceeded, EmptyCompletion, StorageError, UnknownPrice
from agentcascade.protocols import Budgets, ChatModel, StreamingModel, TokenCounter
from agentcascade.record import StepRecord
from agentcascade.text import whole, whole_text
from agentcascade.tokens import count_messages
from agentcascade.types import (
    Account,
    Completion,
    Decision,
    Delta,
    Message,
    Mode,
    Purpose,
    Role,
    Situation,
    Tool,
    Usage,
)

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade

NOTHING: Message = {"role": "assistant", "content": ""}
"""Stands for a sample that the model failed to give: it votes for nothing."""


BUDGET_SECONDS = 5.0
"""For the database that keeps the budgets; after that it counts as unavailable."""
_bookings: set[asyncio.Future[None]] = set()
"""Held here, since an event loop does not hold what nobody waits for."""

SHARED = {
    *("tool_choice", "parallel_tool_calls", "response_format", "stop", "max_tokens", "max_completion_tokens"),
    *("top_p", "frequency_penalty", "presence_penalty", "user"),
}
"""Options of a request that mean the same to every model: the student gets no others. Some are one provider's own, and
headers or addresses may hold what only the teacher's provider may see."""


class Said(NamedTuple):
    """A student's message, with the mean log-probability and the number of its tokens where they are known."""

    message: Message
    logprob: float | None = None
    tokens: int | None = None


class Request:
    """What one step asks of a model: the caller's messages, and the same with demonstrations once there are some.

    `temperature` and `k`, where they are set, replace those of the configuration.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        *,
        n: int = 1,
        on_delta: Callable[[Delta], None] | None = None,
        accounts: Sequence[Account] = (),
    ) -> None:
        self.messages, self.tools, self.seed, self.options = messages, tools, seed, dict(options or {})
        self.n, self.on_delta, self.accounts = n, on_delta, tuple(accounts)
        self.temperature: float | None = None
        self.k: int | None = None
        self.remembered = self.prompt = messages
        self.memory_tokens = self.demonstration_tokens = 0

    def remember(self, messages: Sequence[Message], tokens: int) -> None:
        """`messages` are the caller's with a memory of so many tokens."""
        self.remembered = self.prompt = messages
        self.memory_tokens = tokens


class Caller:
    """Calls student and teacher for one step."""

    def __init__(self, cascade: Cascade, request: Request, record: StepRecord) -> None:
        self._cascade, self._request, self._record = cascade, request, record
        self._switching = cascade.teacher is not None and cascade.student is not None

    async def samples(self, size: int, drawn: int, purpose: Purpose = "sample") -> list[Said]:
        """`size` student messages, the first of them number `drawn`; `NOTHING` for each that did not come."""
        model, settings, request = self._cascade.student, self._cascade.config.sampling, self._request
        assert model is not None
        options = {
            **{k: v for k, v in request.options.items() if k in SHARED},
            "n": size,
            "temperature": settings.temperature if request.temperature is None else request.temperature,
            "seed": request.options.get("seed", request.seed) + drawn,
            "tools": request.tools,
            "timeout": settings.timeout_seconds,
        }
        if settings.logprobs:
            options["logprobs"] = True
        constrained = constraints.option(settings, self._cascade.config.actions, model.name, request.options)
        if constrained:  # a second form would contradict it
            options = {k: v for k, v in options.items() if k != "response_format"} | constrained
        messages = self._sent(request.prompt, "student")
        try:
            make = lambda: model.complete(messages, **options)  # noqa: E731
            completion = await self._call("student", purpose, model, messages, size, make)
        except EmptyCompletion as error:
            self._record.failed("student", error)
            self._cascade.standing.failed(model.name, error)
            return [Said(NOTHING)] * size
        self._cascade.standing.worked(model.name)
        n = len(completion.messages)
        told = zip_longest(completion.messages, completion.logprobs[:n], completion.tokens[:n])
        answers = [Said(self._named(m, "student", drawn + i), p, t) for i, (m, p, t) in enumerate(told)]
        return [*answers, *[Said(NOTHING)] * size][:size]

    async def answer(self, messages: Sequence[Message], purpose: Purpose = "act") -> Completion:
        """The teacher's answer, live to `request.on_delta` where there is one."""
        model, request = self._cascade.teacher, self._request
        assert model is not None
        sent = self._sent(messages, "teacher")
        options = {
            "seed": request.seed,
            **{k: v for k, v in request.options.items() if k != constraints.CHOICES},
            "tools": request.tools,
            "timeout": self._cascade.config.deadline_seconds,
        }
        if request.n > 1:
            options["n"] = request.n
        on_delta = request.on_delta
        if on_delta is None or request.n > 1 or not isinstance(model, StreamingModel):
            make = lambda: model.complete(sent, **options)  # noqa: E731
        else:
            rename = exchange.delta_ids("teacher", self._salt(0)) if self._switching else _same
            forward = lambda delta: on_delta(rename(whole_text(delta)))  # noqa: E731
            make = lambda: model.stream(sent, forward, **options)  # noqa: E731
        completion = await self._call("teacher", purpose, model, sent, request.n, make)
        answers = tuple(self._named(m, "teacher", i) for i, m in enumerate(completion.messages))
        return completion.model_copy(update={"messages": answers})

    async def other(
        self, model: ChatModel, messages: Sequence[Message], purpose: Purpose, options: Mapping[str, Any]
    ) -> Completion:
        """A call of another model that the step needs, on its bill."""
        request = Request(messages, options=options, accounts=self._request.accounts)
        make = lambda: model.complete(messages, **options)  # noqa: E731
        return await self._call("student", purpose, model, messages, 1, make, request)

    async def _call(
        self,
        role: Role,
        purpose: Purpose,
        model: ChatModel,
        messages: Sequence[Message],
        n: int,
        make: Callable[[], Any],
        request: Request | None = None,
    ) -> Completion:
        config, record, request = self._cascade.config, self._record, request or self._request
        limit = config.sampling.timeout_seconds if role == "student" else config.deadline_seconds
        worst = None
        if request.accounts and self._cascade.budgets is not None:
            worst = most(model, messages, n, request, self._cascade.count, config.budgets.output_tokens)
        watched = {"n": n, "temperature": request.options.get("temperature"), "stream": request.on_delta is not None}
        async with self._paying(worst, limit) as paid:
            with record.model_time(), self._cascade.observer.call(role, purpose, model.name, **watched) as seen:
                try:
                    completion: Completion = whole(await make())
                except EmptyCompletion as error:
                    record.spent_by(role, purpose, error.completion)
                    paid(error.completion)
                    raise
                seen(completion)
            record.spent_by(role, purpose, completion)
            paid(completion)
        return completion

    @asynccontextmanager
    async def _paying(
        self, worst: tuple[Decimal, Decimal] | None, seconds: float
    ) -> AsyncIterator[Callable[[Completion | None], None]]:
        """Reserve the worst case, settle what it did cost.

        A call that is cancelled or runs out of time may have been billed: it is settled at the price of its prompt.
        """
        spent: list[Decimal] = []

        def paid(completion: Completion | None) -> None:
            if completion is not None and completion.dollars is not None:
                spent.append(completion.dollars)

        budgets = self._cascade.budgets
        if worst is None or budgets is None:
            yield paid
            return
        ceiling, prompt = worst
        reservation = await self._reserve(budgets, ceiling, seconds)
        lost = Decimal(0)
        try:
            yield paid
        except (TimeoutError, asyncio.CancelledError):
            lost = prompt
            raise
        finally:
            if reservation is not None:
                await asyncio.shield(self._settle(budgets, reservation, sum(spent, Decimal(0)) or lost))

    async def _reserve(self, budgets: Budgets, dollars: Decimal, seconds: float) -> str | None:
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                return await budgets.reserve(self._request.accounts, dollars, seconds + 60)
        except BudgetExceeded:
            raise
        except Exception as error:
            if self._cascade.config.budgets.when_unavailable == "refuse":
                if isinstance(error, TimeoutError):
                    raise StorageError(f"the budgets were not read within {BUDGET_SECONDS:g} seconds") from error
                raise
            self._record.failed("budget", error)
            return None

    async def _settle(self, budgets: Budgets, reservation: str, dollars: Decimal) -> None:
        """The answer does not wait for a database that hangs: then it is booked behind it."""
        booking = asyncio.ensure_future(budgets.settle(reservation, dollars))
        _bookings.add(booking)
        booking.add_done_callback(_booked)
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                await asyncio.shield(booking)
        except Exception as error:
            self._record.failed("budget", error)

    def _sent(self, messages: Sequence[Message], role: Role) -> Sequence[Message]:
        return exchange.for_model(messages, role, self._cascade.ids) if self._switching else messages

    def _named(self, message: Message, role: Role, index: int) -> Message:
        if not self._switching or not message.get("tool_calls"):
            return message
        named = exchange.ours(message, role, self._salt(index))
        self._cascade.ids.remember(message, named)
        return named

    def _salt(self, index: int) -> str:
        return f"{self._record.id}:{index}"


def most(
    model: ChatModel, messages: Sequence[Message], n: int, request: Request, count: TokenCounter, output: int
) -> tuple[Decimal, Decimal]:
    """(the most that the call should cost, its prompt alone) in dollars. Raises `UnknownPrice`.

    `output` tokens are assumed for an answer where the request sets no limit of its own.
    """
    options = request.options
    limit = options.get("max_completion_tokens") or options.get("max_tokens") or output
    prompt = count_messages(messages, count) + (count(str(request.tools)) if request.tools else 0)
    prompts = 1 if model.supports_n else n
    dollars = model.dollars(Usage(input=prompt * prompts, output=int(limit) * n))
    alone = model.dollars(Usage(input=prompt * prompts))
    if dollars is None or alone is None:
        raise UnknownPrice(
            f"the price of {model.name} is not known, so no budget can hold: set price: {{input: …, output: …}} in "
            "dollars per million tokens for this model, or take the budget away"
        )
    return dollars, alone


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


def _same(delta: Delta) -> Delta:
    return delta


def _booked(booking: asyncio.Future[None]) -> None:
    _bookings.discard(booking)
    if not booking.cancelled():
        booking.exception()  # it is recorded where somebody still waits for it


def _ignore(_: object) -> None:
    pass
