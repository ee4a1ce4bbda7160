"""Summary module: the memory's text from the items that the other modules extracted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from agentcascade.memory.llm import Ask, ChatMethod, ask_model, parse_facts
from agentcascade.memory.modules.base import Module
from agentcascade.memory.modules.filter import combined_scores
from agentcascade.memory.question import MemoryItem, QuestionContext
from agentcascade.types import ModuleName

MAX_FACTS = 6
"""Number of key facts"""
MAX_WORDS = 300
"""Words that a chat model is asked for"""
MAX_TOKENS = 600
"""Tokens of a chat model's answer"""
MIN_VOTE_SHARE = 0.7
"""Share of the best item's votes that a key fact needs"""
MIN_DEEP_SHARE = 0.8
"""Share of the best score that a key fact needs with late interaction"""


class SummaryModule(Module[list[MemoryItem]]):
    name: ModuleName = "summary"
    description = "Writes the memory for the answer from the facts about entities, times and topics found before it."

    def rules(self, context: QuestionContext) -> list[MemoryItem]:
        """All extracted items, in the order of the history."""
        return sorted(_distinct_items(_extracted_items(context)), key=_first_line)

    def models(self, context: QuestionContext) -> list[MemoryItem]:
        """Key facts: items with the most votes of the modules and the filter, down to a share of the best."""
        ranked = sorted(_voted_items(context), key=lambda item: -item.score)
        return [item for item in ranked[:MAX_FACTS] if item.score >= MIN_VOTE_SHARE * ranked[0].score]

    def deep(self, context: QuestionContext) -> list[MemoryItem]:
        """Key facts by votes and late interaction with the question."""
        voted = _voted_items(context)
        lines = sorted({i for item in voted for i in item.lines})
        if not lines:
            return sorted(voted, key=lambda item: -item.score)[:MAX_FACTS]
        late = dict(zip(lines, combined_scores(context, lines).tolist()))
        top = max((item.score for item in voted), default=1.0) or 1.0
        ranked = sorted(
            (
                item._replace(score=0.3 * item.score / top + 0.7 * max((late[i] for i in item.lines), default=0.0))
                for item in voted
            ),
            key=lambda item: -item.score,
        )
        return [item for item in ranked[:MAX_FACTS] if item.score >= MIN_DEEP_SHARE * ranked[0].score]

    async def llm(self, context: QuestionContext, method: ChatMethod, ask: Ask) -> list[MemoryItem]:
        items = self.rules(context)
        if not items:
            return []
        prompts = context.small_models.prompts
        material = "\n".join(f"[{n}] {prompts.quoting.text(item.text)}" for n, item in enumerate(items, 1))
        summary = prompts.render("memory_summary", words=str(MAX_WORDS))
        task = f"{summary} {prompts.render('memory_facts', most=str(2 * MAX_FACTS))}"
        text = await ask_model(task, material, context.query.text, method, ask, MAX_TOKENS, prompts)
        cited_facts = parse_facts(text, range(1, len(items) + 1))
        return [
            MemoryItem(
                text,
                tuple(dict.fromkeys(i for n in cited for i in items[n - 1].lines)),
                1 - rank / (2 + len(cited_facts)),
            )
            for rank, (text, cited) in enumerate(cited_facts)
        ]


def _extracted_items(context: QuestionContext) -> Iterable[MemoryItem]:
    return (item for items in context.extracted.values() for item in items)


def _first_line(item: MemoryItem) -> int:
    return min(item.lines, default=1 << 60)


def _distinct_items(items: Iterable[MemoryItem]) -> list[MemoryItem]:
    """One item a line, with its longest text (which has the dates); facts of a model all stay."""
    best: dict[object, MemoryItem] = {}
    for item in items:
        key = item.lines[0] if len(item.lines) == 1 else item.text
        if key not in best or len(item.text) > len(best[key].text):
            best[key] = item
    return list(best.values())


def _voted_items(context: QuestionContext) -> list[MemoryItem]:
    """Distinct items, scored by the sum of their scores over the modules and the filter's relevance of their lines."""
    votes: dict[object, float] = defaultdict(float)
    for item in _extracted_items(context):
        votes[item.lines or item.text] += item.score
    voted = []
    for item in _distinct_items(_extracted_items(context)):
        relevance = float(np.mean([context.relevance.get(i, 0.0) for i in item.lines])) if item.lines else 0.5
        voted.append(item._replace(score=votes[item.lines or item.text] + relevance))
    return voted
