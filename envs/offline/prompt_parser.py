"""What the imitator reads off its prompt: commands, task, demonstrations, its own history. It sees nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from agentcascade.messages import text_of
from agentcascade.prompts import demonstrations
from agentcascade.types import Message

ENTITY = re.compile(r"\b([a-z]+) (\d{1,9})\b")
WORD = re.compile(r"[a-z]+")
_ACTION = re.compile(r"(?:^|\n)Action: *([^\n]*)")
_THOUGHT = re.compile(r"(?:^|\n)Thought: *([^\n]*)")
_EXAMPLE = re.compile(r"\n## Example \d+\n")
_SPAN = re.compile(r"\(steps (\d{1,9}) to (\d{1,9}) of (\d{1,9})\)\n")
_STEP = re.compile(r"(?:^|\n)Observation: (.*?)(?:\nThought: ([^\n]*))?\nAction: ([^\n]*)", re.DOTALL)
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
class Reading:
    """A whole prompt."""

    commands: tuple[str, ...]
    goal: str
    examples: tuple[Example, ...]
    history: tuple[Turn, ...]
    observation: str
    places: tuple[Entity, ...] = field(default=())
    """Entities of the first observation, in the order they were named."""


def read(messages: Sequence[Message]) -> Reading:
    """Any conversation, however odd; what is not there is empty."""
    system = "\n".join(text_of(m) for m in messages if m["role"] in ("system", "developer"))
    first = next((text_of(m) for m in messages if m["role"] == "user"), "")
    own, shown = demonstrations.apart(first)
    own = own.strip()
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
    return Reading(
        commands=tuple(c for c in _COMMAND.findall(system)),
        goal=(task.group(1) if task else own).lower(),
        examples=_examples(shown),
        history=tuple(turns),
        observation=seen,
        places=entities(own),
    )


@lru_cache(maxsize=64)
def _examples(text: str) -> tuple[Example, ...]:
    found = []
    for block in _EXAMPLE.split(text)[1:]:
        span = _SPAN.search(block)
        head = block[: span.start()] if span else ""
        goal = next((line[6:] for line in head.splitlines() if line.startswith("Goal: ")), "")
        start, end, length = map(int, span.groups()) if span else (1, 0, 1)
        body = block[span.end() :] if span else block
        turns = tuple(Turn(o, t or "", a.strip().lower()) for o, t, a in _STEP.findall(body))
        if turns:
            found.append(Example(goal.lower(), turns, start - 1, end == length))
    return tuple(found)


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
