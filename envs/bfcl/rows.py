"""Rows of JSON Lines in $BFCL_DATA, or shipped with the package, packed with xz or not: bounded, refused by line."""

from __future__ import annotations

import lzma
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from agentcascade._util import bounds
from agentcascade.errors import EnvironmentFailed

LONGEST = 1_000_000
"""Characters of one row"""
MOST = 2_000_000
"""Rows of one file"""
DATA = Path(__file__).parent / "data"
SHIPPED = ("questions", "possible_answers")
"""What ships with the package, of the edition that the recorded answers are to"""
ADVICE = (
    "get https://github.com/HuanzhiMao/BFCL-Result, see `python -m agentcascade.envs.bfcl.gather --help`, and set "
    "BFCL_DATA to the folder that it fills"
)


def source(name: str) -> Path:
    """`NAME.jsonl.xz` or `NAME.jsonl` in $BFCL_DATA; questions and possible answers, where it has neither, ours.

    Those two are never mixed: editions differ. Raises `EnvironmentFailed` that says how to get what is missing.
    """
    folder = os.environ.get("BFCL_DATA")
    if name in SHIPPED and not (folder and any(_found(Path(folder), shipped) for shipped in SHIPPED)):
        folder = str(DATA)
    if not folder:
        raise EnvironmentFailed(f"the {name} of BFCL's models are not here: {ADVICE}")
    path = _found(Path(folder), name)
    if path is None:
        raise EnvironmentFailed(f"BFCL_DATA is {folder}, which holds no {name}.jsonl.xz and no {name}.jsonl: {ADVICE}")
    return path


def _found(folder: Path, name: str) -> Path | None:
    return next((path for end in (".jsonl.xz", ".jsonl") if (path := folder / f"{name}{end}").is_file()), None)


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
