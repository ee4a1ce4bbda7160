"""What entity, temporal and topic have in common: they pick lines, or have a model write facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from agentcascade.memory.llm import Ask, Language, answer, facts
from agentcascade.memory.modules.base import Module
from agentcascade.memory.question import Item, Work

if TYPE_CHECKING:
    from agentcascade.memory.types import Vector

MOST = 8
"""Items that one module hands on."""
FACT_TOKENS = 60


class Extraction(Module[list[Item]]):
    task: str
    """Template of what a chat model is asked to list."""

    async def llm(self, work: Work, method: Language, ask: Ask) -> list[Item]:
        lines = work.lines(work.kept)
        if not lines:
            return []
        prompts = work.tools.prompts
        material = "\n".join(f"[{n}] {prompts.quoting.text(work.text(i))}" for n, i in enumerate(lines, 1))
        task = f"{prompts.render(self.task)} {prompts.render('memory_facts', most=str(MOST))}"
        text = await answer(task, material, work.query.text, method, ask, MOST * FACT_TOKENS, prompts)
        found = facts(text, range(1, len(lines) + 1))[:MOST]
        return [
            Item(text, tuple(lines[n - 1] for n in cited), 1 - rank / (2 * MOST))
            for rank, (text, cited) in enumerate(found)
        ]


def picked(work: Work, lines: Sequence[int], scores: Vector, texts: dict[int, str] | None = None) -> list[Item]:
    """The best lines with a score above 0, best first."""
    order = np.argsort(-scores, kind="stable")[:MOST]
    return [
        Item((texts or {}).get(lines[o]) or work.text(lines[o]), (lines[o],), float(min(1.0, scores[o])))
        for o in order
        if scores[o] > 0
    ]
