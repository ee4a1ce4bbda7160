"""Which of the retrieved chunks the other modules read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agentcascade.memory.llm import Ask, Language, answer, ratings
from agentcascade.memory.modules.base import Module
from agentcascade.memory.question import Work, spread
from agentcascade.memory.tokenization import overlap, terms
from agentcascade.types import ModuleName

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

THRESHOLD = 0.3
"""BudgetMem, section "filter": 0.7 × cosine + 0.3 × share of keywords must reach this."""
KEPT = 5
COMPARED = 24
"""Lines whose every token is compared with the question's."""


class Kept(NamedTuple):
    chunks: tuple[int, ...]
    """Best first."""
    relevance: dict[int, float]
    """Of their lines, from 0 to 1."""


class Filter(Module[Kept]):
    name: ModuleName = "filter"
    description = "Decides which of the retrieved passages of the history bear on the question and drops the others."

    def rules(self, work: Work) -> Kept:
        """Chunks that share a term with the question, as many as can be used, most rare terms first."""
        lines = work.lines(work.raw)
        shares = dict(zip(lines, work.shares(lines).tolist()))
        best = {c: max(shares[i] for i in work.lines([c])) for c in work.raw}
        return _kept(work, {c: s for c, s in best.items() if s > 0}, shares)

    def models(self, work: Work) -> Kept:
        """Mean of cosine and keyword share, above the paper's threshold."""
        lines = work.lines(work.raw)
        scores = 0.7 * work.cosines(lines) + 0.3 * work.shares(lines)
        relevance = dict(zip(lines, scores.tolist()))
        best = {}
        for c in work.raw:
            own = work.lines([c])
            text = tuple(t for i in own for t in terms(work.view.lines[i].said))
            cosine = float(work.cosines(own).max(initial=0.0))
            best[c] = 0.7 * cosine + 0.3 * overlap(work.query.terms, text)
        return _kept(work, {c: s for c, s in best.items() if s >= THRESHOLD}, relevance)

    def deep(self, work: Work) -> Kept:
        """Late interaction of the question's tokens with those of every line; the best chunks stay."""
        lines = work.lines(work.raw)
        scores = combined(work, lines)
        relevance = dict(zip(lines, scores.tolist()))
        best = {c: max(relevance[i] for i in work.lines([c])) for c in work.raw}
        top = sorted(best, key=lambda c: -best[c])[:KEPT]
        return _kept(work, {c: best[c] for c in top}, relevance)

    async def llm(self, work: Work, method: Language, ask: Ask) -> Kept:
        """The model's ratings; passages rated 3 or more of 10 stay."""
        prompts = work.tools.prompts
        passages = "\n\n".join(
            f"Passage {n}:\n" + "\n".join(prompts.quoting.text(work.text(i)) for i in work.lines([c]))
            for n, c in enumerate(work.raw, 1)
        )
        most = 12 * len(work.raw) + 20
        text = await answer(prompts.render("memory_filter"), passages, work.query.text, method, ask, most, prompts)
        rated = ratings(text, range(1, len(work.raw) + 1))
        best = {work.raw[n - 1]: score for n, score in rated.items() if score >= THRESHOLD}
        lines = work.lines(list(best))
        own = dict(zip(lines, spread(work.cosines(lines) + work.shares(lines)).tolist()))
        relevance = {i: (best[c] + own[i]) / 2 for c in best for i in work.lines([c])}
        return _kept(work, best, relevance)


def combined(work: Work, lines: Sequence[int]) -> Vector:
    """Late interaction, cosine and rare terms of each line, together from 0 to 1.

    Tokens are compared for the `COMPARED` lines that look best without; the others stand behind them all.
    """
    if not lines:
        return np.zeros(0, dtype=np.float32)
    plain = _unit(work.cosines(lines)) + _unit(work.shares(lines))
    best = np.argsort(-plain, kind="stable")[:COMPARED]
    scores = spread(plain) - 1
    scores[best] = spread(2 * _unit(work.late([lines[i] for i in best])) + plain[best])
    return np.maximum(scores, 0.0)


def _unit(scores: Vector) -> Vector:
    """Centred, of unit spread, so that scores of different kinds weigh alike."""
    deviation = float(scores.std())
    return (scores - scores.mean()) / deviation if deviation > 1e-6 else np.zeros_like(scores)


def _kept(work: Work, best: dict[int, float], relevance: dict[int, float]) -> Kept:
    order = sorted(best, key=lambda c: -best[c])
    return Kept(tuple(order), {i: relevance[i] for i in work.lines(order)})
