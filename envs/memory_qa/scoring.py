"""How the benchmarks score."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Evidence(NamedTuple):
    precision: float
    recall: float
    f1: float


def evidence(sources: Collection[str], gold: Collection[str]) -> Evidence:
    """Of the turns that a memory draws on, against those that prove the answer; `gold` is not empty."""
    hits = len(set(sources) & set(gold))
    precision = hits / len(set(sources)) if sources else 0.0
    recall = hits / len(set(gold))
    return Evidence(precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0)
