"""Refusals: what a provider marks as one, and stock phrases; answers that decline something in words of their own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.actions.base import RegexActions
from agentcascade.actions.refusals import is_stock_phrase, refusal
from agentcascade.types import Action, Message

STOCK = [
    "I'm sorry, but I can't assist with that.",
    "I’m sorry, but I can’t assist with that request.",
    "Sorry, I can't help with that.",
    "I cannot assist with that request. Is there something else I can do for you?",
    "I apologize, but I cannot assist with this.",
    "I'm sorry, but as an AI language model, I cannot provide assistance.",
    "I'm just a language model, so I can't help you with that.",
    "I'm not able to help you with that.",
    "I'm sorry. I can't help with that.",
    "**I'm sorry, but I can't comply with that.**",
    "I must decline.",
    "I won't be able to help with that",
    "I'm not comfortable discussing that topic.",
    # gemini-1.5, on tasks of BFCL for which it was given no function that fits
    "I am sorry, I cannot fulfill this request. The available tools lack the functionality to book a table.",
    "I am sorry, I cannot answer this question. I do not have access to real-time information.",
]
ANSWERS = [
    "I'm sorry, I can't cancel order 17: it has shipped.",
    "I can't help you cancel the order.",
    "I cannot find the mug.",
    "I will not be home",
    "I'm sorry to hear that. I can help with that.",
    "I'm sorry, but the provided functions do not seem to be relevant to the question.",  # claude-3 on BFCL
    "go to desk 1",
    "42",
    "Sorry",
    "I do.",
    "",
    "I can't assist with that" + " and that" * 100,
]


@pytest.mark.parametrize("text", STOCK)
def test_a_stock_phrase_is_a_refusal(text: str) -> None:
    assert is_stock_phrase(text)
    assert "a refusal: " in str(refusal({"content": text}, Action(key=text, text=text)))


@pytest.mark.parametrize("text", ANSWERS)
def test_what_says_in_its_own_words_that_something_cannot_be_done_is_an_answer(text: str) -> None:
    assert not is_stock_phrase(text)
    assert refusal({"content": text}, Action(key=text, text=text), "stop") is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"content": "half an ans"}, "content_filter"),
        ({"content": "half an ans"}, "SAFETY"),
        ({"content": None, "tool_calls": [{"id": "x"}]}, "refusal"),
        ({"content": "look", "refusal": "I will not."}, "stop"),
    ],
)
def test_a_refusal_that_the_provider_marks_is_one_whatever_was_said(message: Message, reason: str) -> None:
    assert str(refusal(message, Action(key="look", text="look"), reason)).startswith("a refusal: ")


@pytest.mark.parametrize(
    "message", [{"content": STOCK[0], "tool_calls": [{"id": "x"}]}, {"content": f"{STOCK[0]}\nAction: look"}]
)
def test_words_beside_an_action_are_none(message: Message) -> None:
    parsed = Action(key="look()", text="look()") if message.get("tool_calls") else RegexActions().parse(message)
    assert refusal(message, parsed, "stop") is None


@given(st.text(), st.sampled_from(["", STOCK[0], "I'm sorry, but I can't "]), st.text(max_size=20))
def test_any_text_is_one_or_is_none(text: str, opening: str, reason: Any) -> None:
    said = refusal({"content": opening + text}, Action(key="k", text=opening + text), reason)
    assert said is None or len(said) < 200
    assert is_stock_phrase(STOCK[0] + " " + text)
