"""Rows of JSON Lines, packed with xz or not: bounded, refused by file and line."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from agentcascade._util import bounds
from agentcascade.errors import EnvironmentFailed

LONGEST = 1_000_000
"""Characters of one row"""
MOST = 2_000_000
"""Rows of one file"""


def read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row with its place (``file:line``), which messages name. Raises `EnvironmentFailed`."""
    try:
        with _opened(path) as file:
            yield from _rows(path, file)
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise EnvironmentFailed(f"{path} cannot be read: {error}") from error


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _rows(path: Path, file: IO[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    while line := file.readline(LONGEST + 1):
        number += 1
        where = f"{path}:{number}"
        if len(line) > LONGEST or number > MOST:
            raise EnvironmentFailed(f"{where}: {LONGEST:,} characters in a row and {MOST:,} rows are the most")
        if not line.strip():
            continue
        try:
            row = bounds.loads(line)
        except ValueError as error:
            raise EnvironmentFailed(f"{where}: not JSON: {str(error)[:200]}") from error
        if not isinstance(row, dict):
            raise EnvironmentFailed(f"{where}: a row is an object, this is {str(row)[:80]!r}")
        yield where, row
