"""`offline/reader`: reads an answer off a memory by word overlap, dressed as a chat model.

It is not a language model: it copies the part of the best line that the question does not hold itself. What it gets
right says how much of an answer a memory spells out, and nothing about how a model would do.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from agentcascade.envs.offline.stand_in import StandIn
from agentcascade.memory.dates import time_expressions
from agentcascade.memory.tokenization import term_overlap, terms
from agentcascade.models.tokens import count_messages
from agentcascade.prompts.additions import rendered
from agentcascade.types import Completion, Message, Tool, Usage

UNKNOWN = "No information available."
LINE = re.compile(r"^(?:- )?(?:\[(?P<day>[^\]]+)\] )?(?:(?P<speaker>[^:\n]{1,40}): )?(?P<text>.*)$")
MEANT = re.compile(r"\((?:[^()]* = )([^();]+)\)\s*$")
CLAUSE = re.compile(r"(?<=[.!?;])\s+|,\s+(?:and|but|so)\s+")
YES_NO = re.compile(r"^(is|are|was|were|do|does|did|has|have|had|can|could|would|will|should)\b", re.IGNORECASE)


class Reader(StandIn):
    """Answers the question of the template ``memory_answer`` from the memory that it was filled with."""

    name = "offline/reader"

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
        tools: Sequence[Tool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        started = time.perf_counter()
        asked = rendered(messages[-1], "memory_answer") if messages else None
        answer = answer_of(asked["memory"], asked["question"]) if asked else UNKNOWN
        usage = Usage(input=count_messages(messages, self._count), output=n * self._count(answer))
        return Completion(
            model=self.name,
            messages=({"role": "assistant", "content": answer},) * n,
            finish_reasons=("stop",) * n,
            usage=usage,
            dollars=self._dollars(usage),
            seconds=time.perf_counter() - started,
        )


def answer_of(memory: str, question: str) -> str:
    """The answer to `question` that stands in `memory`, by the words that they share."""
    asked = terms(question)
    lines = [m for line in memory.splitlines() if line.strip() and (m := LINE.match(line.strip()))]
    if not lines or not asked:
        return UNKNOWN
    best = max(lines, key=lambda m: term_overlap(asked, terms(m.string)))
    if not term_overlap(asked, terms(best.string)):
        return UNKNOWN
    if re.match(r"\s*when\b", question, re.IGNORECASE):
        return _day(best)
    if YES_NO.match(question.strip()):
        return "no" if re.search(r"\b(not|never|no)\b|n['’]t\b", best["text"]) else "yes"
    return _clause(best["text"], asked)


def _day(line: re.Match[str]) -> str:
    meant = MEANT.search(line["text"])
    if meant:
        return meant[1].strip()
    named = [e for e in time_expressions(line["text"]) if any(c.isdigit() for c in e)]
    return named[0] if named else line["day"] or UNKNOWN


def _clause(text: str, asked: tuple[str, ...]) -> str:
    """Of the clause that shares most with the question, the longest run of words that the question does not hold."""
    clauses = [c for c in CLAUSE.split(text) if terms(c)]
    if not clauses:
        return text
    clause = max(clauses, key=lambda c: term_overlap(asked, terms(c)))
    runs: list[list[str]] = [[]]
    for word in clause.split():
        stems = terms(word)
        if stems and set(stems) <= set(asked):
            runs.append([])
        else:
            runs[-1].append(word)
    best = max(runs, key=lambda run: len([w for w in run if terms(w)]))
    return " ".join(best).strip(" ,.!?;") or clause
