"""Entity module: people, places and things that the question is about."""

from __future__ import annotations

import numpy as np

from agentcascade.memory.modules.extraction import ExtractionModule, top_items
from agentcascade.memory.modules.filter import combined_scores
from agentcascade.memory.question import MemoryItem, QuestionContext, min_max_scaled
from agentcascade.memory.tokenization import proper_names
from agentcascade.types import ModuleName

HOPS = 3
"""Number of seed lines of the second search"""


class EntityModule(ExtractionModule):
    name: ModuleName = "entity"
    description = "Finds what the history says about the people, places and things that the question names."
    task = "memory_entity"

    def rules(self, context: QuestionContext) -> list[MemoryItem]:
        """Lines by or about the names of the question that share its other rare terms."""
        lines = context.lines_of(context.filtered)
        question_names = context.query.names
        named = np.array(
            [
                _overlap_share(question_names, proper_names(context.history.lines[i].text) | _speaker_names(context, i))
                for i in lines
            ],
            dtype=np.float32,
        )
        shares = context.term_shares(lines)
        return top_items(context, lines, np.where(shares > 0, 0.75 * shares + 0.25 * named, 0))

    def models(self, context: QuestionContext) -> list[MemoryItem]:
        """The same, with each phrase of the question searched by its own vector."""
        lines = context.lines_of(context.filtered)
        phrases = [p for p in context.query.phrases if p.casefold() not in context.query.names][:4]
        if not lines or not phrases:
            return self.rules(context)
        vectors = context.small_models.compute_cached(
            "sentence", phrases, context.small_models.sentence_vectors, context.meter
        )
        best = np.max([context.cosines(lines, v) for v in vectors], axis=0)
        named = np.array(
            [_overlap_share(context.query.names, _speaker_names(context, i)) for i in lines], dtype=np.float32
        )
        return top_items(context, lines, 0.5 * min_max_scaled(best) + 0.35 * context.term_shares(lines) + 0.15 * named)

    def deep(self, context: QuestionContext) -> list[MemoryItem]:
        """Multi-hop search: a second search of the whole history from the best lines of the first."""
        lines = context.lines_of(context.filtered)
        if not lines or not len(context.history.vectors):
            return self.rules(context)
        seeds = [lines[i] for i in np.argsort(-combined_scores(context, lines))[:HOPS]]
        known = [i for i in seeds if i < len(context.history.vectors)]
        hop = (
            context.query.vector + 0.4 * context.history.vectors[known].mean(axis=0) if known else context.query.vector
        )
        everywhere = context.history.vectors @ (hop / np.linalg.norm(hop))
        far = [int(i) for i in np.argsort(-everywhere)[: 4 * HOPS]]
        pool = sorted({*lines, *far})
        return top_items(context, pool, combined_scores(context, pool))


def _speaker_names(context: QuestionContext, i: int) -> frozenset[str]:
    return frozenset(context.history.lines[i].speaker.casefold().split())


def _overlap_share(wanted: frozenset[str], present: frozenset[str]) -> float:
    return len(wanted & present) / len(wanted) if wanted else 0.0
