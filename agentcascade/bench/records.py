"""What a benchmark keeps: one JSON line per finished episode, and the settings it was run with.

The lines are the only state, so a run killed at any moment resumes from them: a torn last line is an episode that
did not happen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import Field

from agentcascade._util.files import append_to, write_atomically
from agentcascade.errors import BenchError, describe
from agentcascade.types import Decision, Frozen, Shadow, Trajectory


@dataclass(frozen=True)
class Job:
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
    """Of tasks that are only solved when all of them are"""
    decisions: tuple[Decision, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    trajectory: Trajectory | None = None

    @property
    def key(self) -> tuple[str, int, str]:
        return self.policy, self.seed, self.task

    @property
    def failure(self) -> str | None:
        """Why it is no episode of its policy: it broke, or the student failed at each step that it was asked at."""
        if self.error is not None:
            return self.error
        asked = [d for d in self.decisions if _failed(d.failures) or any(c.role == "student" for c in d.calls)]
        told = [failure for d in asked if (failure := _failed(d.failures))]
        if not asked:
            told = [s.failures[0] for s in self.shadows if s.failures and not s.samples]
        return told[0] if told and len(told) == len(asked or self.shadows) else None


def _failed(failures: Sequence[str]) -> str | None:
    """What the student failed of."""
    return next((f for f in failures if f.startswith("student: ")), None)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The settings that the run in `folder` was started with. Raises `BenchError` where they cannot be read."""
    path = folder / "run.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        what = f"it holds a {type(found).__name__}"
    except (OSError, ValueError) as error:
        what = describe(error)
    raise BenchError(f"{path} is not the settings of a run ({what}): choose another --out")


class RunStore:
    """The folder of one run: `run.json` (settings), `episodes.jsonl` (records), a bank per seed."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = folder
        self._episodes = folder / "episodes.jsonl"
        manifest = folder / "run.json"
        if manifest.exists():
            if not resume:
                raise BenchError(f"{folder} holds a run already: add --resume to continue it, or choose another --out")
            self._same_settings(read_manifest(folder), settings)
        else:
            if self._episodes.exists():
                raise BenchError(f"{folder} holds episodes of a run whose run.json is gone: choose another --out")
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(manifest, json.dumps(settings, indent=2))
        self._mend()
        self._file = append_to(self._episodes)

    def _same_settings(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(new))
        for key in sorted(old.keys() | wanted.keys()):
            if key not in ("versions", "started", "notes") and old.get(key) != wanted.get(key):
                raise BenchError(
                    f"{self.folder} was run with {key} = {json.dumps(old.get(key))}, "
                    f"not {json.dumps(wanted.get(key))}: "
                    "resume with the same settings, or choose another --out"
                )

    def _mend(self) -> None:
        """Cut a line that was being written when the run was killed."""
        if not self._episodes.exists():
            return
        with self._episodes.open("rb+") as file:
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)

    def append(self, record: EpisodeRecord) -> None:
        """Durable when it returns. Raises `BenchError` where the disk takes no more."""
        try:
            self._file.write(record.model_dump_json() + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise BenchError(
                f"{self._episodes} cannot be written ({error}): what was played is kept; make room, and continue with "
                "--resume"
            ) from error

    def __iter__(self) -> Iterator[EpisodeRecord]:
        if self._episodes.exists():
            with self._episodes.open(encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    try:
                        yield EpisodeRecord.model_validate_json(line)
                    except ValueError as error:
                        raise BenchError(
                            f"{self._episodes} line {number} is no episode ({describe(error)}): delete that line to "
                            "have it played again, or choose another --out"
                        ) from error

    def bank_url(self, seed: int, shared: str | None = None) -> str:
        """The bank of a seed: a file beside the records, or a schema of this run's in the database at `shared`."""
        if shared is None:
            return f"sqlite:///{self.folder / f'bank-{seed}.db'}"
        from agentcascade.storage.schemas import within_schema

        run = str(self.folder.resolve()).encode() + (self.folder / "run.json").read_bytes()
        return within_schema(shared, f"bench_{blake2b(run, digest_size=6).hexdigest()}_{seed}")

    def close(self) -> None:
        """What a full disk did not take was told when it was appended."""
        with suppress(OSError):
            self._file.close()
