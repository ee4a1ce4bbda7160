"""Answers scored as the benchmarks' own code does; hand-computed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.envs.memory_qa.judging import judge_answer, parse_judgement
from agentcascade.envs.memory_qa.scoring import (
    answer_f1,
    exact_match,
    refuses,
    score_evidence,
    score_supporting_facts,
    token_f1,
)
from agentcascade.envs.memory_qa.types import Question
from agentcascade.envs.offline.reader import UNKNOWN, answer_of
from agentcascade.errors import InvalidAction
from agentcascade.models.scripted import ScriptedModel


def asked(answer: str, category: str = "single-hop", answerable: bool = True, **more: Any) -> Question:
    return Question(id="q", text="?", answers=(answer,), category=category, answerable=answerable, **more)


@pytest.mark.parametrize(
    ("suite", "said", "question", "score"),
    [
        ("locomo", "the dog and the cat", asked("a dog, cat"), 1.0),  # articles and 'and' do not count
        ("locomo", "adopting dogs", asked("adopted dog"), 1.0),  # Porter's stems
        ("locomo", "a big dog", asked("dog"), 2 / 3),
        ("locomo", "painting", asked("painting, hiking", "multi-hop"), 0.5),
        ("locomo", "hiking, painting", asked("painting, hiking", "multi-hop"), 1.0),
        ("locomo", "likely yes", asked("likely yes; she said so", "open-domain"), 1.0),
        ("locomo", "It is not mentioned.", asked("dog", "adversarial", answerable=False), 1.0),
        ("locomo", "a dog", asked("dog", "adversarial", answerable=False), 0.0),
        ("hotpotqa", "yes", asked("yes"), 1.0),
        ("hotpotqa", "yes it was", asked("yes"), 0.0),  # yes and no count only whole
        ("hotpotqa", "the City of Rome", asked("Rome"), 0.5),
        ("longmemeval", "in May of 2023", asked("May 2023"), 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("longmemeval", "", asked("May"), 0.0),
    ],
)
def test_f1(suite: str, said: str, question: Question, score: float) -> None:
    assert answer_f1(suite, said, question) == pytest.approx(score)


def test_exact_match_is_of_normalised_texts() -> None:
    assert exact_match("hotpotqa", "The Rome!", asked("rome"))
    assert not exact_match("hotpotqa", "Rome, Italy", asked("rome"))
    assert exact_match("locomo", "no information available", asked("x", answerable=False))


words = st.lists(st.sampled_from(["dog", "cat", "the", "red", "blue"]), max_size=8)


@given(words, words, st.randoms())
def test_overlap_is_symmetric_bounded_and_blind_to_order(a: list[str], b: list[str], random: object) -> None:
    score = token_f1(a, b)
    assert 0 <= score <= 1
    assert score == pytest.approx(token_f1(b, a))
    assert token_f1(a[::-1], b) == pytest.approx(score)
    assert token_f1(a, a) == (1.0 if a else 0.0)


def test_evidence() -> None:
    assert score_evidence(["a", "b", "c", "d"], ["a", "b"]) == pytest.approx((0.5, 1.0, 2 / 3))
    assert score_evidence([], ["a"]) == (0.0, 0.0, 0.0)
    assert score_evidence(["a"], []) == (0.0, 0.0, 0.0)
    assert score_evidence(["a", "a"], ["a"]).precision == 1.0


def test_supporting_facts_of_hotpotqa() -> None:
    question = asked("Rome", evidence=("A:0", "B:1"))
    whole = score_supporting_facts("Rome", ["A:0", "B:1"], question)
    assert whole == (1.0, 1.0, 1.0, 1.0)
    half = score_supporting_facts("in Rome", ["A:0"], question)
    # answer precision 1/2, recall 1; facts precision 1, recall 1/2
    assert (half.em, half.f1, half.joint_em) == pytest.approx((0.0, 2 / 3, 0.0))
    assert half.joint_f1 == pytest.approx(2 * 0.5 * 0.5 / 1.0)


@pytest.mark.parametrize(
    ("said", "yes_no", "score"),
    [
        ("1", False, 1.0),
        ("Score: 0.5", False, 0.5),
        ("I would give it 0.", False, 0.0),
        ("1.0", False, 1.0),
        ("Yes.", True, 1.0),
    ],
)
def test_judgements_are_read_through_chatter(said: str, yes_no: bool, score: float) -> None:
    assert parse_judgement(said, yes_no) == score


@pytest.mark.parametrize(
    ("said", "yes_no"),
    [
        ("perhaps", True),
        ("Well, yes, or no", True),
        ("between 0.5 and 1", False),
        ("10", False),
        ("", False),
        ("0.7", False),
    ],
)
def test_what_is_no_judgement_is_an_error(said: str, yes_no: bool) -> None:
    with pytest.raises(InvalidAction, match="no judgement"):
        parse_judgement(said, yes_no)


async def test_a_judge_is_asked_by_the_rules_of_the_suite() -> None:
    model = ScriptedModel(["0.5", "yes", "yes"])
    assert (await judge_answer(model, asked("dog"), "a dog?", "locomo")).score == 0.5
    assert (await judge_answer(model, asked("May", "temporal-reasoning"), "June", "longmemeval")).score == 1.0
    assert (await judge_answer(model, asked("x", answerable=False), "cannot say", "longmemeval")).score == 1.0
    vague = await judge_answer(ScriptedModel(["perhaps"]), asked("dog"), "a dog?", "locomo")
    assert (vague.score, vague.readable, len(vague.calls)) == (0.0, False, 1)
    prompts = [request[0]["content"] for request in model.requests]
    assert "0.5 when it is partly right" in prompts[0]
    assert "error of one in a number of days" in prompts[1]
    assert "cannot be answered" in prompts[2]


def test_the_stand_in_reads_answers_off_the_memory() -> None:
    memory = (
        "- [08 May 2023] Ann: I adopted a dog yesterday. (yesterday = 07 May 2023)\n- [09 May 2023] Bob: I never paint"
    )
    assert answer_of(memory, "When did Ann adopt a dog?") == "07 May 2023"
    assert answer_of(memory, "Does Bob paint?") == "no"
    assert answer_of(memory, "Which submarine sank?") == UNKNOWN
    assert answer_of("(nothing)", "When did Ann adopt a dog?") == UNKNOWN
    said = answer_of("- [08 May 2023] Ann: My favourite colour is deep purple", "What is Ann's favourite colour?")
    assert "deep purple" in said
    assert refuses(UNKNOWN)
