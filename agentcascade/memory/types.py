"""What flows through the memory pipeline: histories, what was recalled of them, and what a tier router promises."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

from pydantic import Field

from agentcascade.types import Call, Frozen, new_id, now

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

Tier = Literal["low", "mid", "high"]
ModuleName = Literal["filter", "entity", "temporal", "topic", "summary"]

TIERS: tuple[Tier, ...] = ("low", "mid", "high")
MODULES: tuple[ModuleName, ...] = ("filter", "entity", "temporal", "topic", "summary")
"""In the order in which their tiers are chosen."""


class Turn(Frozen):
    """One entry of a history: something said, seen or written."""

    id: str = Field(default_factory=lambda: new_id("tu"), description="unique within its history")
    text: str
    speaker: str = ""
    session: str = Field(default="", description="what belongs together: a conversation, a day, a document")
    at: datetime | None = Field(default=None, description="when; None where it is not known or did not parse")


class ModuleRun(Frozen):
    """What one module did for one question."""

    module: ModuleName
    asked: Tier = Field(description="the tier that the router chose")
    used: Tier | None = Field(description="the tier that answered; None where the module was left out")
    probability: float = Field(default=1.0, ge=0, le=1, description="with which the router chose `asked`")
    milliseconds: float = 0.0
    items: int = Field(default=0, ge=0, description="pieces that it handed on")
    dollars: Decimal | None = Decimal(0)
    cached: bool = Field(default=False, description="answered from an earlier identical query, at no cost")
    failures: tuple[str, ...] = ()


class Recall(Frozen):
    """The memory made for one question, and what it cost."""

    id: str = Field(default_factory=lambda: new_id("re"))
    history: str
    namespace: str = "default"
    episode: str = ""
    decision: str = Field(default="", description="the step that it was made for and billed with")
    question: str
    text: str
    sources: tuple[str, ...] = Field(default=(), description="ids of the turns it draws on, most useful first")
    tokens: int = Field(default=0, ge=0, description="of `text`")
    runs: tuple[ModuleRun, ...] = ()
    left_out: tuple[str, ...] = Field(default=(), description="what a deadline, a dollar cap, a budget or a limit cost")
    calls: tuple[Call, ...] = ()
    dollars: Decimal | None = Field(default=Decimal(0), description="None as soon as one price is unknown")
    seconds: float = 0.0
    router: str = ""
    tradeoff: float = Field(default=0.0, description="λ: the weight of cost against quality that the router was given")
    created_at: datetime = Field(default_factory=now)

    @property
    def tiers(self) -> Mapping[ModuleName, Tier]:
        """The tiers that the router chose."""
        return {run.module: run.asked for run in self.runs}


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
