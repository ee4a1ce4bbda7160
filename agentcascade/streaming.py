"""A provider's stream, handed on as it comes and put together at its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from inspect import isasyncgen
from types import SimpleNamespace
from typing import Any

from agentcascade.deltas import Assembly
from agentcascade.types import Delta

LAYERS = 4
KEPT = ("content", "reasoning_content", "refusal", "thinking_blocks", "tool_calls")


class Shown:
    """Hands the deltas of choice 0 to `on_delta`; `begun` says whether the caller has seen any."""

    def __init__(self, on_delta: Callable[[Delta], None]) -> None:
        self._on_delta = on_delta
        self.begun = False

    async def whole(self, stream: Any) -> Any:
        """Read litellm's stream to its end; returns a response such as one that was not streamed.

        Raises `ConnectionError` when it ends without a finish reason. Closes the connection when cancelled.
        """
        assembly, usage, reason = Assembly(), None, None
        refusals = _refusals(stream)

        def show(delta: Delta) -> None:
            if delta:
                self.begun = True
                assembly.add(delta)
                self._on_delta(delta)

        try:
            async for chunk in stream:
                usage = getattr(chunk, "usage", None) or usage
                while refusals:
                    show({"refusal": refusals.pop(0)})
                for choice in _first(chunk):
                    reason = choice.finish_reason or reason
                    show(plain(choice.delta))
        finally:
            await _close(stream)
        if reason is None or not _finished(stream):
            raise ConnectionError("the provider's stream broke off before the answer ended")
        seen = getattr(stream, "chunks", None)
        if seen and not any(getattr(chunk, "usage", None) for chunk in seen):
            usage = None  # litellm has counted the tokens itself: no bill
        choices = [] if assembly.message is None else [_choice(assembly.message, reason)]
        return SimpleNamespace(choices=choices, usage=usage)


def _first(chunk: Any) -> list[Any]:
    """Choice 0, where the chunk has a part of it."""
    return [c for c in getattr(chunk, "choices", None) or () if not getattr(c, "index", 0)]


def _refusals(stream: Any) -> list[str]:
    """Fills as the stream is read: litellm passes over the chunks that hold nothing but a part of a refusal."""
    found: list[str] = []
    make = getattr(stream, "chunk_creator", None)
    if make is None:
        return found

    def heard(chunk: Any) -> Any:
        made = make(chunk=chunk)
        if made is None:
            found.extend(r for c in _first(chunk) if (r := getattr(getattr(c, "delta", None), "refusal", None)))
        return made

    stream.chunk_creator = heard
    return found


def plain(delta: Any) -> Delta:
    """A delta as plain data, without what is empty."""
    if delta is None:
        return {}
    found: Delta = {}
    for name in KEPT:
        value = getattr(delta, name, None)
        if value:
            found[name] = [_call(v) for v in value] if name == "tool_calls" else value
    return found


def _call(call: Any) -> dict[str, Any]:
    fields: dict[str, Any] = call.model_dump(exclude_none=True) if hasattr(call, "model_dump") else dict(call)
    return fields


def _choice(message: dict[str, Any], reason: str) -> SimpleNamespace:
    return SimpleNamespace(message={k: v for k, v in message.items() if v is not None}, finish_reason=reason)


def _finished(stream: Any) -> bool:
    """Whether the provider itself said that it was done: litellm makes up a reason where none came."""
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
