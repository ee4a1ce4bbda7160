"""Read the turns of a history from JSON lines or plain text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.memory.dates import parse_timestamp
from agentcascade.types import Turn


def read_turns(lines: Iterable[str], name: str, problems: list[str] | None = None) -> list[Turn]:
    """Turns from JSON lines (``text`` and, where known, ``id``, ``speaker``, ``session``, ``at``) or plain text lines.

    Args:
        lines: lines of the file.
        name: name of the file, which makes the ids of lines that have none.
        problems: takes a message for each time that does not parse; such a turn has no time.

    Raises:
        InvalidRequest: a line is not JSON, no turn, or not UTF-8; the message names it.
    """
    turns = []
    try:
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if text:
                turns.append(_turn(text, f"{name}:{number}", f"{name} line {number}", problems))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name} is no text in UTF-8: {error}") from None
    return turns


def _turn(text: str, id: str, where: str, problems: list[str] | None) -> Turn:
    if not text.startswith("{"):
        return Turn(id=id, text=text)
    try:
        data: dict[str, Any] = json.loads(text)
        at = data.pop("at", None)
        when = parse_timestamp(str(at)) if at else None
        turn = Turn(**{"id": id, **data}, at=when)
    except ValidationError as error:
        raise InvalidRequest(f"{where} is no turn: {_first_complaint(error)}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where} is not JSON: {error}") from None
    if at and when is None and problems is not None:
        problems.append(f"{where}: the time {str(at)[:60]!r} does not parse: left open")
    return turn


def _first_complaint(error: ValidationError) -> str:
    """Message for the first validation error, unknown fields first: they may be misspelt required ones."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    field = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return f"the field '{field}' is unknown: {did_you_mean(field, Turn.model_fields)}"
    return f"it needs a '{field}'" if first["type"] == "missing" else f"{field}: {first['msg']}"
