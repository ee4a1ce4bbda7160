"""Structured logging: one line an event, secrets left out, contents only where they are asked for."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from agentcascade._util.control_characters import LINE
from agentcascade.errors import ConfigError
from agentcascade.redaction.redactor import Redactor

CONTENTS = {"messages", "content", "prompt", "answer", "arguments", "body", "observation"}
"""Fields that are replaced by their length."""
STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}
LEVELS = ("debug", "info", "warning", "error", "critical")
Put: TypeAlias = Callable[[str], str]
JSON = json.JSONEncoder(ensure_ascii=False, default=str)
DEEP = 7
"""Levels of nesting that are shown as they are; what lies deeper is shown as its text."""


class StructuredFormatter(logging.Formatter):
    """A record as one line, JSON or text. Whatever a value holds, it cannot begin another line, and nothing raises."""

    def __init__(self, *, as_json: bool = True, redactor: Redactor | None = None, contents: bool = False) -> None:
        super().__init__()
        self._json = as_json
        self._redactor = redactor or Redactor()
        self._contents = contents

    def format(self, record: logging.LogRecord) -> str:
        texts: list[str] = []

        def keep(text: str) -> str:
            texts.append(text)
            return text

        fields = self._fields(record, keep)
        if not self._is_clean(texts):
            fields = self._fields(record, self._redacted)
        if self._json:
            return JSON.encode(fields).translate(LINE)
        head = f"{fields.pop('time')} {fields.pop('level').upper()} {fields.pop('logger')}: {fields.pop('message')}"
        return (head + "".join(f" {k}={v}" for k, v in fields.items())).translate(LINE)

    def _fields(self, record: logging.LogRecord, put: Put) -> dict[str, Any]:
        """All that the line says; every text of it is what `put` makes of it."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": put(_message(record)),
        }
        if record.exc_info:
            fields["exception"] = put(self.formatException(record.exc_info))
        if record.stack_info:
            fields["stack"] = put(record.stack_info)
        fields |= _trace()
        for name, value in record.__dict__.items():
            if name not in STANDARD and name not in fields and not _text(name).startswith("_"):  # some library's own
                fields |= self._shown("", {name: value}, DEEP, put)
        return fields

    def _shown(self, name: str, value: Any, depth: int, put: Put) -> Any:
        """A value that JSON can hold, without secrets and, where they are not wanted, contents."""
        if name in CONTENTS and not self._contents and value is not None:
            return f"[{len(value) if hasattr(value, '__len__') else len(_text(value))} long]"
        if value is None or isinstance(value, (bool, int)):
            return value
        if isinstance(value, float):
            return value if value - value == 0 else str(value)  # JSON has no infinity
        if isinstance(value, Mapping) and depth:
            shown = {_text(k): self._shown(_text(k), v, depth - 1, put) for k, v in value.items()}
            return {put(k): "[key]" if self._redactor.hides(k, v) else v for k, v in shown.items()}
        if isinstance(value, (list, tuple, set, frozenset)) and depth:
            return [self._shown("", v, depth - 1, put) for v in value]
        return put(_text(value))

    def _is_clean(self, texts: list[str]) -> bool:
        try:
            return self._redactor.is_clean(texts)
        except Exception:  # one of the user's own redactor
            return False

    def _redacted(self, text: str) -> str:
        try:
            return self._redactor.text(text)
        except Exception as error:  # one of the user's hooks
            return f"[withheld: redaction failed with {type(error).__name__}]"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # its arguments do not fit: the logging module would print them as they are
        return f"{_text(record.msg)} {_text(record.args)}"


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"[{type(value).__name__} without a text: {type(error).__name__}]"


def _trace() -> dict[str, str]:
    """The trace and span that are under way, where OpenTelemetry is in use."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    context = trace.get_current_span().get_span_context()
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"} if context.is_valid else {}


def configure_logging(
    level: str = "info",
    json: bool = True,
    redactor: Redactor | None = None,
    contents: bool = False,
    *,
    uvicorn: bool = True,
) -> None:
    """Send our logs, and uvicorn's, to standard error as JSON or plain text. For programs; the library never calls it.

    A second call replaces the first. Raises `ConfigError` for an unknown level.
    """
    if level.lower() not in LEVELS:
        raise ConfigError(f"log level {level!r} is unknown: use one of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(StructuredFormatter(as_json=json, redactor=redactor, contents=contents))
    for name in ("agentcascade", *(["uvicorn"] if uvicorn else [])):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
