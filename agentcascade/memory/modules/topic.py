"""What the subject of the question is, and what was said about it."""

from __future__ import annotations

import numpy as np

from agentcascade.memory.modules.extraction import Extraction, picked
from agentcascade.memory.modules.filter import combined
from agentcascade.memory.question import Item, Work, spread
from agentcascade.types import ModuleName

BEFORE, AFTER = 0.5, 0.3
"""Weights of the lines around a line: an answer often stands beside what was asked."""


class Topic(Extraction):
    name: ModuleName = "topic"
    description = "Finds what was said on the subject of the question: opinions, plans, reasons and activities."
    task = "memory_topic"

    def rules(self, work: Work) -> list[Item]:
        """Lines that share rare terms with the question."""
        lines = work.lines(work.kept)
        return picked(work, lines, work.shares(lines))

    def models(self, work: Work) -> list[Item]:
        """Lines close to the question in meaning, in the context of their neighbours."""
        lines = work.lines(work.kept)
        if not lines:
            return []
        own = work.cosines(lines)
        beside = BEFORE * work.cosines(_shifted(work, lines, -1)) + AFTER * work.cosines(_shifted(work, lines, 1))
        return picked(work, lines, 0.6 * spread(own + beside) + 0.4 * work.shares(lines))

    def deep(self, work: Work) -> list[Item]:
        """Lines whose tokens answer the question's tokens, in the context of their neighbours."""
        lines = work.lines(work.kept)
        if not lines:
            return []
        scores = combined(work, lines)
        known = dict(zip(lines, scores.tolist()))
        before = [known.get(i, 0.0) for i in _shifted(work, lines, -1)]
        return picked(work, lines, spread(scores + 0.2 * np.array(before, dtype=np.float32)))


def _shifted(work: Work, lines: list[int], by: int) -> list[int]:
    """The line `by` places further in the same session, or the line itself."""
    every = work.view.lines
    return [i + by if 0 <= i + by < len(every) and every[i + by].session == every[i].session else i for i in lines]
