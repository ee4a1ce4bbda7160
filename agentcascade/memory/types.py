"""What flows through the memory pipeline: histories, what was recalled of them, and what a tier router promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from agentcascade.types import ModuleName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]


class State(NamedTuple):
    """What a tier is chosen on (BudgetMem, section "router")."""

    question: str
    query: Vector
    """Unit vector (d,) of the question."""
    read: Vector
    """Mean vector (d,) of what the module would read; zero where that is nothing."""


Probabilities: TypeAlias = tuple[float, float, float]
"""Of low, mid and high."""


class TierRouter(Protocol):
    """Which tier of a module answers this question."""

    name: str

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        """With which probability each tier is the one; a router that does not doubt gives one of them 1.

        `tradeoff` is λ, the weight of cost against quality; routers that were made for one λ ignore it.
        """
        ...
