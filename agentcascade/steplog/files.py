"""Read and write step logs as JSONL or Parquet files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agentcascade.steplog import jsonl
from agentcascade.steplog.types import LoggedStep

PARQUET = b"PAR1"


def read_log(path: Path) -> list[LoggedStep]:
    """Read a step log from a JSONL or Parquet file, which its first bytes tell apart.

    Raises:
        InvalidRequest: the file is missing, broken, empty, or no log; the message names line and field.
        MissingExtra: the file is Parquet and pyarrow is not installed.
    """
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) == PARQUET:
                from agentcascade.steplog import parquet

                return parquet.read_parquet(path)
    return jsonl.read_jsonl(path)


def write_log(path: Path, steps: Iterable[LoggedStep]) -> int:
    """Write a step log, whole or not at all: Parquet for a path that ends in ``.parquet``, else JSONL.

    Returns:
        The number of steps.

    Raises:
        MissingExtra: the path ends in ``.parquet`` and pyarrow is not installed.
    """
    if path.suffix == ".parquet":
        from agentcascade.steplog import parquet

        return parquet.write_parquet(path, steps)
    return jsonl.write_jsonl(path, steps)
