"""Turns in files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from agentcascade.errors import InvalidRequest
from agentcascade.memory.dates import parse
from agentcascade.memory.types import Turn


def read_turns(lines: Iterable[str], name: str) -> list[Turn]:
    """JSON lines (``text`` and, where known, ``id``, ``speaker``, ``session``, ``at``), or plain lines of text.

    A time that does not parse is left open. Raises `InvalidRequest` naming the line.
    """
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        if not text.startswith("{"):
            found.append(Turn(id=f"{name}:{number}", text=text))
            continue
        try:
            data: dict[str, Any] = json.loads(text)
            at = data.pop("at", None)
            found.append(Turn(**{"id": f"{name}:{number}", **data}, at=parse(str(at)) if at else None))
        except (ValueError, TypeError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise InvalidRequest(f"{name} line {number} is no turn ({reason}): it needs a 'text'") from None
    return found
