"""Read a yes-or-no verdict off a model's answer, where it says one; an unclear answer is no verdict."""

from __future__ import annotations

import re

THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
MARKUP = " \t*_`\"'“”‘’([{#>"
FIRST = re.compile(r"(yes|no)\b(?P<stop>\s*(?:[.,;:!)\]}*_`\"'”’—–-]|\n|\Z))?", re.IGNORECASE)
SAID = re.compile(
    r"\b(?:answer|verdict|judg(?:e?ment)|result|conclusion|decision)\b[\s*_`\"']*(?:is|:|=)?[\s*_`\"':]*(yes|no)\b"
    r"(?=[\s*_`\"'.!)\]}]*(?:\n|\Z))",
    re.IGNORECASE,
)
END_OF_THOUGHTS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
ALONE = re.compile(r"(?m)(?:^[\s*_`\"'>#(\[-]*|[:–—][\s*_`\"']*)(yes|no)[\s*_`\"'.!)\]]*$", re.IGNORECASE)
CHARACTERS = 4000
"""Of an answer's beginning and end that are looked at."""


def verdict(answer: str) -> bool | None:
    """True or False where the answer says so: with its first word, in a line of its own, or as "the answer is …".

    A first word decides; words inside sentences count for nothing ("Yes. There is no doubt", "No. A yes would need a
    mug"). None where it begins otherwise and its lines say both, or neither. Where thoughts end that never began, as
    their opening tag was part of the prompt, what is behind them decides, unless what is before it says the other word:
    a quoted tag must not turn a verdict.
    """
    text = THINKING.sub("", answer[:CHARACTERS] + ("\n" + answer[-CHARACTERS:] if len(answer) > CHARACTERS else ""))
    before, *parts = END_OF_THOUGHTS.split(text)
    if not parts:
        return _said(text)
    said = _said(parts[-1])
    return said if _said(before) in (None, said) else None


def _said(text: str) -> bool | None:
    text = text.strip().lstrip(MARKUP)
    labelled = re.match(r"(?:final\s+)?(?:answer|verdict)[\s*_`\"']*[:=-][\s*_`\"']*", text, re.IGNORECASE)
    text = text[labelled.end() :].lstrip(MARKUP) if labelled else text
    first = FIRST.match(text)
    if first and (first["stop"] is not None or _only(text, first[1])):
        return first[1].casefold() == "yes"
    said = {m[1].casefold() for pattern in (ALONE, SAID) for m in pattern.finditer(text)}
    return said == {"yes"} if len(said) == 1 else None


def _only(text: str, word: str) -> bool:
    """Whether the other word occurs nowhere: "Yes the mug is there", but not "No doubt"."""
    if re.match(r"no\s+(?:doubts?|questions?|problems?|issues?|errors?|wonder|need)\b", text, re.IGNORECASE):
        return False
    other = "no" if word.casefold() == "yes" else "yes"
    return re.search(rf"\b{other}\b", text, re.IGNORECASE) is None
