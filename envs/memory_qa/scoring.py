"""How the benchmarks score answers, as their papers' code does, and memories by their evidence."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from agentcascade.envs.memory_qa.types import Question
from agentcascade.memory.tokenization import stemmer

PUNCTUATION = frozenset(string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
LOCOMO_WORDS = re.compile(r"\b(a|an|the|and)\b")
REFUSALS = ("no information available", "not mentioned")


class Evidence(NamedTuple):
    precision: float
    recall: float
    f1: float


def evidence(sources: Collection[str], gold: Collection[str]) -> Evidence:
    """Of the turns that a memory draws on, against those that prove the answer. Without gold all is 0."""
    hits = len(set(sources) & set(gold))
    precision = hits / len(set(sources)) if sources else 0.0
    recall = hits / len(set(gold)) if gold else 0.0
    return Evidence(precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0)


def f1(suite: str, prediction: str, question: Question) -> float:
    """The F1 of the suite's own code, best over the right answers; from 0 to 1."""
    return max((_f1(suite, prediction, answer, question) for answer in question.answers), default=0.0)


def exact_match(suite: str, prediction: str, question: Question) -> bool:
    """Whether the normalised prediction is one of the normalised answers."""
    normal = normalised_locomo if suite == "locomo" else normalised
    if not question.answerable:
        return refuses(prediction)
    return any(normal(prediction) == normal(answer) for answer in question.answers)


def refuses(prediction: str) -> bool:
    """LoCoMo's rule for questions that the conversation does not answer."""
    return any(words in prediction.lower() for words in REFUSALS)


def _f1(suite: str, prediction: str, answer: str, question: Question) -> float:
    if not question.answerable:
        return float(refuses(prediction))
    if suite == "hotpotqa":
        return _hotpot(prediction, answer)
    if suite != "locomo":
        return overlap(normalised(prediction).split(), normalised(answer).split())
    if question.category == "multi-hop":
        return _parts(prediction, answer)
    gold = answer.split(";")[0].strip() if question.category == "open-domain" else answer
    return _stemmed_f1(prediction, gold)


def _parts(prediction: str, answer: str) -> float:
    """Several answers between commas: the mean, over the gold ones, of the best F1 with a predicted one."""
    predicted = [p.strip() for p in prediction.split(",")]
    gold = [g.strip() for g in answer.split(",")]
    return sum(max(_stemmed_f1(p, g) for p in predicted) for g in gold) / len(gold)


def _stemmed_f1(prediction: str, answer: str) -> float:
    stem = stemmer("porter").stemWords  # as LoCoMo does
    return overlap(stem(normalised_locomo(prediction).split()), stem(normalised_locomo(answer).split()))


def _hotpot(prediction: str, answer: str) -> float:
    """HotpotQA's rule: yes, no and noanswer count only whole."""
    said, right = normalised(prediction), normalised(answer)
    if said != right and {said, right} & {"yes", "no", "noanswer"}:
        return 0.0
    return overlap(said.split(), right.split())


def overlap(predicted: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two bags of words; 0.0 where either is empty."""
    same = sum((Counter(predicted) & Counter(gold)).values())
    if not same:
        return 0.0
    precision, recall = same / len(predicted), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def normalised(text: str) -> str:
    """SQuAD's: lower case, no punctuation, no articles, single spaces."""
    plain = "".join(c for c in text.lower() if c not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", plain).split())


def normalised_locomo(text: str) -> str:
    """LoCoMo's: the same without 'and', commas gone first."""
    plain = "".join(c for c in text.replace(",", "").lower() if c not in PUNCTUATION)
    return " ".join(LOCOMO_WORDS.sub(" ", plain).split())


class Facts(NamedTuple):
    """HotpotQA's supporting facts, and answer and facts jointly."""

    em: float
    f1: float
    joint_em: float
    joint_f1: float


def supporting_facts(prediction: str, sources: Collection[str], question: Question) -> Facts:
    """HotpotQA's measures of the facts used; jointly, precisions and recalls of answer and facts are multiplied."""
    found = evidence(sources, question.evidence)
    em = float(set(sources) == set(question.evidence))
    answer = question.answers[0]
    said, right = normalised(prediction).split(), normalised(answer).split()
    same = sum((Counter(said) & Counter(right)).values()) if _hotpot(prediction, answer) else 0
    precision = found.precision * (same / len(said) if said else 0.0)
    recall = found.recall * (same / len(right) if right else 0.0)
    joint = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return Facts(em, found.f1, em * float(exact_match("hotpotqa", prediction, question)), joint)
