"""Score of a verifier's answer: its probability of "yes" by the log-probabilities, or its number from 0 to 10.

What was thought before counts for nothing: the verdict is the last one, behind a thinking block. An answer that holds
none, or one whose log-probabilities are nonsense, has no score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import exp, isfinite
from typing import Any

from agentcascade.prompts import yes_no

MOST = 20
"""Likely tokens that are read of a position; providers tell no more."""
CHARACTERS = 4_000
"""Of an answer's end that are looked at."""
TOKENS = 4_000
"""Likewise, of its tokens."""
MARKS = " \t\r\n*_`\"'“”‘’.,:;!?()[]{}#>▁ĠĊ"
"""Around a word: markup, and how tokenizers write a blank and a line's end."""
END_OF_THOUGHTS = re.compile(r".*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
VERDICT = re.compile(r"\bverdict\b[\s*_`\"':=-]*(yes|no)\b", re.IGNORECASE)
SCORE = re.compile(r"\b(?:score|rating|verdict)\b[\s*_`\"':=-]*(\d{1,3}(?:\.\d{1,4})?)(?!\d|\.\d|\s*%)", re.IGNORECASE)
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
    for token in reversed(tokens[-TOKENS:]):
        if _word(_field(token, "token")) == said:
            return _probability(token, said)
    return None


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


def _spoken(text: str) -> str:
    """The answer's end, without a block of thoughts; one that is not closed is all thoughts."""
    text = text[-CHARACTERS:]
    behind = END_OF_THOUGHTS.sub("", text, count=1)
    if behind is text and re.match(r"\s*<think", text, re.IGNORECASE):
        return ""
    return behind.strip()


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
    return round(min(1.0, max(0.0, yes / (yes + no))), 6)


def _share(logprob: Any) -> float | None:
    """The probability; a little above 1 is rounding."""
    if isinstance(logprob, bool) or not isinstance(logprob, (int, float)) or not isfinite(logprob) or logprob > 0.01:
        return None
    return exp(min(0.0, float(logprob)))


def _word(token: Any) -> str:
    return token.strip(MARKS).casefold() if isinstance(token, str) and len(token) <= 40 else ""


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
