"""JSON lines of batch files: requests in OpenAI's format (vLLM's ``run-batch`` reads it too), results within bounds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Any

from agentcascade._util import bounds
from agentcascade._util.control_characters import one_line
from agentcascade.batches.types import BatchLine, Outcome
from agentcascade.errors import without_secrets
from agentcascade.wire.anthropic_answer import read_answer

LONGEST_LINE = 16 * 2**20
"""Bytes of one result; longer ones count as unreadable."""
MOST_BYTES = 8 * 2**30
"""Bytes of one file of results: 100,000 answers of 80 KiB."""
CUSTOM_ID = 64
"""Characters of a custom id at most, as Anthropic has it."""
EXPIRED, CANCELLED = ("batch_expired",), ("batch_cancelled", "batch_canceled")
"""Codes of OpenAI's errors for requests that were not run."""


def write_line(value: Mapping[str, Any]) -> bytes:
    """One line, with the line break; lone surrogates, which no provider's JSON takes, are replaced."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode(errors="replace") + b"\n"


def openai_line(custom_id: str, url: str, body: Mapping[str, Any]) -> bytes:
    """A request in the format of OpenAI's Batch API."""
    return write_line({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def provider_text(text: object, most: int = 300) -> str:
    """What a provider says of a batch or request, as it may be kept and shown: one line, of text, without keys."""
    return one_line(without_secrets(str(text)[: 4 * most]))[:most]


async def split_lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes | None]:
    """Lines of a file as it comes, without blank ones; None for one that is longer than `LONGEST_LINE`.

    Ends early after `MOST_BYTES`: the results that are cut off count as missing.
    """
    held, total, skips = bytearray(), 0, False
    async for chunk in chunks:
        total += len(chunk)
        if total > MOST_BYTES:
            yield None
            return
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            held += chunk[start:end]
            start = end + 1
            if skips or len(held) > LONGEST_LINE:
                yield None
            elif held.strip():
                yield bytes(held)
            held, skips = bytearray(), False
        if not skips:
            held += chunk[start:]
            if len(held) > LONGEST_LINE:
                held, skips = bytearray(), True
    if skips or held.strip():
        yield None if skips else bytes(held)


def read_openai_line(line: bytes) -> BatchLine | None:
    """A line of an output or error file of OpenAI's Batch API; None where it is none."""
    entry = _entry(line)
    custom_id = _custom_id(entry)
    if not custom_id:
        return None
    response, error = entry.get("response"), entry.get("error")
    status = response.get("status_code") if isinstance(response, dict) else None
    body = response.get("body") if isinstance(response, dict) else None
    if status == 200 and isinstance(body, dict):
        return BatchLine(custom_id, "succeeded", body)
    if not isinstance(error, dict):  # an HTTP error stands in the body, as its own endpoint would have said it
        inner = body.get("error") if isinstance(body, dict) else None
        error = inner if isinstance(inner, dict) else {"message": inner or body or "no reason given"}
    code = str(error.get("code") or "")[:80]
    outcome: Outcome = "expired" if code in EXPIRED else "cancelled" if code in CANCELLED else "errored"
    return _failed(custom_id, outcome, error.get("message") or code, status)


def read_anthropic_line(line: bytes) -> BatchLine | None:
    """A line of the results of Anthropic's Message Batches, its message as a chat completion; None where it is none."""
    entry = _entry(line)
    custom_id, result = _custom_id(entry), entry.get("result")
    if not custom_id or not isinstance(result, dict):
        return None
    kind = result.get("type")
    if kind == "succeeded" and isinstance(result.get("message"), dict):
        try:
            return BatchLine(custom_id, "succeeded", read_answer(result["message"]))
        except Exception as problem:  # of a message that is none; its request was run
            return BatchLine(custom_id, "succeeded", {"error": {"message": provider_text(problem)}})
    if kind in ("expired", "canceled"):
        return _failed(custom_id, "expired" if kind == "expired" else "cancelled", str(kind), 0)
    if kind != "errored":
        return None
    error = result.get("error")
    inner = error.get("error") if isinstance(error, dict) and isinstance(error.get("error"), dict) else error
    fields = inner if isinstance(inner, dict) else {}
    status = 400 if fields.get("type") == "invalid_request_error" else 500
    return _failed(custom_id, "errored", fields.get("message") or "no reason given", status)


def _failed(custom_id: str, outcome: Outcome, message: Any, status: Any) -> BatchLine:
    number = status if isinstance(status, int) and not isinstance(status, bool) and 100 <= status < 600 else 0
    return BatchLine(custom_id, outcome, None, provider_text(message), number)


def _custom_id(entry: Mapping[str, Any]) -> str:
    """Empty where a line names no request."""
    value = entry.get("custom_id")
    return value if isinstance(value, str) and len(value) <= CUSTOM_ID else ""


def _entry(line: bytes) -> dict[str, Any]:
    """The line's object; an empty one where it is none."""
    try:
        value = bounds.loads(line.decode("utf-8-sig"), longest=LONGEST_LINE)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
