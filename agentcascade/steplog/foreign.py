"""Foreign logs as model calls: OpenAI transcripts, litellm's payloads and spend logs, Langfuse's exports.

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
HIDDEN = ("redacted-by-litellm", "litellm_truncated")
"""What litellm writes in place of text: different requests look the same then"""


def calls(path: Path, form: str = "auto") -> Iterator[ModelCall]:
    """The model calls of a JSON or JSONL file. Raises `InvalidRequest` for an unknown or unreadable form."""
    if form != "auto" and form not in FORMS:
        raise InvalidRequest(f"format '{form}' is unknown: {did_you_mean(form, (*FORMS, 'auto', 'plain'))}")
    for number, row in enumerate(rows(path), 1):
        own = form if form != "auto" else guess(row)
        if own is None:
            raise InvalidRequest(f"{path} entry {number}: neither a transcript nor a call of litellm or Langfuse")
        try:
            yield from FORMS[own](row, f"{path.stem}-{number}", path.stem)
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
            said = f"{type(error).__name__}: {str(error)[:200]}"
            raise InvalidRequest(f"{path} entry {number} is not of format {own}: {said}") from None


def rows(path: Path) -> Iterator[Any]:
    """The objects of a JSON array, of one JSON object, or of JSON lines."""
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


def guess(row: Any) -> str | None:
    """The format of an entry."""
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
    response, messages = _json(row.get("response")), _json(row.get("messages"))
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
        unusable="answers from a cache" if str(row.get("cache_hit")).lower() == "true" else _hidden(messages, choices),
        usage=_usage(response.get("usage") if isinstance(response, Mapping) else None),
        episode=str(row.get("session_id") or row.get("trace_id") or name),
        temperature=parameters.get("temperature"),
        at=_time(row.get("startTime")),
    )


OBSERVATIONS = ("GENERATION", "SPAN", "EVENT")


def _langfuse(row: Row, name: str, file: str) -> Iterator[ModelCall]:
    if row.get("type") not in (None, "GENERATION"):
        return
    asked, said = _json(row.get("input")), _json(row.get("output"))
    if isinstance(asked, Mapping):
        asked = asked.get("messages")
    if isinstance(asked, str):
        asked = [{"role": "user", "content": asked}]
    if isinstance(said, Mapping) and "choices" in said:
        said = [c.get("message") for c in said["choices"]]
    answers = said if isinstance(said, list) else [said]
    parameters = _json(_first(row, "modelParameters", "model_parameters")) or {}
    yield ModelCall(
        model=str(_first(row, "model", "providedModelName", "provided_model_name") or "unknown"),
        messages=asked or [],
        answers=[_answer(a if isinstance(a, Mapping) else {"content": str(a)}) for a in answers if a],
        id=str(row.get("id") or ""),
        unusable=_hidden(asked, said),
        usage=_details(_json(_first(row, "usageDetails", "usage_details", "usage"))),
        episode=str(_first(row, "sessionId", "session_id", "traceId", "trace_id") or name),
        temperature=parameters.get("temperature") if isinstance(parameters, Mapping) else None,
        at=_time(_first(row, "startTime", "start_time")),
    )


FORMS: dict[str, Callable[[Any, str, str], Iterator[ModelCall]]] = {
    "openai": _transcript,
    "litellm": _litellm,
    "langfuse": _langfuse,
}


def _answer(message: Row) -> dict[str, Any]:
    kept = {k: message[k] for k in ("content", "tool_calls") if message.get(k) is not None}
    return {"role": "assistant", "content": "", **kept}


def _hidden(*texts: Any) -> str:
    written = json.dumps(texts, default=str)
    return "calls whose text was redacted or cut off" if any(mark in written for mark in HIDDEN) else ""


def _usage(usage: Any) -> Usage | None:
    return usage_from(usage) if usage else None


def _details(usage: Any) -> Usage | None:
    """Langfuse's counts by class; `input` leaves cached tokens out, as OpenAI's own integration writes it."""
    if not isinstance(usage, Mapping):
        return None
    found = Usage(
        input=int(_first(usage, "input", "promptTokens", "prompt_tokens") or 0),
        cached_input=int(_first(usage, "input_cached_tokens", "cache_read_input_tokens") or 0),
        cache_write=int(_first(usage, "cache_creation_input_tokens", "input_cache_creation") or 0),
        output=int(_first(usage, "output", "completionTokens", "completion_tokens") or 0),
        reasoning=int(_first(usage, "output_reasoning_tokens") or 0),
    )
    return found if found.prompt else None


def _first(row: Row, *names: str) -> Any:
    """The first of the fields that is there."""
    return next((row[n] for n in names if row.get(n) is not None), None)


def _json(value: Any) -> Any:
    """Exports write objects as text, or not."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _time(value: Any) -> datetime | None:
    try:
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
        made = datetime.fromisoformat(str(value))
        return made if made.tzinfo else made.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
