"""Response cache: the answer to an exactly equal model call, given again instead of being bought again.

Off unless configured, of one namespace each, and only for calls at temperature 0 or by request (`CacheUse`). Nothing
of it is approximate: `cache_key` says what makes two calls equal. An answer is kept whole, n samples as n samples, and
only where it ended as an answer ends: no error, refusal, answer that was cut off, or bill that had to be estimated.

A hit is booked with zero dollars as a class of its own (`Call.cached_response`), beside what it cost when it was
bought. Its tool calls get new ids, since one conversation may hear the same answer twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from agentcascade._util import forking
from agentcascade._util.threads import apart
from agentcascade.actions.refusals import refusal
from agentcascade.billing.cache_key import cache_key
from agentcascade.models.message_fields import has_answer
from agentcascade.models.tool_call_ids import make_id, tool_calls_of
from agentcascade.storage.cached_responses import CachedResponses, Sealed
from agentcascade.types import CacheUse, Completion, Message, Role, new_id, now

if TYPE_CHECKING:
    from agentcascade.config.sections import ResponseCacheConfig
    from agentcascade.protocols import ChatModel

ENDED = frozenset({"stop", "tool_calls", "function_call", "length"})
"""Finish reasons of answers that may be kept; ``length`` is the request's own limit, which is in the key."""
FIND_SECONDS = 1.0
"""That a call waits for the database; it is asked again after `REST_SECONDS`."""
REST_SECONDS = 10.0
FRESH_SECONDS = 60.0
"""For which this process gives an answer without asking the database, which another one may have cleared."""


class Hit(NamedTuple):
    """An answer held in this process."""

    answer: bytes
    at: datetime
    read: float


class ResponseCache:
    """Answers to exact requests: in this process, and behind it in the database. Thread-safe.

    Args:
        store: Where they are kept.
        settings: The configuration's ``response_cache``.
    """

    def __init__(self, store: CachedResponses, settings: ResponseCacheConfig) -> None:
        self._store, self._settings = store, settings
        self._held: OrderedDict[str, Hit] = OrderedDict()
        self._bytes = 0
        self._lock = forking.lock()
        self._rests_until = 0.0

    def entry(
        self, namespace: str, model: ChatModel, messages: Sequence[Message], options: Mapping[str, Any], use: CacheUse
    ) -> Entry | None:
        """The place of a call's answer; None where it has none."""
        sealed = cache_key(namespace, model, messages, options, use)
        return None if sealed is None else Entry(self, namespace, sealed, use != "no-cache")

    async def find(self, sealed: Sealed) -> Completion | None:
        """The answer as it was bought; None where none is kept, or the database does not say within a second."""
        held, present = self._take(sealed.row), time.monotonic()
        if held is None:
            if present < self._rests_until:
                return None
            try:
                async with asyncio.timeout(FIND_SECONDS):
                    found = await apart(self._store.find, sealed, self._settings.max_entry_bytes)
            except Exception:
                self._rests_until = time.monotonic() + REST_SECONDS
                return None
            if found is None:
                return None
            held = Hit(*found, present)
            self._hold(sealed.row, held)
        try:
            return Completion.model_validate_json(held.answer)
        except ValueError:  # another version's
            return None

    def keep(self, namespace: str, sealed: Sealed, completion: Completion) -> None:
        """Keep an answer. Does not wait."""
        try:
            answer = completion.model_dump_json().encode()
        except (ValueError, TypeError, RecursionError):
            return
        if len(answer) > self._settings.max_entry_bytes:
            return
        self._hold(sealed.row, Hit(answer, now(), time.monotonic()))
        self._store.save(namespace, sealed, answer)

    def close(self) -> None:
        """Wait for what is being written."""
        self._store.close()

    def _take(self, row: str) -> Hit | None:
        with self._lock:
            held = self._held.get(row)
            if held is None:
                return None
            age = (now() - held.at).total_seconds()
            if time.monotonic() - held.read > FRESH_SECONDS or age > self._settings.ttl_seconds:
                self._drop(row)
                return None
            self._held.move_to_end(row)
            return held

    def _hold(self, row: str, hit: Hit) -> None:
        with self._lock:
            self._drop(row)
            if len(hit.answer) > self._settings.memory_bytes:
                return
            self._held[row] = hit
            self._bytes += len(hit.answer)
            while self._bytes > self._settings.memory_bytes:
                self._drop(next(iter(self._held)))

    def _drop(self, row: str) -> None:
        dropped = self._held.pop(row, None)
        self._bytes -= len(dropped.answer) if dropped is not None else 0


class Entry:
    """The place of one call's answer in a cache. `reads`: an answer that is kept may be given."""

    def __init__(self, cache: ResponseCache, namespace: str, sealed: Sealed, reads: bool) -> None:
        self._cache, self._namespace, self._sealed, self._reads = cache, namespace, sealed, reads

    async def find(self, role: Role) -> Completion | None:
        """The answer that is kept, as a hit: without a cost, with ids of tool calls that were never given before."""
        started = time.perf_counter()
        bought = await self._cache.find(self._sealed) if self._reads else None
        if bought is None:
            return None
        salt = new_id("hit")
        return bought.model_copy(
            update={
                "messages": tuple(_with_new_ids(m, role, f"{salt}:{i}") for i, m in enumerate(bought.messages)),
                "dollars": Decimal(0),
                "avoided_dollars": bought.dollars,
                "cached_response": True,
                "seconds": time.perf_counter() - started,
            }
        )

    def keep(self, completion: Completion, answers: int, *, limited: bool = False) -> None:
        """Keep the answer to a call for so many `answers`, if it may be given again.

        `limited`: its length was, by what is no part of the request.
        """
        if is_keepable(completion, answers) and not (limited and "length" in completion.finish_reasons):
            self._cache.keep(self._namespace, self._sealed, completion)


def is_keepable(completion: Completion, answers: int) -> bool:
    """Whether a completion is whole, nowhere empty, no refusal, and surely billed: what it is given again as."""
    reasons = completion.finish_reasons
    if completion.estimated or completion.lost or completion.cached_response:
        return False
    if len(completion.messages) != answers or len(reasons) != answers or not set(reasons) <= ENDED:
        return False
    return all(has_answer(m) and not refusal(m, None, reason) for m, reason in zip(completion.messages, reasons))


def _with_new_ids(message: Message, role: Role, salt: str) -> Message:
    calls = tool_calls_of(message)
    if not calls:
        return message
    return {**message, "tool_calls": [{**call, "id": make_id(role, salt, i)} for i, call in enumerate(calls)]}
