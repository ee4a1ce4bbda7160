"""Base class of extraction modules (entity, temporal, topic): top-scored lines, or facts that a chat model writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from agentcascade.memory.llm import Ask, ChatMethod, ask_model, parse_facts
from agentcascade.memory.modules.base import Module
from agentcascade.memory.question import MemoryItem, QuestionContext

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

MAX_ITEMS = 8
"""Number of items of one module"""
FACT_TOKENS = 60


class ExtractionModule(Module[list[MemoryItem]]):
    """Extraction module; a subclass names the prompt template of its task."""

    task: str
    """Name of the prompt template of what a chat model is asked to list"""

    async def llm(self, context: QuestionContext, method: ChatMethod, ask: Ask) -> list[MemoryItem]:
        lines = context.lines_of(context.filtered)
        if not lines:
            return []
        prompts = context.small_models.prompts
        material = "\n".join(f"[{n}] {prompts.quoting.text(context.dated_text(i))}" for n, i in enumerate(lines, 1))
        task = f"{prompts.render(self.task)} {prompts.render('memory_facts', most=str(MAX_ITEMS))}"
        text = await ask_model(task, material, context.query.text, method, ask, MAX_ITEMS * FACT_TOKENS, prompts)
        cited_facts = parse_facts(text, range(1, len(lines) + 1))[:MAX_ITEMS]
        return [
            MemoryItem(text, tuple(lines[n - 1] for n in cited), 1 - rank / (2 * MAX_ITEMS))
            for rank, (text, cited) in enumerate(cited_facts)
        ]


def top_items(
    context: QuestionContext, lines: Sequence[int], scores: Vector, texts: dict[int, str] | None = None
) -> list[MemoryItem]:
    """Items of the top-scored lines with a score above 0, best first."""
    order = np.argsort(-scores, kind="stable")[:MAX_ITEMS]
    return [
        MemoryItem((texts or {}).get(lines[o]) or context.dated_text(lines[o]), (lines[o],), float(min(1.0, scores[o])))
        for o in order
        if scores[o] > 0
    ]
