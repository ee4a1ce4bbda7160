"""Who and what the question is about."""

from __future__ import annotations

import numpy as np

from agentcascade.memory.modules.extraction import Extraction, picked
from agentcascade.memory.modules.filter import combined
from agentcascade.memory.question import Item, Work, spread
from agentcascade.memory.tokenization import names
from agentcascade.types import ModuleName

HOPS = 3
"""Lines whose neighbourhood the second search looks at."""


class Entity(Extraction):
    name: ModuleName = "entity"
    description = "Finds what the history says about the people, places and things that the question names."
    task = "memory_entity"

    def rules(self, work: Work) -> list[Item]:
        """Lines by or about the names of the question that share its other rare terms."""
        lines = work.lines(work.kept)
        asked = work.query.names
        named = np.array(
            [_share(asked, names(work.view.lines[i].text) | _speaker(work, i)) for i in lines], dtype=np.float32
        )
        shares = work.shares(lines)
        return picked(work, lines, np.where(shares > 0, 0.75 * shares + 0.25 * named, 0))

    def models(self, work: Work) -> list[Item]:
        """The same, each phrase of the question looked for by its own vector."""
        lines = work.lines(work.kept)
        phrases = [p for p in work.query.phrases if p.casefold() not in work.query.names][:4]
        if not lines or not phrases:
            return self.rules(work)
        vectors = work.tools.once("sentence", phrases, work.tools.sentence_vectors, work.meter)
        best = np.max([work.cosines(lines, v) for v in vectors], axis=0)
        named = np.array([_share(work.query.names, _speaker(work, i)) for i in lines], dtype=np.float32)
        return picked(work, lines, 0.5 * spread(best) + 0.35 * work.shares(lines) + 0.15 * named)

    def deep(self, work: Work) -> list[Item]:
        """A second search of the whole history by the best lines found: what a chain of facts leads to."""
        lines = work.lines(work.kept)
        if not lines or not len(work.view.vectors):
            return self.rules(work)
        seeds = [lines[i] for i in np.argsort(-combined(work, lines))[:HOPS]]
        known = [i for i in seeds if i < len(work.view.vectors)]
        hop = work.query.vector + 0.4 * work.view.vectors[known].mean(axis=0) if known else work.query.vector
        everywhere = work.view.vectors @ (hop / np.linalg.norm(hop))
        far = [int(i) for i in np.argsort(-everywhere)[: 4 * HOPS]]
        pool = sorted({*lines, *far})
        return picked(work, pool, combined(work, pool))


def _speaker(work: Work, i: int) -> frozenset[str]:
    return frozenset(work.view.lines[i].speaker.casefold().split())


def _share(asked: frozenset[str], there: frozenset[str]) -> float:
    return len(asked & there) / len(asked) if asked else 0.0
