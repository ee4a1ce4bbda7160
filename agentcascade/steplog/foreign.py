"""Read model calls from foreign logs: OpenAI transcripts, litellm's payloads and spend logs, Langfuse's exports.

Formats, and what was tried with them:
    openai    a list of messages, or an object with `messages` or `traj` (tau-bench), with `model`, `reward` or
              `success`; every assistant message is a call with all messages before it. Tried on tau-bench's gpt-4o.
    litellm   `StandardLoggingPayload` as its loggers write it, and rows of the proxy's ``/spend/logs``. Tried on
              payloads that litellm 1.106 wrote; no proxy with a database was asked.
    langfuse  observations of type GENERATION, of the public API and of blob-storage exports (Langfuse 3). Tried on
              files of the documented fields; no server was asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentcascade.errors import InvalidRequest, did_you_mean
from agentcascade.models.usage import usage_from
from agentcascade.steplog.matching import ModelCall
from agentcascade.types import Usage

Row = Mapping[str, Any]
REDACTION_MARKS = ("redacted-by-litellm", "litellm_truncated")
"""Marks that litellm writes in place of redacted or truncated text, which make different requests look the same"""


def read_model_calls(path: Path, log_format: str = "auto") -> Iterator[ModelCall]:
    """Read the model calls of a JSON or JSONL file. Raises `InvalidRequest` for an unknown format or a broken file."""
    if log_format != "auto" and log_format not in FORMATS:
        raise InvalidRequest(
            f"format '{log_format}' is unknown: {did_you_mean(log_format, (*FORMATS, 'auto', 'plain'))}"
        )
    for number, row in enumerate(read_objects(path), 1):
        entry_format = log_format if log_format != "auto" else guess_format(row)
        if entry_format is None:
            raise InvalidRequest(f"{path} entry {number}: neither a transcript nor a call of litellm or Langfuse")
        try:
            yield from FORMATS[entry_format](row, f"{path.stem}-{number}", path.stem)
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise InvalidRequest(f"{path} entry {number} is not of format {entry_format}: {reason}") from None


def read_objects(path: Path) -> Iterator[Any]:
    """Read the objects of a JSON array, of one JSON object, or of JSON lines."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error
    try:
        data = json.loads(text)
    except RecursionError:
        raise InvalidRequest(f"{path} nests too deep to be read") from None
    except ValueError:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InvalidRequest(f"{path} line {number} is not JSON: {error}") from None
        return
    if isinstance(data, Mapping):
        inner = next((data[k] for k in ("data", "observations") if isinstance(data.get(k), list)), None)
        yield from inner if inner is not None else [data]
    elif isinstance(data, list) and data and all(isinstance(m, Mapping) and "role" in m for m in data):
        yield data  # one transcript
    elif isinstance(data, list):
        yield from data
    else:
        raise InvalidRequest(f"{path} holds neither a list nor objects, but one {type(data).__name__}")


def guess_format(row: Any) -> str | None:
    """Guess the format of an entry; None where it fits none."""
    if isinstance(row, list):
        return "openai"
    if not isinstance(row, Mapping):
        return None
    if "traj" in row or ("messages" in row and "response" not in row and "output" not in row):
        return "openai"
    if "response" in row and "messages" in row:
        return "litellm"
    return "langfuse" if ("input" in row and "output" in row) or row.get("type") in OBSERVATIONS else None


def _transcript(row: Any, name: str, file: str) -> Iterator[ModelCall]:
    about: Row = row if isinstance(row, Mapping) else {}
    messages = list(about.get("traj") or about.get("messages") or ()) if about else list(row)
    reward = about.get("reward")
    success = about.get("success", None if reward is None else float(reward) >= 1)
    task = about.get("task_id")
    episode = str(about.get("episode") or (f"task {task} trial {about.get('trial', 0)}" if task is not None else name))
    for i, message in enumerate(messages):
        if message.get("role") == "assistant":
            yield ModelCall(
                model=str(about.get("model") or file),
                messages=messages[:i],
                answers=[_answer(message)],
                episode=episode,
                success=None if success is None else bool(success),
            )


def _litellm(row: Row, name: str, file: str) -> Iterator[ModelCall]:
    response, messages = _parse_json(row.get("response")), _parse_json(row.get("messages"))
    if isinstance(messages, Mapping):
        messages = messages.get("messages")
    choices = response.get("choices") or [] if isinstance(response, Mapping) else []
    parameters = row.get("model_parameters") or {}
    failed = row.get("status") == "failure"
    provider, model = row.get("custom_llm_provider"), str(row["model"])
    yield ModelCall(
        model=model if not provider or "/" in model else f"{provider}/{model}",
        messages=messages or [],
        answers=[] if failed else [_answer(c["message"]) for c in choices if c.get("message")],
        id=str(row.get("id") or row.get("request_id") or ""),
        unusable="answers from a cache"
        if str(row.get("cache_hit")).lower() == "true"
        else _redaction_complaint(messages, choices),
        usage=_usage(response.get("usage") if isinstance(response, Mapping) else None),
        episode=str(row.get("session_id") or row.get("trace_id") or name),
        temperature=parameters.get("temperature"),
        at=_parse_time(row.get("startTime")),
    )


OBSERVATIONS = ("GENERATION", "SPAN", "EVENT")


def _langfuse(row: Row, name: str, file: str) -> Iterator[ModelCall]:
    if row.get("type") not in (None, "GENERATION"):
        return
    messages, output = _parse_json(row.get("input")), _parse_json(row.get("output"))
    if isinstance(messages, Mapping):
        messages = messages.get("messages")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if isinstance(output, Mapping) and "choices" in output:
        output = [c.get("message") for c in output["choices"]]
    answers = output if isinstance(output, list) else [output]
    parameters = _parse_json(_first_field(row, "modelParameters", "model_parameters")) or {}
    yield ModelCall(
        model=str(_first_field(row, "model", "providedModelName", "provided_model_name") or "unknown"),
        messages=messages or [],
        answers=[_answer(a if isinstance(a, Mapping) else {"content": str(a)}) for a in answers if a],
        id=str(row.get("id") or ""),
        unusable=_redaction_complaint(messages, output),
        usage=_langfuse_usage(_parse_json(_first_field(row, "usageDetails", "usage_details", "usage"))),
        episode=str(_first_field(row, "sessionId", "session_id", "traceId", "trace_id") or name),
        temperature=parameters.get("temperature") if isinstance(parameters, Mapping) else None,
        at=_parse_time(_first_field(row, "startTime", "start_time")),
    )


FORMATS: dict[str, Callable[[Any, str, str], Iterator[ModelCall]]] = {
    "openai": _transcript,
    "litellm": _litellm,
    "langfuse": _langfuse,
}


def _answer(message: Row) -> dict[str, Any]:
    fields = {k: message[k] for k in ("content", "tool_calls") if message.get(k) is not None}
    return {"role": "assistant", "content": "", **fields}


def _redaction_complaint(*texts: Any) -> str:
    written = json.dumps(texts, default=str)
    return "calls whose text was redacted or cut off" if any(mark in written for mark in REDACTION_MARKS) else ""


def _usage(usage: Any) -> Usage | None:
    return usage_from(usage) if usage else None


def _langfuse_usage(usage: Any) -> Usage | None:
    """Token counts by class of a Langfuse observation, whose `input` leaves cached tokens out."""
    if not isinstance(usage, Mapping):
        return None
    counts = Usage(
        input=int(_first_field(usage, "input", "promptTokens", "prompt_tokens") or 0),
        cached_input=int(_first_field(usage, "input_cached_tokens", "cache_read_input_tokens") or 0),
        cache_write=int(_first_field(usage, "cache_creation_input_tokens", "input_cache_creation") or 0),
        output=int(_first_field(usage, "output", "completionTokens", "completion_tokens") or 0),
        reasoning=int(_first_field(usage, "output_reasoning_tokens") or 0),
    )
    return counts if counts.prompt else None


def _first_field(row: Row, *names: str) -> Any:
    """Value of the first of the fields that is present."""
    return next((row[n] for n in names if row.get(n) is not None), None)


def _parse_json(value: Any) -> Any:
    """Parse a value that an export may have written as JSON text."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _parse_time(value: Any) -> datetime | None:
    try:
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
        moment = datetime.fromisoformat(str(value))
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
