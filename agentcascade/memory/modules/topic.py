"""Topic module: what was said about the subject of the question."""

from __future__ import annotations

import numpy as np

from agentcascade.memory.modules.extraction import ExtractionModule, top_items
from agentcascade.memory.modules.filter import combined_scores
from agentcascade.memory.question import MemoryItem, QuestionContext, min_max_scaled
from agentcascade.types import ModuleName

BEFORE, AFTER = 0.5, 0.3
"""Weights of the neighbouring lines, since an answer often follows the line with the question"""


class TopicModule(ExtractionModule):
    name: ModuleName = "topic"
    description = "Finds what was said on the subject of the question: opinions, plans, reasons and activities."
    task = "memory_topic"

    def rules(self, context: QuestionContext) -> list[MemoryItem]:
        """Lines that share rare terms with the question."""
        lines = context.lines_of(context.filtered)
        return top_items(context, lines, context.term_shares(lines))

    def models(self, context: QuestionContext) -> list[MemoryItem]:
        """Lines close to the question in meaning, in the context of their neighbours."""
        lines = context.lines_of(context.filtered)
        if not lines:
            return []
        direct = context.cosines(lines)
        beside = BEFORE * context.cosines(_neighbours(context, lines, -1)) + AFTER * context.cosines(
            _neighbours(context, lines, 1)
        )
        return top_items(context, lines, 0.6 * min_max_scaled(direct + beside) + 0.4 * context.term_shares(lines))

    def deep(self, context: QuestionContext) -> list[MemoryItem]:
        """Lines whose tokens answer the question's tokens, in the context of their neighbours."""
        lines = context.lines_of(context.filtered)
        if not lines:
            return []
        scores = combined_scores(context, lines)
        known = dict(zip(lines, scores.tolist()))
        before = [known.get(i, 0.0) for i in _neighbours(context, lines, -1)]
        return top_items(context, lines, min_max_scaled(scores + 0.2 * np.array(before, dtype=np.float32)))


def _neighbours(context: QuestionContext, lines: list[int], by: int) -> list[int]:
    """Neighbour of each line, `by` places further in the same session, or the line itself."""
    every = context.history.lines
    return [i + by if 0 <= i + by < len(every) and every[i + by].session == every[i].session else i for i in lines]
