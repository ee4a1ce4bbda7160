"""Rounds of audits that are kept in the database: held while they are led, taken over from processes that are gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from agentcascade._util.threads import apart
from agentcascade.errors import BatchFailed, StorageError, describe
from agentcascade.messages import text_of
from agentcascade.prompts.together import read_answers
from agentcascade.step.audit_together import SharedCompletion
from agentcascade.types import Completion

if TYPE_CHECKING:
    from agentcascade.batches.run import Batches
    from agentcascade.batches.types import BatchAnswer
    from agentcascade.protocols import ChatModel
    from agentcascade.storage.audit_rounds import AskedAudit, AuditRoundStore, DrawnAudit, StoredRound

log = logging.getLogger("agentcascade.audit")

REFUSED = (401, 403)
"""HTTP statuses of a key that is not taken"""
UNSENT = "the process ended before this audit was sent, or its request failed"


class KeptRounds:
    """The rounds of one cascade, as far as this process holds them. Where the database fails, they are in memory alone.

    Args:
        store: Where they are.
        cascade: Whose audits they are.
        teacher: Who is asked: rounds of another teacher are left to a process that has it.
    """

    def __init__(self, store: AuditRoundStore, cascade: str, teacher: ChatModel | None) -> None:
        self._store, self._cascade, self._teacher = store, cascade, teacher
        self._held: set[str] = set()

    def forked(self) -> None:
        """In a child process: what is held is the parent's."""
        self._held = set()
        self._store.renew()

    async def put(self, drawn: Sequence[DrawnAudit]) -> str:
        """Keep a round before anything of it is sent; returns its id, empty where it could not be written."""
        if self._teacher is None:
            return ""
        try:
            id = await apart(self._store.put, self._cascade, self._teacher.name, drawn)
        except Exception as error:
            log.warning("a round of audits is not kept: if this process ends, nobody judges it (%s)", describe(error))
            return ""
        self._held.add(id)
        return id

    async def note_asked(self, id: str, asked: Mapping[int, AskedAudit]) -> None:
        """Keep by which requests the audits at these positions are asked, before they are sent."""
        if id:
            await apart(self._store.note_asked, id, asked)

    async def is_ours(self, id: str, position: int) -> bool:
        """Whether the audit at `position` is to be judged here: it is counted as judged from now on."""
        return not id or await apart(self._store.note_judged, id, position)

    async def end(self, id: str) -> None:
        """Forget a round that is judged."""
        if id:
            self._held.discard(id)
            await apart(self._store.end, id)

    async def leave(self, id: str) -> None:
        """Leave a round to the process that comes next."""
        self._held.discard(id)
        with suppress(Exception):  # or until its time is over
            await apart(self._store.release, [id])

    async def hold(self) -> None:
        """Say that this process is there."""
        await apart(self._store.hold, sorted(self._held))

    async def take_over(self) -> list[StoredRound]:
        """Rounds that nobody holds."""
        if self._teacher is None:
            return []
        taken = await apart(self._store.take_over, self._cascade, self._teacher.name)
        self._held.update(one.id for one in taken)
        return taken

    async def answers(
        self, stored: StoredRound, batches: Batches, seconds: float
    ) -> tuple[dict[int, Completion | Exception], list[BatchAnswer]]:
        """By position, what the teacher answered to those that are not judged; and the answers, to be taken.

        Raises:
            StorageError: The database fails.
            Exception: The provider refuses the key: another process may have the right one.
        """
        assert self._teacher is not None
        waiting = {i: a.asked for i, a in enumerate(stored.audits) if i >= stored.judged and a.drawn.is_asked}
        keys = list(dict.fromkeys(asked.key for asked in waiting.values() if asked is not None))
        given: dict[str, BatchAnswer] = {}
        lost: Exception = BatchFailed(UNSENT)
        try:
            async with asyncio.timeout(seconds):
                given = await batches.answers_to(self._teacher, keys)
        except Exception as error:
            if isinstance(error, StorageError) or getattr(error, "status_code", None) in REFUSED:
                raise
            lost = error
        found = {i: _answer(asked, given.get(asked.key) if asked else None, lost) for i, asked in waiting.items()}
        return found, list(given.values())


class AskedBy:
    """Where it is noted by which requests questions are asked: at which positions of which round they stand."""

    def __init__(self, kept: KeptRounds | None, round: str, positions: Sequence[int]) -> None:
        self._kept, self._round, self._positions = kept, round, positions

    async def note(
        self, keys: Mapping[int, str], groups: Sequence[Sequence[int]], codes: Sequence[Sequence[str]] = ()
    ) -> None:
        """Of each request its key, its questions, and where there are several the codes of their answers."""
        if self._kept is None or not self._round:
            return
        from agentcascade.storage.audit_rounds import AskedAudit

        asked = {
            self._positions[question]: AskedAudit(key=key, codes=tuple(codes[request]) if codes else (), place=place)
            for request, key in keys.items()
            for place, question in enumerate(groups[request])
        }
        await self._kept.note_asked(self._round, asked)


def _answer(asked: AskedAudit | None, answer: BatchAnswer | None, lost: Exception) -> Completion | Exception:
    if asked is None or answer is None:
        return lost
    completion = answer.completion
    if completion is None:
        return BatchFailed(answer.error)
    if not asked.codes:
        return completion
    text = read_answers(text_of(completion.messages[0]), list(asked.codes))[asked.place]
    if not text:
        return BatchFailed("the call that this audit shared has no answer to it")
    messages = ({"role": "assistant", "content": text},)
    return SharedCompletion(**{**dict(completion), "messages": messages, "situations": len(asked.codes)})
