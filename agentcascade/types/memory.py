"""Memory's data: turns of a history, modules and their tiers, recalls."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal

from pydantic import Field

from agentcascade.types.base import Frozen, new_id, now
from agentcascade.types.calls import Call

Tier = Literal["low", "mid", "high"]
"""Tier of a memory module: how much it may cost."""
ModuleName = Literal["filter", "entity", "temporal", "topic", "summary"]
"""Name of a memory module."""
TIERS: tuple[Tier, ...] = ("low", "mid", "high")
"""Tiers of a memory module, the cheapest first."""
MODULES: tuple[ModuleName, ...] = ("filter", "entity", "temporal", "topic", "summary")
"""Memory modules, in the order in which their tiers are chosen."""


class Turn(Frozen):
    """Turn of a history that `Memory` holds: something said, seen or written.

    >>> from agentcascade import Turn
    >>> Turn(text="My dog is called Rex.", speaker="Ann", session="monday").speaker
    'Ann'
    """

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
    """Recall of a memory: the text made for one question, where it comes from, and what it cost.

    >>> from agentcascade import build_memory
    >>> with build_memory(stored=False, retrieval={"embedder": "hashing"}) as memory:
    ...     memory.append_sync("ann", ["My dog is called Rex."])
    ...     recall = memory.recall_sync("What is the dog called?", "ann")
    >>> recall.text, len(recall.sources), recall.dollars
    ('- My dog is called Rex.', 1, Decimal('0'))
    """

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
