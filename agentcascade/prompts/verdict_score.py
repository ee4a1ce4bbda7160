"""Score of a verifier's answer: its probability of "yes" by the log-probabilities, or its number from 0 to 10.

What was thought before counts for nothing: the verdict is the last one, behind a thinking block. An answer that holds
none, or one whose log-probabilities are nonsense, has no score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

from agentcascade.prompts import yes_no

MOST = 20
"""Likely tokens that are read of a position; providers tell no more."""
MOST_LOGPROB = 1e6
"""Its size, at most; OpenAI says -9999 of what is very unlikely."""
CHARACTERS = 4_000
"""Of an answer's end that are looked at."""
TOKENS = 4_000
"""Likewise, of its tokens."""
MARKS = " \t\r\n*_`\"'“”‘’.,:;!?()[]{}#>▁ĠĊ"
"""Around a word: markup, and how tokenizers write a blank and a line's end."""
THOUGHTS = re.compile(r"\s*<think", re.IGNORECASE)
END_OF_THOUGHTS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
VERDICT = re.compile(r"\bverdict\b[\s*_`\"':=-]*(yes|no)\b(?!\s*(?:or\b|/|\|))", re.IGNORECASE)
"""Not where the question is said again: "Verdict: yes or no?"."""
SCORE = re.compile(
    r"\b(?:score|rating|verdict)\b[\s*_`\"':=-]*(?<!-)(\d{1,3}(?:\.\d{1,4})?)(?![\de]|[.,]\d|\s*%|\s*/(?!\s*10\b))",
    re.IGNORECASE,
)
"""Of 10: neither a percentage, nor of another scale, nor below 0."""
NUMBER = re.compile(r"[\s*_`\"']*(\d{1,3}(?:\.\d{1,4})?)(?:\s*/\s*10)?[\s*_`\"'.]*")


def yes_probability(text: str, tokens: Any) -> float | None:
    """The probability of yes against no where the answer gives its verdict; None where that cannot be told.

    Args:
        text: The answer.
        tokens: Of the answer, as OpenAI's ``logprobs.content`` has them: token, logprob, top_logprobs.

    >>> yes_probability("yes", [{"token": "yes", "logprob": -0.105, "top_logprobs": []}])
    0.900325
    """
    said = verdict(text)
    if said is None or not isinstance(tokens, Sequence) or isinstance(tokens, str):
        return None
    words = [token for token in tokens[-TOKENS:] if _word(_field(token, "token")) == said]
    behind = _said_behind(_spoken(text), said)
    return _probability(words[max(0, len(words) - 1 - behind)], said) if words else None


def scale_score(text: str) -> float | None:
    """The number from 0 to 10 that the answer ends in, as a share of 10; None where there is none.

    >>> scale_score("It joins on the wrong column.\\nScore: 3"), scale_score("8/10"), scale_score("11")
    (0.3, 0.8, None)
    """
    text = _spoken(text)
    labelled = list(SCORE.finditer(text))
    found = labelled[-1] if labelled else NUMBER.fullmatch(text) or NUMBER.fullmatch(text.split("\n")[-1])
    if found is None:
        return None
    score = float(found[1]) / 10
    return score if score <= 1 else None


def verdict(text: str) -> str | None:
    """``yes`` or ``no``, the last that the answer gives as its verdict."""
    text = _spoken(text)
    labelled = VERDICT.findall(text)
    if labelled:
        return str(labelled[-1]).casefold()
    plain = yes_no.verdict(text)
    return None if plain is None else "yes" if plain else "no"


def _said_behind(text: str, said: str) -> int:
    """How often the verdict's word is said once more behind it, as in "Verdict: no. There is no such column"."""
    words = [found.start() for found in re.finditer(rf"\b{said}\b", text, re.IGNORECASE)]
    labelled = [found.start(1) for found in VERDICT.finditer(text)]
    lines = [found.start(1) for form in (yes_no.ALONE, yes_no.SAID) for found in form.finditer(text)]
    if labelled:
        place = labelled[-1]
    elif words and not text[: words[0]].strip(MARKS):
        place = words[0]
    else:
        place = max(lines, default=len(text))
    return sum(word > place for word in words)


def _spoken(text: str) -> str:
    """The answer's end, without a block of thoughts; one that is not closed is all thoughts."""
    ends = [found.end() for found in END_OF_THOUGHTS.finditer(text)]
    if not ends and THOUGHTS.match(text):
        return ""
    return text[ends[-1] if ends else 0 :][-CHARACTERS:].strip()


def _probability(token: Any, said: str) -> float | None:
    """Of yes against no at one position. What is not among the likely tokens has at most what they leave."""
    own = _share(_field(token, "logprob"))
    if own is None:
        return None
    likely = _field(token, "top_logprobs")
    shares = {"yes": 0.0, "no": 0.0}
    listed, least = 0.0, 1.0
    for other in likely[:MOST] if isinstance(likely, Sequence) and not isinstance(likely, str) else ():
        share = _share(_field(other, "logprob"))
        if share is None:
            return None
        listed, least = listed + share, min(least, share)
        word = _word(_field(other, "token"))
        if word in shares:
            shares[word] += share
    shares[said] = max(shares[said], own)
    listed = max(listed, own)
    for word in shares:
        if not shares[word]:
            shares[word] = min(least, max(0.0, 1.0 - listed))
    yes, no = shares["yes"], shares["no"]
    if not yes + no:
        return None
    return round(min(1.0, max(0.0, yes / (yes + no))), 6)


def _share(logprob: Any) -> float | None:
    """The probability; a little above 1 is rounding."""
    if isinstance(logprob, bool) or not isinstance(logprob, (int, float)) or not -MOST_LOGPROB <= logprob <= 0.01:
        return None
    return exp(min(0.0, float(logprob)))


def _word(token: Any) -> str:
    return token.strip(MARKS).casefold() if isinstance(token, str) and len(token) <= 40 else ""


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
