"""Temporal module: when the events of the question happened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from agentcascade.memory.dates import MONTHS, resolve_expression, time_expressions
from agentcascade.memory.modules.extraction import ExtractionModule, top_items
from agentcascade.memory.modules.filter import combined_scores
from agentcascade.memory.question import MemoryItem, QuestionContext, dated_line
from agentcascade.types import ModuleName

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

HALF_WEIGHT_DAYS = 30.0
"""Days at which a line outside the asked period counts half."""
CALENDAR = re.compile(rf"\d{{4}}|{MONTHS}", re.IGNORECASE)
"""Marks of absolute time expressions, which need no resolving"""
MAX_DATED_LINES = 12
"""Number of lines whose time expressions are resolved"""


class TemporalModule(ExtractionModule):
    name: ModuleName = "temporal"
    description = "Finds when the events that the question asks about happened and puts dates to them."
    task = "memory_temporal"

    def rules(self, context: QuestionContext) -> list[MemoryItem]:
        """Lines with a time expression that share terms with the question; those said in the asked period first."""
        lines = context.lines_of(context.filtered)
        time_weights = [1.0 if time_expressions(context.history.lines[i].text) else 0.5 for i in lines]
        scores = context.term_shares(lines) * np.array(time_weights, dtype=np.float32)
        return top_items(
            context, lines, scores * _period_weights(context, [context.history.lines[i].at for i in lines])
        )

    def models(self, context: QuestionContext) -> list[MemoryItem]:
        """The same by cosine, with relative expressions ('yesterday') resolved to dates."""
        lines = context.lines_of(context.filtered)
        return self._dated(context, lines, np.float32(0.5) * (context.cosines(lines) + context.term_shares(lines)))

    def deep(self, context: QuestionContext) -> list[MemoryItem]:
        """The same by late interaction."""
        lines = context.lines_of(context.filtered)
        return self._dated(context, lines, combined_scores(context, lines))

    def _dated(self, context: QuestionContext, lines: list[int], scores: Vector) -> list[MemoryItem]:
        top = [lines[o] for o in np.argsort(-scores, kind="stable")[:MAX_DATED_LINES]]
        days = dict(
            zip(
                top,
                context.small_models.compute_cached(
                    "dates", [_date_key(context, i) for i in top], _resolve_dates, context.meter
                ),
            )
        )
        texts = {i: _text_with_dates(context, i, resolved) for i, resolved in days.items() if resolved}
        timed = np.array([1.0 if days.get(i) else 0.8 for i in lines], dtype=np.float32)
        meant = [next((d for _, d in days.get(i) or ()), context.history.lines[i].at) for i in lines]
        return top_items(context, lines, scores * timed * _period_weights(context, meant), texts)


def _date_key(context: QuestionContext, i: int) -> str:
    """Cache key of a line's resolved dates: its timestamp and its text."""
    line = context.history.lines[i]
    return f"{line.at.isoformat() if line.at else ''}|{line.text}"


def _resolve_dates(keys: Sequence[str]) -> list[list[tuple[str, datetime]]]:
    dates_by_key = []
    for key in keys:
        stamp, _, text = key.partition("|")
        spoken_at = datetime.fromisoformat(stamp) if stamp else None
        resolved = [(e, resolve_expression(e, spoken_at)) for e in time_expressions(text) if not CALENDAR.search(e)]
        dates_by_key.append([(e, day) for e, day in resolved if day is not None])
    return dates_by_key


def _text_with_dates(context: QuestionContext, i: int, days: list[tuple[str, datetime]]) -> str:
    return f"{dated_line(context.history.lines[i])} ({'; '.join(f'{e} = {day:%d %B %Y}' for e, day in days)})"


def _period_weights(context: QuestionContext, days: Sequence[datetime | None]) -> Vector:
    """Weights: 1 inside the periods that the question names, less outside; all 1 where it names none."""
    periods = context.query.periods
    if not periods:
        return np.ones(len(days), dtype=np.float32)
    weights = [
        0.5 if d is None else max(HALF_WEIGHT_DAYS / (HALF_WEIGHT_DAYS + p.distance(d)) for p in periods) for d in days
    ]
    return np.array(weights, dtype=np.float32)
