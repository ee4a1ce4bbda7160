"""`offline/expert`: the ALFWorld engine's own planner, dressed as a chat model.

It is not a language model. It knows the rules of the game, but of each game only what a player has seen, and looks for
what it has not. Its tokens are counted and billed like a model's, at prices that the user names.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Protocol

from agentcascade.actions import text_of
from agentcascade.errors import ConfigError
from agentcascade.protocols import TokenCounter
from agentcascade.tokens import count_messages
from agentcascade.types import Completion, Message, Tool, Usage


class Oracle(Protocol):
    """A world that can tell the way to its goal."""

    def expert_plan(self) -> list[str]:
        """All commands to the goal."""
        ...

    def expert_advice(self) -> tuple[list[str], str]:
        """Commands for what has been seen, and what they look for, if they only look for something."""
        ...


class Expert:
    """Answers with the first command of the plan, and a thought that says what the plan does next."""

    name = "offline/expert"
    supports_n = True

    def __init__(self, count: TokenCounter, dollars: Callable[[Usage], Decimal | None]) -> None:
        self._count, self._dollars = count, dollars
        self._world: Oracle | None = None

    def bind(self, world: Oracle) -> None:
        """Play in this world from now on."""
        self._world = world

    def dollars(self, usage: Usage) -> Decimal | None:
        return self._dollars(usage)

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
        tools: Sequence[Tool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """The same answer `n` times. Raises `ConfigError` outside a bound world."""
        if self._world is None:
            raise ConfigError("offline/expert is an ALFWorld planner: it works only in `agentcascade bench alfworld`")
        started = time.perf_counter()
        if "write the plan you will follow" in text_of(messages[-1]):
            text = outline(self._world.expert_plan())
        else:
            plan, searching = self._world.expert_advice()
            text = f"Thought: {thought(plan, searching)}\nAction: {plan[0] if plan else 'look'}"
        answer: Message = {"role": "assistant", "content": text}
        usage = Usage(input=count_messages(messages, self._count), output=n * self._count(text_of(answer)))
        return Completion(
            model=self.name,
            messages=(answer,) * n,
            finish_reasons=("stop",) * n,
            usage=usage,
            dollars=self.dollars(usage),
            seconds=time.perf_counter() - started,
        )


COMMAND = re.compile(
    r"(?P<verb>go to|open|take|move|clean|heat|cool|use) (?P<a>\w+ \d+)(?: (?:from|to|with) (?P<b>\w+ \d+))?"
)

REASONS = {
    "take": "I need the {a}; it is at the {b}.",
    "move": "I carry the {a}; it belongs at the {b}.",
    "clean": "I carry the {a}; it must be cleaned at the {b}.",
    "heat": "I carry the {a}; it must be heated with the {b}.",
    "cool": "I carry the {a}; it must be cooled with the {b}.",
    "use": "I need the light of the {a}.",
}
"""What the plan's next purposeful command is for."""

NOW = {
    "take": "I see the {a} I need. I take it.",
    "move": "I am at the {b}. I put the {a} here.",
    "clean": "I am at the {b}. I clean the {a}.",
    "heat": "I am at the {b}. I heat the {a}.",
    "cool": "I am at the {b}. I cool the {a}.",
    "use": "I see the {a}. I turn it on.",
}


def thought(plan: Sequence[str], searching: str = "") -> str:
    """One sentence on the first command, and what it is for where it only prepares another."""
    if not plan:
        return "The task is done."
    parsed = [m for command in plan if (m := COMMAND.fullmatch(command))]
    first = COMMAND.fullmatch(plan[0])
    if first is None:
        return f"Next I {plan[0]}."
    names = {k: (v or "").rsplit(" ", 1)[0] for k, v in first.groupdict().items()}
    if first["verb"] in NOW:
        return NOW[first["verb"]].format(**names)
    purpose = next((m for m in parsed if m["verb"] in REASONS), None)
    why = f"I need the {searching}; it may be at the {names['a']}." if searching else ""
    if purpose is not None:
        why = REASONS[purpose["verb"]].format(
            **{k: (v or "").rsplit(" ", 1)[0] for k, v in purpose.groupdict().items()}
        )
    what = f"The {names['a']} is closed. I open it." if first["verb"] == "open" else f"I go to the {names['a']}."
    return f"{why} {what}".strip()


def outline(plan: Sequence[str]) -> str:
    """The plan's purposeful commands without the numbers of things, nor where they are yet to be found."""
    steps = [re.sub(r"^take (\w+).*", r"take \1", re.sub(r" [0-9]+", "", c)) for c in plan]
    steps = [c for c in steps if not c.startswith(("go to", "open"))]
    return "\n".join(f"{i}. {step}" for i, step in enumerate(steps, 1))
