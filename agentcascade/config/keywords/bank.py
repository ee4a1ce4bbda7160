"""Keywords of demonstrations: the bank, retrieval, what is collected, the shelf of failures."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypedDict

from agentcascade.config.sections import WeightsConfig


class BankKeywords(TypedDict, total=False):
    """Fields of `BankConfig`."""

    url: str
    namespace: str
    journal: Path | str | None
    migrate: bool


class WeightsKeywords(TypedDict, total=False):
    """Fields of `WeightsConfig`."""

    goal: float
    plan: float
    observation: float


class RetrievalKeywords(TypedDict, total=False):
    """Fields of `RetrievalConfig`."""

    embedder: str
    index: str
    k: int
    window_before: int
    window_after: int
    weights: WeightsConfig | WeightsKeywords
    sticky: Literal["never", "always", "auto"]
    sticky_sensitivity: float
    utility_weight: float


class CollectKeywords(TypedDict, total=False):
    """Fields of `CollectConfig`."""

    plan: bool
    first_thought: bool
    drop_observations: Sequence[str]
    active: bool
    budget: Decimal | float | str | None
    horizon: int
    cold_start: int


class ContrastKeywords(TypedDict, total=False):
    """Fields of `ContrastConfig`."""

    failed: Sequence[str]
    strike: bool
    show: bool
    times: int
    same: Sequence[Literal["goal", "category", "observation", "before"]]
    keep: int
