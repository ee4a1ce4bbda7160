"""Verbalize plans: a thought on a plan's first command, and its outline."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
"""Purposes of a plan's next purposeful command"""

NOW = {
    "take": "I see the {a} I need. I take it.",
    "move": "I am at the {b}. I put the {a} here.",
    "clean": "I am at the {b}. I clean the {a}.",
    "heat": "I am at the {b}. I heat the {a}.",
    "cool": "I am at the {b}. I cool the {a}.",
    "use": "I see the {a}. I turn it on.",
}


def explain_command(plan: Sequence[str], searching: str = "") -> str:
    """Explain a plan's first command, with its purpose where it only prepares another."""
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


def outline_plan(plan: Sequence[str]) -> str:
    """Outline a plan: its purposeful commands without numbers and places."""
    steps = [re.sub(r"^take (\w+).*", r"take \1", re.sub(r" [0-9]+", "", c)) for c in plan]
    steps = [c for c in steps if not c.startswith(("go to", "open"))]
    return "\n".join(f"{i}. {step}" for i, step in enumerate(steps, 1))
