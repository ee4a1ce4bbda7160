"""InterCode's reward for SQL: the share of rows in common with the gold result, times Kendall's τ of their order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from agentcascade.errors import MissingExtra


def rows_reward(rows: Sequence[Any] | None, gold: Sequence[Any] | None) -> float:
    """Intersection over union of the rows as multisets, times Kendall's τ of the rows in common, 0 to 1 (InterCode).

    Rows compare as they print. None, an answer that is no list of rows, earns 0; two empty answers are equal.
    """
    if rows is None or gold is None:
        return 0.0
    ours, theirs = [str(row) for row in rows], [str(row) for row in gold]
    counts, golds = Counter(ours), Counter(theirs)
    union = counts | golds
    if not union:
        return 1.0
    shared = counts & golds
    share = shared.total() / union.total()
    if not shared:
        return share
    order = _kendall(_common_rows(ours, shared), _common_rows(theirs, shared))
    return share if math.isnan(order) else round(order * share, 2)


def _common_rows(rows: list[str], shared: Counter[str]) -> list[str]:
    """Rows in common, each as often as both have it, in order."""
    left = shared.copy()
    common = []
    for row in rows:
        if left[row] > 0:
            left[row] -= 1
            common.append(row)
    return common


def _kendall(one: list[str], other: list[str]) -> float:
    """τ-b of two equally long lists; NaN where one of them does not vary. May be negative, as InterCode's is."""
    if len(one) < 2:
        return math.nan
    try:
        from scipy.stats import kendalltau
    except ImportError as error:
        raise MissingExtra("scipy", "intercode-sql", "agentcascade bench intercode-sql") from error
    places = {row: place for place, row in enumerate(sorted({*one, *other}))}  # ranks: the same τ, and no strings
    return float(kendalltau([places[r] for r in one], [places[r] for r in other]).statistic)
