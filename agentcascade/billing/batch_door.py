"""Billing of batches, the door's other leaf: a worst case is reserved, each result billed, the sum settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from agentcascade.billing import surcharges
from agentcascade.billing.bill import bill_of_lost, bookable
from agentcascade.billing.door import NullObserver
from agentcascade.billing.worst_case import PlannedCall
from agentcascade.errors import ProviderError, UnknownPrice, bill_of
from agentcascade.messages import clean_completion
from agentcascade.models.pricing import BatchPriced
from agentcascade.models.response_reader import ResponseReader
from agentcascade.protocols import ChatModel, TokenCounter
from agentcascade.types import Account, Completion, Message, Purpose, Role

if TYPE_CHECKING:
    from agentcascade.config.sections import BudgetsConfig
    from agentcascade.protocols import Observer
    from agentcascade.storage.budgets import DatabaseBudgets

SECONDS = 3 * 24 * 3600.0
"""For which a batch's dollars stay reserved: its 24 hours, and the time until somebody asks for the results."""


class SentCall(PlannedCall):
    """A request of a batch when its results come: its texts are gone, their bounds in tokens are not."""

    def __init__(
        self, model: ChatModel, answers: int, count: TokenCounter, *, prompt_tokens: int, output_tokens: int
    ) -> None:
        super().__init__(BatchPriced(model), (), {}, answers, count)
        vars(self).update(prompt_tokens=prompt_tokens, output_tokens=output_tokens)  # in place of what is counted


class BatchDoor:
    """What `Door` is to calls: reserves, bills and settles the requests of batches, at their prices.

    Args:
        budgets: Where worst cases are reserved; None: nothing is.
        observer: Watches each result, for telemetry.
        count: Counts tokens.
        settings: The configuration's ``budgets``.
    """

    def __init__(
        self,
        count: TokenCounter,
        *,
        budgets: DatabaseBudgets | None = None,
        observer: Observer | None = None,
        settings: BudgetsConfig | None = None,
    ) -> None:
        self._budgets, self._observer, self._settings = budgets, observer or NullObserver(), settings
        self.count = count

    def plan(
        self, model: ChatModel, messages: Sequence[Message], options: Mapping[str, Any], accounts: Sequence[Account]
    ) -> tuple[PlannedCall, Mapping[str, Any]]:
        """A request before it is sent: its worst case at the price of batches, and the options that go with it.

        Raises:
            UnknownPrice: A budget is to hold, and the model has no price.
            InvalidRequest: A budget is to hold, and the options ask for what it cannot bound.
        """
        output_tokens = self._settings.output_tokens if self._settings is not None else None
        answers = int(options.get("n") or 1)
        call = PlannedCall(BatchPriced(model), messages, options, answers, self.count, output_tokens)
        if accounts and self._budgets is not None:
            surcharges.refuse_surcharges(call.caller_options, messages)
            options = {**options, **call.limit_to_set}
            call.worst_case_dollars()
        return call, options

    def worst_case(self, call: PlannedCall) -> Decimal | None:
        """The most dollars of a request; None where no price is known."""
        try:
            return call.worst_case_dollars()
        except UnknownPrice:
            return None

    async def reserve(self, batch: str, accounts: Sequence[Account], dollars: Decimal | None) -> None:
        """Set a batch's worst case aside, under its name.

        Raises:
            BudgetExceeded: It does not fit.
            StorageError: The budgets cannot be read.
        """
        if self._budgets is not None and accounts:
            await self._budgets.reserve(accounts, dollars or Decimal(0), SECONDS, id=batch)

    async def settle(self, batch: str, dollars: Decimal | None) -> None:
        """Book what it did cost in place of what was set aside. A second time does nothing."""
        if self._budgets is not None:
            await self._budgets.settle(batch, dollars or Decimal(0))

    def read(self, model: ChatModel, call: SentCall, body: Any, role: Role, purpose: Purpose) -> tuple[Completion, str]:
        """The answer to one request and its bill; (bill, why there is no answer) where it holds none.

        Its usage is believed as far as `bookable` believes any; one that says nothing is billed by its worst case.
        """
        batched = BatchPriced(model)
        with self._observer.call(role, purpose, model.name, n=call.n, temperature=None, stream=False) as observe:
            try:
                reader = ResponseReader(model.name, batched.dollars, (), None, call.n)
                completion = clean_completion(bookable(reader.read(body), call))
            except ProviderError as error:
                bill = bill_of(error)
                return (bill_of_lost(call) if bill is None else bookable(bill, call)), str(error)
            except Exception as error:
                return bill_of_lost(call), f"{type(error).__name__}: the answer cannot be read"
            observe(completion)
        return completion, ""

    def lost(self, call: SentCall) -> Completion:
        """The bill of a request that was answered, as its provider says, though the answer never came."""
        return bill_of_lost(call)
