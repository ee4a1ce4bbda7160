"""Draft of a step in mode ``collect``: kept for whoever is asked next, or told how the episode ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade._util.threads import apart
from agentcascade.types import Draft

if TYPE_CHECKING:
    from agentcascade.protocols import Recorder

SECONDS = 1.0


async def keep(recorder: Recorder, draft: Draft) -> None:
    """Record a step where the next replica finds it, which may look for it milliseconds after the answer.

    A database that is busy for longer than `SECONDS` keeps no answer back: then the step follows.
    """
    recorder.record_draft(draft)
    await apart(recorder.flush, SECONDS)
