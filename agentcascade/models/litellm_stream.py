"""litellm's streams, read to their end, with what litellm leaves out of them."""

from __future__ import annotations

from contextlib import suppress
from inspect import isasyncgen
from typing import Any

from agentcascade.models import message_fields
from agentcascade.models.response_reader import StreamReader
from agentcascade.types import Delta

LAYERS = 4
SKIPPED = ("refusal", *message_fields.THINKING_FIELDS)


async def read_stream(litellm_stream: Any, reader: StreamReader) -> bool:
    """Every chunk to `reader`; returns whether the provider itself said that it was done: litellm makes that up.

    Closes the connection also when cancelled.
    """
    skipped, errors = _skipped_by_litellm(litellm_stream)
    _accept_end_without_reason(litellm_stream)
    usage = _UsageFilter(litellm_stream)
    try:
        async for chunk in litellm_stream:
            while skipped:
                reader.show(skipped.pop(0))
            reader.read(usage.without_made_up(chunk))
        for error in errors:
            reader.read(error)
    finally:
        await _close(litellm_stream)
    return _provider_finished(litellm_stream)


class _UsageFilter:
    """Tells a provider's usage from what litellm has counted itself where none came."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def without_made_up(self, chunk: Any) -> Any:
        seen = getattr(self._stream, "chunks", None)
        if getattr(chunk, "usage", None) is None or not seen or any(getattr(c, "usage", None) for c in seen):
            return chunk
        return {"choices": getattr(chunk, "choices", None) or []}


def _skipped_by_litellm(stream: Any) -> tuple[list[Delta], list[Any]]:
    """(parts of refusals and thoughts, errors of vLLM) of chunks that litellm passes over, as the stream is read."""
    skipped: list[Delta] = []
    errors: list[Any] = []
    make = getattr(stream, "chunk_creator", None)
    if make is None:
        return skipped, errors

    def make_and_note(chunk: Any) -> Any:
        if message_fields.get_field(chunk, "object") == "error":
            errors.append(chunk)
        made = make(chunk=chunk)
        if made is None:
            for choice in getattr(chunk, "choices", None) or ():
                delta = message_fields.read_delta(message_fields.get_field(choice, "delta"))
                said = {name: delta[name] for name in SKIPPED if name in delta}
                if said and not message_fields.get_field(choice, "index"):
                    skipped.append(said)
        return made

    stream.chunk_creator = make_and_note
    return skipped, errors


def _accept_end_without_reason(stream: Any) -> None:
    """An end without a finish reason is ours to judge: since 1.110 litellm raises for it behind ``[DONE]``, too."""
    if hasattr(stream, "_should_fail_on_clean_eof"):
        stream._should_fail_on_clean_eof = lambda: False


def _provider_finished(stream: Any) -> bool:
    said = [getattr(stream, name, True) for name in ("received_finish_reason", "intermittent_finish_reason")]
    return any(s is not None for s in said)


async def _close(stream: Any) -> None:
    """Close what litellm wraps, for some providers in several layers without a `close` of their own."""
    owner: Any = stream
    for _ in range(LAYERS):
        if owner is None:
            return
        inner = _inside(owner)  # before it is closed: a generator that has ended knows nothing any more
        close = getattr(owner, "aclose", None) or getattr(owner, "close", None)
        if close is not None:
            with suppress(Exception):  # what ended the stream is what its reader is to hear of
                closing = close()
                if hasattr(closing, "__await__"):
                    await closing
        owner = inner


def _inside(owner: Any) -> Any:
    """What a wrapper reads from: litellm's names for it, or the response whose lines a generator gives."""
    if isasyncgen(owner):
        made_by = owner.ag_frame.f_locals.get("self") if owner.ag_frame is not None else None
        # Other makers of generators live on: clients, and handlers of the user's own.
        return made_by if hasattr(made_by, "aiter_lines") else None
    names = ("completion_stream", "streaming_response", "response")
    return next((x for name in names if (x := getattr(owner, name, None)) is not None), None)
