"""Filter module: which of the retrieved chunks the other modules read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agentcascade.memory.llm import Ask, ChatMethod, ask_model, parse_ratings
from agentcascade.memory.modules.base import Module
from agentcascade.memory.question import QuestionContext, min_max_scaled
from agentcascade.memory.tokenization import term_overlap, terms
from agentcascade.types import ModuleName

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

THRESHOLD = 0.3
"""BudgetMem, section "filter": 0.7 × cosine + 0.3 × share of keywords must reach this."""
MAX_CHUNKS = 5
MAX_COMPARED_LINES = 24
"""Number of lines that late interaction compares"""


class FilteredChunks(NamedTuple):
    """Chunks that the filter kept, and the relevance of their lines."""

    chunks: tuple[int, ...]
    """Best first"""
    relevance: dict[int, float]
    """By line, from 0 to 1"""


class FilterModule(Module[FilteredChunks]):
    name: ModuleName = "filter"
    description = "Decides which of the retrieved passages of the history bear on the question and drops the others."

    def rules(self, context: QuestionContext) -> FilteredChunks:
        """Chunks that share a term with the question, by inverse document frequency."""
        lines = context.lines_of(context.retrieved)
        shares = dict(zip(lines, context.term_shares(lines).tolist()))
        best = {c: max(shares[i] for i in context.lines_of([c])) for c in context.retrieved}
        return _filtered(context, {c: s for c, s in best.items() if s > 0}, shares)

    def models(self, context: QuestionContext) -> FilteredChunks:
        """Mean of cosine and keyword share, above the paper's threshold."""
        lines = context.lines_of(context.retrieved)
        scores = 0.7 * context.cosines(lines) + 0.3 * context.term_shares(lines)
        relevance = dict(zip(lines, scores.tolist()))
        best = {}
        for c in context.retrieved:
            chunk_lines = context.lines_of([c])
            text = tuple(t for i in chunk_lines for t in terms(context.history.lines[i].said))
            cosine = float(context.cosines(chunk_lines).max(initial=0.0))
            best[c] = 0.7 * cosine + 0.3 * term_overlap(context.query.terms, text)
        return _filtered(context, {c: s for c, s in best.items() if s >= THRESHOLD}, relevance)

    def deep(self, context: QuestionContext) -> FilteredChunks:
        """Late interaction of the question's tokens with those of every line; the best chunks stay."""
        lines = context.lines_of(context.retrieved)
        scores = combined_scores(context, lines)
        relevance = dict(zip(lines, scores.tolist()))
        best = {c: max(relevance[i] for i in context.lines_of([c])) for c in context.retrieved}
        top = sorted(best, key=lambda c: -best[c])[:MAX_CHUNKS]
        return _filtered(context, {c: best[c] for c in top}, relevance)

    async def llm(self, context: QuestionContext, method: ChatMethod, ask: Ask) -> FilteredChunks:
        """The model's ratings; passages rated 3 or more of 10 stay."""
        prompts = context.small_models.prompts
        passages = "\n\n".join(
            f"Passage {n}:\n" + "\n".join(prompts.quoting.text(context.dated_text(i)) for i in context.lines_of([c]))
            for n, c in enumerate(context.retrieved, 1)
        )
        most = 12 * len(context.retrieved) + 20
        task = prompts.render("memory_filter")
        text = await ask_model(task, passages, context.query.text, method, ask, most, prompts)
        rated = parse_ratings(text, range(1, len(context.retrieved) + 1))
        best = {context.retrieved[n - 1]: score for n, score in rated.items() if score >= THRESHOLD}
        lines = context.lines_of(list(best))
        direct = dict(zip(lines, min_max_scaled(context.cosines(lines) + context.term_shares(lines)).tolist()))
        relevance = {i: (best[c] + direct[i]) / 2 for c in best for i in context.lines_of([c])}
        return _filtered(context, best, relevance)


def combined_scores(context: QuestionContext, lines: Sequence[int]) -> Vector:
    """Scores (lines,) from 0 to 1 of late interaction, cosine and term share together.

    Late interaction is computed for the `MAX_COMPARED_LINES` lines that score best without; the others rank behind.
    """
    if not lines:
        return np.zeros(0, dtype=np.float32)
    plain = _standardized(context.cosines(lines)) + _standardized(context.term_shares(lines))
    best = np.argsort(-plain, kind="stable")[:MAX_COMPARED_LINES]
    scores = min_max_scaled(plain) - 1
    scores[best] = min_max_scaled(2 * _standardized(context.late_interaction([lines[i] for i in best])) + plain[best])
    return np.maximum(scores, 0.0)


def _standardized(scores: Vector) -> Vector:
    """Standardized scores (mean 0, deviation 1), so that scores of different kinds weigh alike."""
    deviation = float(scores.std())
    return (scores - scores.mean()) / deviation if deviation > 1e-6 else np.zeros_like(scores)


def _filtered(context: QuestionContext, best: dict[int, float], relevance: dict[int, float]) -> FilteredChunks:
    order = sorted(best, key=lambda c: -best[c])
    return FilteredChunks(tuple(order), {i: relevance[i] for i in context.lines_of(order)})
