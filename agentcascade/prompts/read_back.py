"""Read demonstrations back from the text of the default templates: HTTP carries no structures to stand-ins."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from agentcascade.prompts.additions import Composed
from agentcascade.prompts.defaults import TEMPLATES
from agentcascade.prompts.demonstrations import Shown
from agentcascade.types import Demonstration, Message, Step

MAX_CHARACTERS = 1_000_000
"""Longer texts are not read."""
_BEGIN = TEMPLATES["demonstrations"].render(examples="\0").partition("\0")[0].split("\n\n")[0]
_END = "\n" + TEMPLATES["demonstrations"].render(examples="\0").partition("\0")[2].strip()
_TASK = TEMPLATES["demonstrations"].blocks(task="\0")[-1].partition("\0")[0]
_MARK = re.compile(r"\n\n([0-9a-f]{6,32})\n*$")
_HEADING = re.compile(r"(?:^|\n)## Example \d{1,9}\n")
_SPAN = re.compile(r"(?:^|\n)\(steps (\d{1,9}) to (\d{1,9}) of (\d{1,9})\)\n")
_STEP = re.compile(
    r"(?:^|\n)Observation: (.*?)(?:\nThought: (.*?))?\nAction: (.*?)(?=\nObservation: |\Z)",
    re.DOTALL,
)


def with_structure(messages: Sequence[Message]) -> list[Message]:
    """Messages of `demonstrations.build` with the structure that they lost on their way; others as they are."""
    if any(isinstance(message, Composed) for message in messages):
        return list(messages)
    users = [i for i, m in enumerate(messages) if m.get("role") == "user" and _BEGIN in str(m.get("content"))]
    for at in dict.fromkeys((*users[:1], *users[-1:])):  # where `build` puts them, first or last
        composed = _composed(messages[at])
        if composed is not None:
            return [*messages[:at], composed, *messages[at + 1 :]]
    return list(messages)


def _composed(message: Message) -> Composed | None:
    """The message as `demonstrations.build` made it: these stand at its end, or before all else that it says."""
    content = message.get("content")
    if not isinstance(content, str) or not 0 < len(content) <= MAX_CHARACTERS:
        return None
    own, _, rest = content.partition(_BEGIN)
    body, _, behind = rest.rpartition(_END)
    shown = _demonstrations(_MARK.sub("", body))
    if behind.startswith(f"\n{_TASK}"):  # up to a blank line: what follows is the observation, or nothing
        behind = "" if own else behind.partition("\n\n")[2]
    if not shown or (own and behind):
        return None
    text = content[len(own) : len(content) - len(behind)]
    base = {**message, "content": behind.lstrip("\n") if behind else own.rstrip("\n")}
    return Composed(base, text, Shown(shown, quoted=False), before=bool(behind))


@lru_cache(maxsize=64)
def _demonstrations(text: str) -> tuple[Demonstration, ...]:
    """In the order of the text, each named by its place there."""
    demonstrations = []
    for place, block in enumerate(_HEADING.split(text)[1:]):
        span = _SPAN.search(block)
        first, last, length = map(int, span.groups()) if span else (1, 0, 1)
        steps = _STEP.findall(block[span.end() :] if span else block)
        if not steps or last - first + 1 != len(steps):
            continue
        head = block[: span.start()] if span else ""
        goal = next((line.removeprefix("Goal: ") for line in head.split("\n") if line.startswith("Goal: ")), "")
        demonstrations.append(
            Demonstration(
                trajectory=f"{place:09}",
                goal=goal,
                steps=tuple(Step(observation=o, reasoning=t, action=a.strip("\n")) for o, t, a in steps),
                start=first - 1,
                match=0,
                length=length,
                score=0.0,
            )
        )
    return tuple(demonstrations)
