"""Chat models as methods of memory modules: prompts with chain of thought or reflection, and their answers parsed."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from agentcascade.errors import InvalidAction
from agentcascade.memory import refine
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.types import Message

Size = Literal["small", "medium", "large"]
Reasoning = Literal["direct", "cot", "reflect", "refine"]


@dataclass(frozen=True)
class ChatMethod:
    """Method ``llm:SIZE:REASONING``: which chat model; asked directly, step by step, with reflection, or to refine."""

    size: Size = "large"
    reasoning: Reasoning = "direct"


class Ask(Protocol):
    """Asks a chat model within the question's budget; raises what the model raises."""

    async def __call__(self, size: Size, messages: Sequence[Message], max_tokens: int) -> str: ...


async def ask_model(
    task: str, material: str, question: str, method: ChatMethod, ask: Ask, max_tokens: int, prompts: Prompts = DEFAULT
) -> str:
    """Ask a chat model for `task` on `material`, whose lines are quoted; returns its result without its reasoning."""
    if method.reasoning == "refine":
        return await _refined(task, material, question, method, ask, max_tokens, prompts)
    if method.reasoning != "direct":
        task = f"{task}\n\n{prompts.render('memory_step_by_step')}"
    messages = _messages(task, material, question, prompts)
    if method.reasoning == "direct":
        return extract_result(await ask(method.size, messages, max_tokens))
    draft = await ask(method.size, messages, 2 * max_tokens)
    if method.reasoning == "cot":
        return extract_result(draft)
    messages += [
        {"role": "assistant", "content": prompts.quoting.words(draft)},
        {"role": "user", "content": prompts.render("memory_reflect")},
    ]
    return extract_result(await ask(method.size, messages, 2 * max_tokens))


async def _refined(
    task: str, material: str, question: str, method: ChatMethod, ask: Ask, max_tokens: int, prompts: Prompts
) -> str:
    """Drafts side by side, distilled, and refined in one more call."""

    async def draft(way: str) -> str:
        way_of_it = prompts.render(way)
        messages = _messages(f"{task}\n\n{way_of_it}" if way_of_it else task, material, question, prompts)
        return extract_result(await ask(method.size, messages, 2 * max_tokens))

    lines = refine.distilled(await refine.drafted(draft), refine.CHARACTERS * max_tokens)
    messages = _messages(task, material, question, prompts)
    quoted = prompts.quoting.fence("drafts", prompts.quoting.text(lines), question)
    messages[-1]["content"] += "\n\n" + prompts.render("memory_refine", drafts=quoted)
    return extract_result(await ask(method.size, messages, 2 * max_tokens))


def _messages(task: str, material: str, question: str, prompts: Prompts) -> list[Message]:
    quoting = prompts.quoting
    content = prompts.render(
        "memory_task",
        history=quoting.fence("history", material, question),
        question=quoting.fence("question", quoting.text(question), question),
        task=task,
    )
    return [
        {"role": "system", "content": prompts.render("memory_system")},
        {"role": "user", "content": content},
    ]


def extract_result(text: str) -> str:
    """The text after the last 'Result:', or all of it."""
    parts = _RESULT.split(text[-MAX_ANSWER_CHARACTERS:])
    return parts[-1].strip()


MAX_ANSWER_CHARACTERS = 100_000
"""Characters of an answer that are read, from its end"""
_RESULT = re.compile(r"^[^\w\n]*result[^\w\n]*:[^\w\n]*?$|^[^\w\n]*result[^\S\n]*:", re.IGNORECASE | re.MULTILINE)
_RATED = re.compile(
    r"^[^\w\n]*(?:passage[^\S\n]*)?([0-9]{1,6})(?![0-9])[^\w\n:=]*[:=][^\w\n]*([0-9]{1,6}(?:\.[0-9]{1,6})?)",
    re.IGNORECASE | re.MULTILINE,
)
REFERENCES = re.compile(r"\[([\d\s,;\-–]+)\]")


def parse_facts(text: str, known: Collection[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Parse lines such as ``- Ann moved to Rome [3, 7]`` into (text, cited lines).

    Citations of lines that are not `known` are dropped, and so is the word 'none'. Raises `InvalidAction` for an empty
    answer.
    """
    if not text.strip():
        raise InvalidAction("the model gave no result")
    cited_facts = []
    known = frozenset(known)
    for line in text[-MAX_ANSWER_CHARACTERS:].splitlines():
        plain = re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", line).strip()
        cited = tuple(dict.fromkeys(i for m in REFERENCES.finditer(plain) for i in _parse_references(m.group(1))))
        plain = REFERENCES.sub("", plain).strip()
        if plain and plain.casefold().strip(" .") not in ("none", "nothing", "no relevant information"):
            cited_facts.append((plain, tuple(i for i in cited if i in known)))
    return cited_facts


def _parse_references(text: str) -> list[int]:
    numbers: list[int] = []
    for part in re.split(r"[,;\s]+", text.strip()):
        ends = [int(n) for n in re.split(r"[-–]", part) if n.isdecimal() and len(n) <= 6]
        if len(ends) == 2 and 0 <= ends[1] - ends[0] <= 50:
            numbers.extend(range(ends[0], ends[1] + 1))
        else:
            numbers.extend(ends)
    return numbers


def parse_ratings(text: str, known: Collection[int]) -> dict[int, float]:
    """Parse lines such as ``3: 8`` into scores from 0 to 1 by number; raises `InvalidAction` where there is none."""
    scores, known = {}, frozenset(known)
    for match in _RATED.finditer(text[-MAX_ANSWER_CHARACTERS:]):
        number, score = int(match[1]), float(match[2])
        if number in known:
            scores[number] = min(1.0, score / 10)
    if not scores:
        raise InvalidAction(f"no line of the answer is 'number: score': {text[:80]!r}")
    return scores
