"""Records of a benchmark: episodes to play, finished episodes, and the run folder that keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import Field

from agentcascade.bench.run_folder import RunFolder
from agentcascade.types import Decision, Frozen, Shadow, Trajectory


@dataclass(frozen=True)
class EpisodeJob:
    """One episode to play; picklable."""

    policy: str
    seed: int
    index: int
    task: str
    path: str
    teacher_share: float | None = None
    category: str = ""
    group: str = ""

    @property
    def key(self) -> tuple[str, int, str]:
        return self.policy, self.seed, self.task


class EpisodeRecord(Frozen):
    """One finished episode."""

    policy: str
    seed: int
    index: int
    task: str
    success: bool
    steps: int = Field(ge=0)
    teacher_steps: int = Field(ge=0)
    dollars: Decimal | None
    teacher_dollars: Decimal | None = None
    seconds: float
    error: str | None = None
    group: str = ""
    """Group of tasks that counts as solved when all of them are"""
    decisions: tuple[Decision, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    trajectory: Trajectory | None = None

    @property
    def key(self) -> tuple[str, int, str]:
        return self.policy, self.seed, self.task

    @property
    def failure(self) -> str | None:
        """Why the episode does not count: it broke, or the student failed at each step that asked it."""
        if self.error is not None:
            return self.error
        student_steps = [
            d for d in self.decisions if _student_failure(d.failures) or any(c.role == "student" for c in d.calls)
        ]
        failures = [failure for d in student_steps if (failure := _student_failure(d.failures))]
        if not student_steps:
            failures = [s.failures[0] for s in self.shadows if s.failures and not s.samples]
        return failures[0] if failures and len(failures) == len(student_steps or self.shadows) else None


def _student_failure(failures: Sequence[str]) -> str | None:
    """The student's failure among a step's."""
    return next((f for f in failures if f.startswith("student: ")), None)


class EpisodeRunFolder(RunFolder[EpisodeRecord]):
    """Run folder of episodes: ``run.json`` (settings), ``episodes.jsonl`` (records), a bank per seed."""

    file_name = "episodes.jsonl"
    noun = "episode"

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        super().__init__(EpisodeRecord, folder, settings, resume=resume)

    def bank_url(self, seed: int, shared: str | None = None) -> str:
        """URL of a seed's bank: a file beside the records, or a schema of this run in the database at `shared`."""
        if shared is None:
            return f"sqlite:///{self.folder / f'bank-{seed}.db'}"
        from agentcascade.storage.schemas import within_schema

        run = str(self.folder.resolve()).encode() + (self.folder / "run.json").read_bytes()
        return within_schema(shared, f"bench_{blake2b(run, digest_size=6).hexdigest()}_{seed}")
