"""Score answers as the benchmarks' own code does, and memories by their evidence."""

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


class EvidenceScore(NamedTuple):
    """Precision, recall and F1 of a memory's sources."""

    precision: float
    recall: float
    f1: float


def score_evidence(sources: Collection[str], gold: Collection[str]) -> EvidenceScore:
    """Score the turns that a memory draws on against those that prove the answer. Without gold all is 0."""
    hits = len(set(sources) & set(gold))
    precision = hits / len(set(sources)) if sources else 0.0
    recall = hits / len(set(gold)) if gold else 0.0
    return EvidenceScore(precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0)


def answer_f1(suite: str, prediction: str, question: Question) -> float:
    """The F1 of the suite's own code, best over the right answers; from 0 to 1."""
    return max((_f1(suite, prediction, answer, question) for answer in question.answers), default=0.0)


def exact_match(suite: str, prediction: str, question: Question) -> bool:
    """Whether the normalised prediction is one of the normalised answers."""
    normal = normalise_locomo if suite == "locomo" else normalise_squad
    if not question.answerable:
        return refuses(prediction)
    return any(normal(prediction) == normal(answer) for answer in question.answers)


def refuses(prediction: str) -> bool:
    """Whether a prediction refuses to answer, by LoCoMo's rule for unanswerable questions."""
    return any(words in prediction.lower() for words in REFUSALS)


def _f1(suite: str, prediction: str, answer: str, question: Question) -> float:
    if not question.answerable:
        return float(refuses(prediction))
    if suite == "hotpotqa":
        return _hotpot(prediction, answer)
    if suite != "locomo":
        return token_f1(normalise_squad(prediction).split(), normalise_squad(answer).split())
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
    return token_f1(stem(normalise_locomo(prediction).split()), stem(normalise_locomo(answer).split()))


def _hotpot(prediction: str, answer: str) -> float:
    """HotpotQA's rule: yes, no and noanswer count only whole."""
    predicted, right = normalise_squad(prediction), normalise_squad(answer)
    if predicted != right and {predicted, right} & {"yes", "no", "noanswer"}:
        return 0.0
    return token_f1(predicted.split(), right.split())


def token_f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two bags of words; 0.0 where either is empty."""
    same = sum((Counter(predicted) & Counter(gold)).values())
    if not same:
        return 0.0
    precision, recall = same / len(predicted), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def normalise_squad(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces."""
    plain = "".join(c for c in text.lower() if c not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", plain).split())


def normalise_locomo(text: str) -> str:
    """LoCoMo's normalisation: as SQuAD's, also without 'and', commas removed first."""
    plain = "".join(c for c in text.replace(",", "").lower() if c not in PUNCTUATION)
    return " ".join(LOCOMO_WORDS.sub(" ", plain).split())


class SupportingFacts(NamedTuple):
    """HotpotQA's scores of supporting facts, and of answer and facts jointly."""

    em: float
    f1: float
    joint_em: float
    joint_f1: float


def score_supporting_facts(prediction: str, sources: Collection[str], question: Question) -> SupportingFacts:
    """Score supporting facts as HotpotQA does; jointly, precisions and recalls of answer and facts are multiplied."""
    facts = score_evidence(sources, question.evidence)
    em = float(set(sources) == set(question.evidence))
    answer = question.answers[0]
    predicted, right = normalise_squad(prediction).split(), normalise_squad(answer).split()
    same = sum((Counter(predicted) & Counter(right)).values()) if _hotpot(prediction, answer) else 0
    precision = facts.precision * (same / len(predicted) if predicted else 0.0)
    recall = facts.recall * (same / len(right) if right else 0.0)
    joint = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return SupportingFacts(em, facts.f1, em * float(exact_match("hotpotqa", prediction, question)), joint)
