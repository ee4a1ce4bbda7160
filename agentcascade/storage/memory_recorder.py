"""Recorder that keeps decisions in memory, for tests and workers."""

from __future__ import annotations

from agentcascade.types import Decision, Draft, EpisodeEnd, Recall, Shadow


class MemoryRecorder:
    """A `Recorder` that keeps records in lists, in the order in which they came. Not thread-safe.

    `decisions`, `shadows`, `drafts`, `ends` and `recalls` are those recorded so far.

    >>> recorder = MemoryRecorder()
    >>> recorder.flush(), recorder.decisions
    (True, [])
    """

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.shadows: list[Shadow] = []
        self.drafts: list[Draft] = []
        self.ends: list[EpisodeEnd] = []
        self.recalls: list[Recall] = []

    def record(self, decision: Decision) -> None:
        """Append to `decisions`."""
        self.decisions.append(decision)

    def record_shadow(self, shadow: Shadow) -> None:
        """Append to `shadows`."""
        self.shadows.append(shadow)

    def record_draft(self, draft: Draft) -> None:
        """Append to `drafts`."""
        self.drafts.append(draft)

    def record_end(self, end: EpisodeEnd) -> None:
        """Append to `ends`."""
        self.ends.append(end)

    def record_recall(self, recall: Recall) -> None:
        """Append to `recalls`."""
        self.recalls.append(recall)

    def take_decisions(self) -> list[Decision]:
        """The decisions so far; they are kept no longer."""
        taken, self.decisions = self.decisions, []
        return taken

    def flush(self, seconds: float | None = None) -> bool:
        """Nothing is waiting."""
        return True

    def close(self, seconds: float | None = None) -> None:
        """Nothing is open."""
