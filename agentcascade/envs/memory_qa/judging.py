"""Judge answers with a chat model: right, half right or wrong (BudgetMem); right or wrong (LongMemEval)."""

from __future__ import annotations

import re
from typing import NamedTuple

from agentcascade.billing.door import Door, Tab
from agentcascade.envs.memory_qa.types import Question
from agentcascade.errors import InvalidAction
from agentcascade.messages import text_of
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.prompts.quoting import FENCED
from agentcascade.prompts.yes_no import verdict
from agentcascade.protocols import ChatModel
from agentcascade.types import Call

JUDGE_SECONDS = 600.0
RULES = ("temporal-reasoning", "knowledge-update", "single-session-preference")
"""Types of LongMemEval's questions that have a rule of their own: a template each."""
GRADE = r"(?<![\d.])(0\.50?|\.5|1(?:\.0)?|0(?:\.0)?)(?![\d.]*\d)"


class Judgement(NamedTuple):
    score: float
    calls: tuple[Call, ...] = ()
    readable: bool = True


async def judge_answer(
    model: ChatModel, question: Question, prediction: str, suite: str, prompts: Prompts = DEFAULT
) -> Judgement:
    """Judge `prediction`: 0, 0.5 or 1; for LongMemEval 0 or 1, with the rule of the question's type.

    A judgement that cannot be read scores 0, and `readable` says so.
    """
    yes_no = suite == "longmemeval" or not question.answerable
    if not question.answerable:
        task = prompts.render("memory_judge_unanswerable")
    elif yes_no:
        category = question.category
        rule = prompts.render(f"memory_judge_{category.replace('-', '_')}") if category in RULES else ""
        task = prompts.render("memory_judge_yes_no", rule=rule).strip()
    else:
        task = prompts.render("memory_judge_graded")
    right = question.answers[0] if question.answers else ""
    question_text, right, answer_text = (FENCED.text(text) for text in (question.text, right, prediction or "(none)"))
    text = prompts.render("memory_judge", task=task, question=question_text, right=right, answer=answer_text)
    completion = await Door().call(
        model,
        [{"role": "user", "content": text}],
        {"temperature": 0.0, "max_tokens": 16},
        role="teacher",
        purpose="judge",
        bill=Tab(),
        seconds=JUDGE_SECONDS,
    )
    calls = (Call.of("teacher", "judge", completion),)
    try:
        return Judgement(parse_judgement(text_of(completion.messages[0]), yes_no, model.name), calls)
    except InvalidAction:
        return Judgement(0.0, calls, readable=False)


def parse_judgement(text: str, yes_no: bool, name: str = "the judge") -> float:
    """Parse the score of a judge's text: the one that it begins with, or the only one that it names."""
    if yes_no:
        yes = verdict(text)
        if yes is not None:
            return float(yes)
    else:
        begins = re.match(rf"[\s*_`\"'(\[]*(?:(?:score|grade|answer)\W{{0,4}})?{GRADE}", text, re.IGNORECASE)
        named = [begins[1]] if begins else re.findall(GRADE, text)
        if len({float(n) for n in named}) == 1:
            return float(named[0])
    raise InvalidAction(f"{name} gave no judgement that can be read: {text[:80]!r}")
