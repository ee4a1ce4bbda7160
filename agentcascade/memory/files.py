"""Turns in files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.memory.dates import parse
from agentcascade.types import Turn


def read_turns(lines: Iterable[str], name: str, problems: list[str] | None = None) -> list[Turn]:
    """JSON lines (``text`` and, where known, ``id``, ``speaker``, ``session``, ``at``), or plain lines of text.

    A line without an id is called by file and number. A time that does not parse is left open and told in `problems`.
    Raises `InvalidRequest` naming the line.
    """
    found = []
    try:
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if text:
                found.append(_turn(text, f"{name}:{number}", f"{name} line {number}", problems))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name} is no text in UTF-8: {error}") from None
    return found


def _turn(text: str, id: str, where: str, problems: list[str] | None) -> Turn:
    if not text.startswith("{"):
        return Turn(id=id, text=text)
    try:
        data: dict[str, Any] = json.loads(text)
        at = data.pop("at", None)
        when = parse(str(at)) if at else None
        turn = Turn(**{"id": id, **data}, at=when)
    except ValidationError as error:
        raise InvalidRequest(f"{where} is no turn: {_reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where} is not JSON: {error}") from None
    if at and when is None and problems is not None:
        problems.append(f"{where}: the time {str(at)[:60]!r} does not parse: left open")
    return turn


def _reason(error: ValidationError) -> str:
    """The first thing that is wrong, with an unknown field before the one that it may stand for."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    field = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return f"the field '{field}' is unknown: {did_you_mean(field, Turn.model_fields)}"
    return f"it needs a '{field}'" if first["type"] == "missing" else f"{field}: {first['msg']}"
