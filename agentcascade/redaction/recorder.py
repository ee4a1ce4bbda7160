"""Recorder that redacts what it hands on, in the background where that takes long."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from agentcascade.errors import describe
from agentcascade.protocols import Recorder, can_defer
from agentcascade.redaction.redactor import Redactor
from agentcascade.types import Decision, Draft, EpisodeEnd, Frozen, Recall, Shadow

F = TypeVar("F", bound=Frozen)
log = logging.getLogger("agentcascade.redaction")

WITHHELD = "[withheld]"
UNREDACTED = "the process ended before the texts of this record were redacted: they are not kept"


class RedactingRecorder:
    """A `Recorder` that stores nothing unredacted. Where a hook fails, contents are withheld and the money is kept.

    What takes long, hooks and long texts, is redacted in the background where `recorder` can defer: until then
    `without_texts` stands for it.

    Args:
        recorder: Gets the redacted records. `flush` and `close` go to it.
        redactor: What redacts them.

    >>> from agentcascade.ledger import MemoryRecorder
    >>> stored = MemoryRecorder()
    >>> recorder = RedactingRecorder(stored, Redactor())
    >>> recorder.flush()
    True
    """

    def __init__(self, recorder: Recorder, redactor: Redactor) -> None:
        self._recorder = recorder
        self._redactor = redactor
        self._withholding = Redactor(keys=False, emails=False, phones=False, hooks=[lambda text: WITHHELD])
        self._later = recorder if can_defer(recorder) else None

    def record(self, decision: Decision) -> None:
        """Hand on the decision, redacted."""
        self._hand_on(self._recorder.record, Redactor.decision, decision)

    def record_shadow(self, shadow: Shadow) -> None:
        """Hand on the shadow, redacted."""
        self._hand_on(self._recorder.record_shadow, Redactor.shadow, shadow)

    def record_draft(self, draft: Draft) -> None:
        """Hand on the draft, redacted."""
        self._hand_on(self._recorder.record_draft, Redactor.draft, draft)

    def record_end(self, end: EpisodeEnd) -> None:
        """Hand on the episode's end, redacted."""
        self._hand_on(self._recorder.record_end, Redactor.end, end)

    def record_recall(self, recall: Recall) -> None:
        """Hand on the recall, redacted."""
        self._hand_on(self._recorder.record_recall, Redactor.recall, recall)

    def flush(self, seconds: float | None = None) -> bool:
        """The recorder's own: False when it is not all durable after so many `seconds`."""
        return self._recorder.flush(seconds)

    def close(self, seconds: float | None = None) -> None:
        """Close the recorder behind it, within so many `seconds`."""
        self._recorder.close(seconds)

    def _hand_on(self, give: Callable[[F], None], redact: Callable[[Redactor, F], F], item: F) -> None:
        if self._later is None or self._redactor.is_quick(item):
            give(self._safe(redact, item))
        else:
            self._later.defer(lambda: self._safe(redact, item), without_texts(item))

    def _safe(self, redact: Callable[[Redactor, F], F], item: F) -> F:
        try:
            return redact(self._redactor, item)
        except Exception as error:
            log.error("redaction fails, contents are withheld from the records: %s", describe(error))
            return redact(self._withholding, item)


def without_texts(item: F) -> F | None:
    """The record with ids, outcome and bill alone, to be kept while its texts are redacted; None for a mere text."""
    changed: dict[str, Any] = {}
    if isinstance(item, Decision):
        changed = {"goal": "", "reason": WITHHELD, "votes": {}, "struck": {}, "action": None, "failures": (UNREDACTED,)}
    elif isinstance(item, Shadow):  # with no samples it is none that tuning learns from
        changed = dict.fromkeys(("goal", "observation"), "") | dict.fromkeys(("teacher_action", "gold", "agreement"))
        changed |= {"samples": (), "accepted": False, "failures": (UNREDACTED,)}
    elif isinstance(item, EpisodeEnd):
        changed = {"goal": WITHHELD, "plan": ""}
    elif isinstance(item, Recall):
        runs = tuple(run.model_copy(update={"failures": ()}) for run in item.runs)
        changed = {"question": WITHHELD, "text": "", "left_out": (UNREDACTED,), "runs": runs}
    return item.model_copy(update=changed) if changed else None
