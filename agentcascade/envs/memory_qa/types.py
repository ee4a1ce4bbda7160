"""Conversations of a memory benchmark, and the questions about them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from agentcascade.types import Frozen, Turn


class Question(Frozen):
    """Question with its answers and the turns that prove them."""

    id: str
    text: str
    answers: tuple[str, ...] = Field(description="each is right")
    category: str = ""
    evidence: tuple[str, ...] = Field(default=(), description="ids of turns")
    asked_at: datetime | None = None
    answerable: bool = True


class Conversation(Frozen):
    """Conversation (history) and its questions."""

    id: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]
    problems: tuple[str, ...] = Field(default=(), description="what was odd in the file, and what was made of it")
