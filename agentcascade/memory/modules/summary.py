"""The memory itself: what the other modules found, made one text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from agentcascade.memory.llm import Ask, Language, answer, facts
from agentcascade.memory.modules.base import Module
from agentcascade.memory.modules.filter import combined
from agentcascade.memory.question import Item, Work
from agentcascade.types import ModuleName

FACTS = 6
"""Key facts at most."""
WORDS, TOKENS = 300, 600
"""Of a memory that a chat model writes: what it is asked for, and what its answer may take."""
CLOSE = 0.7
"""A key fact has at least this share of the best one's votes."""
SURE = 0.8
"""Of the best score, for the lines that stay when every token was compared."""


class Summary(Module[list[Item]]):
    name: ModuleName = "summary"
    description = "Writes the memory for the answer from the facts about entities, times and topics found before it."

    def rules(self, work: Work) -> list[Item]:
        """Everything that was found, in the order of the history."""
        return sorted(_distinct(_all(work)), key=_place)

    def models(self, work: Work) -> list[Item]:
        """Key facts: what several modules found and the filter liked, best first, down to a share of the best."""
        ranked = sorted(_votes(work), key=lambda item: -item.score)
        return [item for item in ranked[:FACTS] if item.score >= CLOSE * ranked[0].score]

    def deep(self, work: Work) -> list[Item]:
        """The few key facts that stand out when every token of the question is compared with theirs."""
        voted = _votes(work)
        lines = sorted({i for item in voted for i in item.lines})
        if not lines:
            return sorted(voted, key=lambda item: -item.score)[:FACTS]
        late = dict(zip(lines, combined(work, lines).tolist()))
        top = max((item.score for item in voted), default=1.0) or 1.0
        ranked = sorted(
            (
                item._replace(score=0.3 * item.score / top + 0.7 * max((late[i] for i in item.lines), default=0.0))
                for item in voted
            ),
            key=lambda item: -item.score,
        )
        return [item for item in ranked[:FACTS] if item.score >= SURE * ranked[0].score]

    async def llm(self, work: Work, method: Language, ask: Ask) -> list[Item]:
        items = self.rules(work)
        if not items:
            return []
        prompts = work.tools.prompts
        material = "\n".join(f"[{n}] {prompts.quoting.text(item.text)}" for n, item in enumerate(items, 1))
        asked = prompts.render("memory_summary", words=str(WORDS))
        task = f"{asked} {prompts.render('memory_facts', most=str(2 * FACTS))}"
        text = await answer(task, material, work.query.text, method, ask, TOKENS, prompts)
        found = facts(text, range(1, len(items) + 1))
        return [
            Item(text, tuple(dict.fromkeys(i for n in cited for i in items[n - 1].lines)), 1 - rank / (2 + len(found)))
            for rank, (text, cited) in enumerate(found)
        ]


def _all(work: Work) -> Iterable[Item]:
    return (item for items in work.found.values() for item in items)


def _place(item: Item) -> int:
    return min(item.lines, default=1 << 60)


def _distinct(items: Iterable[Item]) -> list[Item]:
    """One item a line, the longest text of it (which has the dates); facts of a model all stay."""
    best: dict[object, Item] = {}
    for item in items:
        key = item.lines[0] if len(item.lines) == 1 else item.text
        if key not in best or len(item.text) > len(best[key].text):
            best[key] = item
    return list(best.values())


def _votes(work: Work) -> list[Item]:
    """Distinct items, each with the sum of its scores over the modules and the filter's opinion of its lines."""
    votes: dict[object, float] = defaultdict(float)
    for item in _all(work):
        votes[item.lines or item.text] += item.score
    found = []
    for item in _distinct(_all(work)):
        liked = float(np.mean([work.relevance.get(i, 0.0) for i in item.lines])) if item.lines else 0.5
        found.append(item._replace(score=votes[item.lines or item.text] + liked))
    return found
