"""Logs from and to files, whatever their form."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agentcascade.steplog import jsonl
from agentcascade.steplog.types import LoggedStep

PARQUET = b"PAR1"


def load(path: Path) -> list[LoggedStep]:
    """The steps of a JSONL or Parquet file, which its first bytes tell apart. Raises `InvalidRequest`."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) == PARQUET:
                from agentcascade.steplog import parquet

                return parquet.read(path)
    return jsonl.read(path)


def save(path: Path, steps: Iterable[LoggedStep]) -> int:
    """Parquet for a name that ends so, else JSON lines. The file appears whole or not at all; returns how many."""
    if path.suffix == ".parquet":
        from agentcascade.steplog import parquet

        return parquet.write(path, steps)
    return jsonl.write(path, steps)
