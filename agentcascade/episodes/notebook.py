"""An episode in a notebook: a table of its steps, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence

from agentcascade._util.notebook import html_of_money, html_of_rows, html_of_text
from agentcascade.types import Decision, Step

HEADS = "step", "observation", "action", "answered by", "reason", "dollars", "teacher alone"


def html_of_episode(title: str, steps: Sequence[Step], decisions: Sequence[Decision]) -> str:
    """The steps, with who took each and why."""
    rows = [
        (
            str(decision.step),
            html_of_text(step.observation),
            html_of_text(step.action),
            decision.answered_by,
            html_of_text(decision.reason),
            html_of_money(decision.dollars),
            html_of_money(decision.teacher_dollars),
        )
        for step, decision in zip(steps, decisions)
    ]
    return html_of_rows(rows, caption=title, heads=HEADS)
