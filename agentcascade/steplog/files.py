"""A log from a file, whatever its form."""

from __future__ import annotations

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
