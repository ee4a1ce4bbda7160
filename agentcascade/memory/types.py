"""The tier router protocol of the memory pipeline: the state that a tier is chosen on, and its probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypedDict

from agentcascade.types import ModuleName

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal

    import numpy as np
    from numpy.typing import NDArray

    from agentcascade.types import Turn

    Vector = NDArray[np.float32]

__all__ = ["Probabilities", "RecallOptions", "State", "TierRouter"]


class State(NamedTuple):
    """State that a tier router decides on (BudgetMem, section "router")."""

    question: str
    query: Vector
    """Unit vector (d,) of the question."""
    read: Vector
    """Mean vector (d,) of what the module would read; zero where that is nothing."""


class RecallOptions(TypedDict, total=False):
    """Keywords of `Memory.recall` that `Memory.recall_sync` hands on."""

    turns: Sequence[Turn | str] | None
    namespace: str | None
    tradeoff: float | None
    token_budget: int | None
    deadline_seconds: float | None
    max_dollars: Decimal | None
    asked_at: datetime | None
    episode: str
    router: TierRouter | None
    visible: str


Probabilities: TypeAlias = tuple[float, float, float]
"""Of low, mid and high."""


class TierRouter(Protocol):
    """Tier router: which tier of a module answers this question."""

    name: str

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        """The probability of each tier; a deterministic router gives one of them 1.

        Args:
            module: the module that is about to run.
            state: the question and its vector (d,), and the mean vector (d,) of what the module would read.
            tradeoff: λ from 0, the weight of cost against quality; routers that were trained for one λ ignore it.

        Returns:
            Probabilities of low, mid and high, which sum to 1.
        """
        ...
