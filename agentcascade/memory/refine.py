"""Parallel-distill-refine: the method ``llm:SIZE:refine`` of memory modules, a High tier of the axis `reasoning`.

Drafts are asked for side by side, each for the same result in another way; their distinct lines become a workspace of
bounded size, those that most drafts have first; one more call refines it against the history ("Rethinking Thinking
Tokens: LLMs as Improvement Operators", parallel-distill-refine). A draft that does not come is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

WAYS = ("memory_direct", "memory_step_by_step", "memory_backwards")
"""Templates of how each draft is to be made: a memory's models answer at temperature 0."""
CHARACTERS = 8
"""Of the workspace, for each token that a result may have: about two results."""


async def drafted(ask: Callable[[str], Awaitable[str]]) -> list[str]:
    """Results of the drafts, one for each of `WAYS` that was answered. Raises what the first raised where none was."""
    answers = await asyncio.gather(*(ask(way) for way in WAYS), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, Exception):
            raise answer
    given = [answer for answer in answers if isinstance(answer, str)]
    if not given:
        raise next(answer for answer in answers if isinstance(answer, Exception))
    return given


def distilled(drafts: Sequence[str], characters: int) -> str:
    """The distinct lines of the drafts, of which those come first that most drafts have; as many as fit.

    >>> print(distilled(["Ann lives in Rome.\\nBob is ill.", "- bob is ill", "Bob is ill.\\nAnn is 30."], 45))
    Bob is ill.
    Ann lives in Rome.
    Ann is 30.
    """
    texts: dict[str, str] = {}
    counts: dict[str, int] = {}
    for draft in drafts:
        lines = {_folded(line): line.strip() for line in draft.splitlines() if _folded(line)}
        for key, line in lines.items():
            texts.setdefault(key, line)
            counts[key] = counts.get(key, 0) + 1
    kept: list[str] = []
    for key in sorted(texts, key=lambda key: -counts[key]):
        if len(texts[key]) + 1 <= characters:
            kept.append(texts[key])
            characters -= len(texts[key]) + 1
    return "\n".join(kept)


def _folded(line: str) -> str:
    return " ".join(line.casefold().strip(" \t-*•.").split())
