"""A terminal for tests: a program that runs behind a real pseudo-terminal, typed to and read as a user does."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>78])")
"""What a shell says to a terminal beside its text."""


class Terminal:
    """A program behind a pseudo-terminal.

    Args:
        command: With its arguments.
        environment: All of it.
        folder: That it runs in.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._own, child = pty.openpty()
        options = {"TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
        self._process = subprocess.Popen(
            command,
            stdin=child,
            stdout=child,
            stderr=child,
            env={**options, **environment},
            cwd=folder,
        )
        os.close(child)
        self.text = ""
        """All that it has said, without colours and the like"""
        self._read = 0
        self._raw = ""

    def type(self, text: str) -> None:
        """Type characters, as they are: a line ends in ``\\r``."""
        os.write(self._own, text.encode())

    def wait_for(self, text: str, seconds: float = 120.0) -> str:
        """What it says from where the last call ended up to `text`. Raises `AssertionError` where it never says it."""
        ends = time.monotonic() + seconds
        while (at := self.text.find(text, self._read)) < 0:
            left = ends - time.monotonic()
            if left <= 0 or not self._more(left):
                raise AssertionError(f"{text!r} was not said, but:\n{self.text[self._read :]}")
        said = self.text[self._read : at]
        self._read = at + len(text)
        return said

    def end(self, seconds: float = 120.0) -> int:
        """Its exit code, once it has ended."""
        while self._more(seconds):
            pass
        return self._process.wait(seconds)

    def _more(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._own], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self._own, 65536)
        except OSError:  # the other end is closed
            return False
        self._raw += data.decode(errors="replace")
        self.text = SEQUENCES.sub("", self._raw).replace("\r\n", "\n")
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._own)


def install_program(folder: Path) -> dict[str, str]:
    """An environment whose PATH begins with a folder in which ``agentcascade`` is this interpreter's."""
    import sys

    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "agentcascade"
    code = "from agentcascade.cli import main; main(prog_name='agentcascade')"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    program.chmod(0o755)
    kept = ("PYTHONPATH", "LITELLM_LOCAL_MODEL_COST_MAP", "HF_HUB_OFFLINE", "LANG")
    return {
        "PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        **{name: os.environ[name] for name in kept if name in os.environ},
    }
