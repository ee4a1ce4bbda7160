"""What the imitator reads off its prompt: commands, task, demonstrations, its own history. It sees nothing else.

Demonstrations are read as a structure (`prompts.additions`), so that the templates may say them in any words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from agentcascade.messages import text_of
from agentcascade.prompts.additions import by_default
from agentcascade.prompts.demonstrations import Shown, demonstrations_in, without_demonstrations
from agentcascade.types import Demonstration, Message

ENTITY = re.compile(r"\b([a-z]+) (\d{1,9})\b")
WORD = re.compile(r"[a-z]+")
_ACTION = re.compile(r"(?:^|\n)Action: *([^\n]*)")
_THOUGHT = re.compile(r"(?:^|\n)Thought: *([^\n]*)")
_COMMAND = re.compile(r"^- (.+)$", re.MULTILINE)
_TASK = re.compile(r"(?:task is to|Task|task):? *([^\n]+)")

Entity = tuple[str, int]
"""A class and a number: ("mug", 1)."""


@dataclass(frozen=True)
class Turn:
    """One step, a demonstration's or its own."""

    observation: str
    thought: str
    action: str


@dataclass(frozen=True)
class Example:
    goal: str
    turns: tuple[Turn, ...]
    start: int
    """Steps that came before the first one shown."""
    ends: bool = False
    """Whether the last step shown is the episode's last."""


@dataclass(frozen=True)
class ParsedPrompt:
    """A whole prompt."""

    commands: tuple[str, ...]
    goal: str
    examples: tuple[Example, ...]
    history: tuple[Turn, ...]
    observation: str
    places: tuple[Entity, ...] = field(default=())
    """Entities of the first observation, in the order they were named."""


def parse_prompt(messages: Sequence[Message]) -> ParsedPrompt:
    """The parts of a student's prompt; of any conversation, however odd: what is not there is empty."""
    shown = next((shown for m in messages if m["role"] == "user" and (shown := demonstrations_in(m))), None)
    messages = [by_default(without_demonstrations(m)) for m in messages]
    system = "\n".join(text_of(m) for m in messages if m["role"] in ("system", "developer"))
    own = next((text_of(m) for m in messages if m["role"] == "user"), "").strip()
    task = _TASK.search(own)
    turns: list[Turn] = []
    seen = own
    for message in messages:
        text = text_of(message)
        if message["role"] == "assistant":
            turns.append(Turn(seen, _last(_THOUGHT, text), _last(_ACTION, text).lower() or text.strip().lower()))
            seen = ""
        elif message["role"] in ("user", "tool") and turns:
            seen = f"{seen}\n{text}".strip()
    return ParsedPrompt(
        commands=tuple(c for c in _COMMAND.findall(system)),
        goal=(task.group(1) if task else own).lower(),
        examples=tuple(_example(d, shown) for d in shown.demonstrations) if shown else (),
        history=tuple(turns),
        observation=seen,
        places=entities(own),
    )


def _example(demonstration: Demonstration, shown: Shown) -> Example:
    turns = tuple(
        Turn(shown.text(step.observation), shown.text(step.reasoning), _line(shown.text(step.action)).strip().lower())
        for step in demonstration.steps
    )
    start, ends = demonstration.start, demonstration.start + len(demonstration.steps) == demonstration.length
    return Example(_line(shown.text(demonstration.goal)).lower(), turns, start, ends)


def _line(text: str) -> str:
    """The first line."""
    return text.partition("\n")[0]


def _last(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.findall(text)
    return found[-1].strip() if found else ""


@lru_cache(maxsize=8192)
def entities(text: str) -> tuple[Entity, ...]:
    """Every "word number" of a text, once each, in order."""
    return tuple(dict.fromkeys((word, int(number)) for word, number in ENTITY.findall(text.lower())))


@lru_cache(maxsize=8192)
def words(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text.lower()))


def verb(action: str) -> str:
    """A command without its entities: "take from", "go to"."""
    return " ".join(ENTITY.sub("", action).split())
