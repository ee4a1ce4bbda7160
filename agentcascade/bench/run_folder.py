"""Run folder of a resumable benchmark: its settings in ``run.json``, and one JSON line a finished record.

The lines are the only state, so a run killed at any moment resumes from them; a torn last line is a record that was not
finished.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from agentcascade._util.files import append_to, write_atomically
from agentcascade.errors import BenchError, describe
from agentcascade.types import Frozen

R = TypeVar("R", bound=Frozen)

UNCOMPARED = ("versions", "started", "notes")
"""Settings that may differ where a run is resumed"""


def read_manifest(folder: Path) -> dict[str, Any]:
    """Settings that the run in `folder` was started with. Raises `BenchError` where they cannot be read."""
    path = folder / "run.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(settings, dict):
            return settings
        complaint = f"it holds a {type(settings).__name__}"
    except (OSError, ValueError) as error:
        complaint = describe(error)
    raise BenchError(f"{path} is not the settings of a run ({complaint}): choose another --out")


class RunFolder(Generic[R]):
    """Folder of one run, open for appending records of one kind. Raises `BenchError` for the folder of another run."""

    file_name: ClassVar[str]
    noun: ClassVar[str]
    """What a record is called in messages"""
    durable: ClassVar[bool] = True
    """Whether each record is on the disk when `append` returns; else when the folder is closed"""

    def __init__(self, record: type[R], folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = folder
        self._record = record
        self._path = folder / self.file_name
        manifest = folder / "run.json"
        if manifest.exists():
            if not resume:
                raise BenchError(f"{folder} holds a run already: add --resume to continue it, or choose another --out")
            self._check_settings(read_manifest(folder), json.loads(json.dumps(settings, default=str)))
        else:
            if self._path.exists():
                raise BenchError(f"{folder} holds {self.noun}s of a run whose run.json is gone: choose another --out")
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(manifest, json.dumps(settings, indent=2, default=str))
        self._cut_torn_line()
        self._file = append_to(self._path)

    def _check_settings(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        keys = sorted((old.keys() | new.keys()) - set(UNCOMPARED))
        if differing := [key for key in keys if old.get(key) != new.get(key)]:
            raise BenchError(f"{self.folder} was run with {self._difference(differing, old, new)}")

    def _difference(self, keys: Sequence[str], old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
        """What differs, and what to do."""
        key = keys[0]
        return (
            f"{key} = {json.dumps(old.get(key))}, not {json.dumps(new.get(key))}: "
            "resume with the same settings, or choose another --out"
        )

    def _cut_torn_line(self) -> None:
        if self._path.exists():
            with self._path.open("rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)

    def append(self, record: R) -> None:
        """Append a record. Raises `BenchError` where the disk takes no more."""
        try:
            self._file.write(record.model_dump_json() + "\n")
            self._file.flush()
            if self.durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise BenchError(
                f"{self._path} cannot be written ({error}): what was played is kept; make room, and continue with "
                "--resume"
            ) from error

    def __iter__(self) -> Iterator[R]:
        with self._path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield self._record.model_validate_json(line)
                except ValueError as error:
                    raise BenchError(
                        f"{self._path} line {number} is no {self.noun} ({describe(error)}): delete that line to have "
                        "it played again, or choose another --out"
                    ) from error

    def close(self) -> None:
        """Close the file; what a full disk did not take was told by `append`."""
        with suppress(OSError):
            self._file.flush()
            os.fsync(self._file.fileno())
        with suppress(OSError):
            self._file.close()
