"""Structured logs: one line of JSON an event, secrets left out, contents only where they are asked for."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from agentcascade.redaction import Redactor

CONTENTS = {"messages", "content", "prompt", "answer", "arguments", "body", "observation"}
"""Extra fields that are replaced by their length."""
STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
LOGGERS = ("agentcascade", "uvicorn", "uvicorn.error")


class Structured(logging.Formatter):
    """A record as one line, JSON or text. Line breaks in values cannot begin another line."""

    def __init__(self, *, as_json: bool = True, redactor: Redactor | None = None, contents: bool = False) -> None:
        super().__init__()
        self._json, self._redactor, self._contents = as_json, redactor or Redactor(), contents

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {k: self._shown(k, v) for k, v in record.__dict__.items() if k not in STANDARD}
        if trace := _trace():
            fields["trace_id"] = trace
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        fields = self._redactor.value(fields)
        if self._json:
            return json.dumps(fields, ensure_ascii=False, default=str)
        head = f"{fields.pop('time')} {fields.pop('level').upper()} {fields.pop('logger')}: "
        text = head + str(fields.pop("message")) + "".join(f" {k}={v}" for k, v in fields.items())
        return text.encode("unicode_escape").decode() if not text.isprintable() else text

    def _shown(self, name: str, value: Any) -> Any:
        if name in CONTENTS and not self._contents:
            return f"[{len(value) if hasattr(value, '__len__') else len(str(value))} long]"
        return value


def _trace() -> str | None:
    """The id of the trace that is under way, where OpenTelemetry is in use."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def configure(
    *, level: str = "info", json: bool = True, redactor: Redactor | None = None, contents: bool = False
) -> None:
    """Send our logs and uvicorn's to standard error. Called once, by programs, never by the library."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Structured(as_json=json, redactor=redactor, contents=contents))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler] if name in ("agentcascade", "uvicorn") else []
        logger.setLevel(level.upper())
        logger.propagate = name not in ("agentcascade", "uvicorn")
