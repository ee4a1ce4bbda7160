"""BFCL's files in $BFCL_DATA, or shipped with the package: JSON Lines, packed with xz or not."""

from __future__ import annotations

import os
from pathlib import Path

from agentcascade.errors import EnvironmentFailed

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
