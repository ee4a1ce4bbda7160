"""English tokenization without a model: stems, stop words, proper names and phrases."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from agentcascade.errors import MissingExtra

WORD = re.compile(r"[A-Za-z0-9]+(?:['’][A-Za-z]+)?")
NAME = re.compile(r"[A-Z][\w'’]*(?:\s+(?:(?:of|the|de|and)\s+)?[A-Z][\w'’]*)*")

CACHED_LINES = 10_000
"""Lines whose terms and names are remembered: up to 12 KB each"""

_COMMON = """
a about after again all also am an and any are as at be because been before being both but by can could did do
does doing down during each few for from further get gets got had has have having he her here hers him his how i
if in into is it its just let like me mine more most much my no nor not now of off oh ok on once only or other our
ours out over own really same she should so some such than that the their theirs them then there these they this
those through to too under until up very was we were what when where which while who whom whose why will with
would yeah yes you your yours im ive id dont didnt doesnt isnt wasnt hey hi wow thanks thank
"""
STOPWORDS = frozenset(_COMMON.split())


@lru_cache(maxsize=4)
def stemmer(algorithm: str = "english") -> Any:
    """Snowball's stemmer of that name; ``porter`` is Porter's own."""
    try:
        import Stemmer
    except ImportError as error:
        raise MissingExtra("PyStemmer", "memory", "memory of histories") from error
    return Stemmer.Stemmer(algorithm)


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    stemmed: str = stemmer().stemWord(word)
    return stemmed


@lru_cache(maxsize=CACHED_LINES)
def terms(text: str) -> tuple[str, ...]:
    """Stems of the words that are no stop words, in order, repeats included."""
    words = (w.casefold().replace("’", "'").removesuffix("'s").replace("'", "") for w in WORD.findall(text))
    return tuple(stem(w) for w in words if w not in STOPWORDS)


@lru_cache(maxsize=CACHED_LINES)
def term_set(text: str) -> frozenset[str]:
    """Set of `terms`."""
    return frozenset(terms(text))


@lru_cache(maxsize=CACHED_LINES)
def proper_names(text: str) -> frozenset[str]:
    """Capitalised words and runs of them, casefolded; the first word of a sentence only where it is no common word."""
    names = set()
    for match in NAME.finditer(text):
        for word in match.group().split():
            plain = word.casefold().replace("’", "'").removesuffix("'s").strip("'")
            if len(plain) > 1 and plain.replace("'", "") not in STOPWORDS:
                names.add(plain)
    return frozenset(names)


def content_phrases(question: str) -> list[str]:
    """Phrases between stop words: "When did Ann see the old town?" has "Ann see", "old town"."""
    phrases: list[str] = []
    run: list[str] = []
    for word in [*WORD.findall(question), ""]:
        if word and word.casefold().replace("’", "'").replace("'", "") not in STOPWORDS:
            run.append(word)
        elif run:
            phrases.append(" ".join(run))
            run = []
    return phrases


def term_overlap(question: tuple[str, ...], text: tuple[str, ...]) -> float:
    """Keyword overlap: share of the question's distinct terms that the text has; 0.0 for a question without any."""
    wanted = set(question)
    return len(wanted & set(text)) / len(wanted) if wanted else 0.0
