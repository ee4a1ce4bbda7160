"""Chat models as methods of the modules: how they are asked, and how their answers are read."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from agentcascade.errors import InvalidAction
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.types import Message

Size = Literal["small", "medium", "large"]
Reasoning = Literal["direct", "cot", "reflect"]


@dataclass(frozen=True)
class Language:
    """A chat model, and how it is made to reason: at once, step by step, or by checking its own draft."""

    size: Size = "large"
    reasoning: Reasoning = "direct"


class Ask(Protocol):
    """Asks a chat model within the question's deadline and dollars; raises what the model raises."""

    async def __call__(self, size: Size, messages: Sequence[Message], max_tokens: int) -> str: ...


async def answer(
    task: str, material: str, question: str, method: Language, ask: Ask, max_tokens: int, prompts: Prompts = DEFAULT
) -> str:
    """What the model gives for `task` on `material`, whose lines are quoted; its thinking is cut away."""
    quoting = prompts.quoting
    if method.reasoning != "direct":
        task = f"{task}\n\n{prompts.render('memory_step_by_step')}"
    content = prompts.render(
        "memory_task",
        history=quoting.fence("history", material, question),
        question=quoting.fence("question", quoting.text(question), question),
        task=task,
    )
    messages: list[Message] = [
        {"role": "system", "content": prompts.render("memory_system")},
        {"role": "user", "content": content},
    ]
    if method.reasoning == "direct":
        return result(await ask(method.size, messages, max_tokens))
    draft = await ask(method.size, messages, 2 * max_tokens)
    if method.reasoning == "cot":
        return result(draft)
    messages += [
        {"role": "assistant", "content": quoting.words(draft)},
        {"role": "user", "content": prompts.render("memory_reflect")},
    ]
    return result(await ask(method.size, messages, 2 * max_tokens))


def result(text: str) -> str:
    """What stands behind the last 'Result:', or all of it."""
    parts = _RESULT.split(text[-LONGEST:])
    return parts[-1].strip()


LONGEST = 100_000
"""Characters of an answer that are read, from its end"""
_RESULT = re.compile(r"^[^\w\n]*result[^\w\n]*:[^\w\n]*?$|^[^\w\n]*result[^\S\n]*:", re.IGNORECASE | re.MULTILINE)
_RATED = re.compile(
    r"^[^\w\n]*(?:passage[^\S\n]*)?([0-9]{1,6})(?![0-9])[^\w\n:=]*[:=][^\w\n]*([0-9]{1,6}(?:\.[0-9]{1,6})?)",
    re.IGNORECASE | re.MULTILINE,
)
REFERENCES = re.compile(r"\[([\d\s,;\-–]+)\]")


def facts(text: str, known: Collection[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Lines such as ``- Ann moved to Rome [3, 7]`` as (text, lines); numbers that were never shown are dropped.

    Raises `InvalidAction` for an empty answer; the word 'none' is no fact.
    """
    if not text.strip():
        raise InvalidAction("the model gave no result")
    found = []
    known = frozenset(known)
    for line in text[-LONGEST:].splitlines():
        plain = re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", line).strip()
        cited = tuple(dict.fromkeys(i for m in REFERENCES.finditer(plain) for i in _numbers(m.group(1))))
        plain = REFERENCES.sub("", plain).strip()
        if plain and plain.casefold().strip(" .") not in ("none", "nothing", "no relevant information"):
            found.append((plain, tuple(i for i in cited if i in known)))
    return found


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in re.split(r"[,;\s]+", text.strip()):
        ends = [int(n) for n in re.split(r"[-–]", part) if n.isdecimal() and len(n) <= 6]
        if len(ends) == 2 and 0 <= ends[1] - ends[0] <= 50:
            found.extend(range(ends[0], ends[1] + 1))
        else:
            found.extend(ends)
    return found


def ratings(text: str, known: Collection[int]) -> dict[int, float]:
    """Lines such as ``3: 8`` as scores from 0 to 1 by number; raises `InvalidAction` where there is none."""
    found, known = {}, frozenset(known)
    for match in _RATED.finditer(text[-LONGEST:]):
        number, score = int(match[1]), float(match[2])
        if number in known:
            found[number] = min(1.0, score / 10)
    if not found:
        raise InvalidAction(f"no line of the answer is 'number: score': {text[:80]!r}")
    return found
