"""Install AppWorld into a virtual environment of its own (its packages clash with ours), and generate worlds.

The official worlds are used where $APPWORLD_ROOT names their folder; else small ones are generated through AppWorld's
own models. AppWorld's licence lets its protected part be passed on only encrypted: nothing of it is in this package.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from agentcascade._util.child_environment import child_environment, installer_environment
from agentcascade._util.files import cache_folder
from agentcascade.deprecation import moved_names
from agentcascade.errors import EnvironmentFailed, did_you_mean

VERSION = "0.1.3.post1"
INSIDE = Path(__file__).parent / "inside"
"""Folder of the scripts that AppWorld's own interpreter runs"""
SCENARIOS = {"train": 30, "dev": 6, "test_normal": 40, "test_challenge": 16}
"""Scenarios of generated worlds by split, with three tasks each"""
WORLD_SEED = 0
INSTALL = "agentcascade env install appworld"

OnProgress = Callable[[str, int, int], None]
"""Callback with what is done now, and how much of how much"""


def install_folder() -> Path:
    """Folder of the virtual environment and generated worlds; it may not exist yet."""
    return cache_folder("appworld") / VERSION


def interpreter() -> Path:
    """AppWorld's Python interpreter. Raises `EnvironmentFailed` where it is not installed."""
    if not (install_folder() / "installed").exists():
        raise EnvironmentFailed(f"AppWorld is not installed here: run `{INSTALL}`")
    return install_folder() / "venv" / "bin" / "python"


def official_root() -> Path | None:
    """Root of the official worlds, $APPWORLD_ROOT. Raises `EnvironmentFailed` where it holds no tasks."""
    named = os.environ.get("APPWORLD_ROOT")
    if not named:
        return None
    folder = Path(named).resolve()
    if not (folder / "data" / "tasks").is_dir() or not (folder / "data" / "datasets").is_dir():
        raise EnvironmentFailed(
            f"APPWORLD_ROOT is {folder}, which holds no data/tasks and data/datasets: fetch them with AppWorld's own "
            "`appworld download data`, or unset APPWORLD_ROOT to play in generated worlds"
        )
    return folder


def generated_root() -> Path:
    """Root of the generated worlds, named by a digest of their programs and numbers; it may not exist yet."""
    return install_folder() / f"worlds-{_fingerprint()}"


def appworld_root() -> Path:
    """Root that is played in, official or generated. Raises `EnvironmentFailed` where there is none yet."""
    folder = official_root() or generated_root()
    if not (folder / "data" / "datasets").is_dir():
        raise EnvironmentFailed(f"there are no AppWorld worlds yet: run `{INSTALL}`")
    return folder


def install_appworld(on_progress: OnProgress = lambda what, done, total: None) -> None:
    """Install what is missing of package and worlds; a second call does nothing. Raises `EnvironmentFailed`."""
    install_package(on_progress)
    if official_root() is None and not generated_root().is_dir():
        generate_worlds(generated_root(), WORLD_SEED, SCENARIOS, on_progress)


def install_package(on_progress: OnProgress = lambda what, done, total: None) -> None:
    """Install the package unless it is there. Raises `EnvironmentFailed` with pip's last line."""
    if (install_folder() / "installed").exists():
        return
    install_folder().mkdir(parents=True, exist_ok=True)
    venv = install_folder() / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    python = str(venv / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    steps: Sequence[tuple[str, list[str]]] = (
        ("making a virtual environment", [sys.executable, "-m", "venv", str(venv)]),
        ("installing AppWorld", [*pip, "-c", str(INSIDE / "constraints.txt"), f"appworld=={VERSION}"]),
        ("unpacking AppWorld's apps", [python, "-m", "appworld.cli", "install"]),
    )
    for i, (what, command) in enumerate(steps):
        on_progress(what, i, len(steps))
        _run(what, command)
    (install_folder() / "installed").touch()


def generate_worlds(
    folder: Path, seed: int, scenarios: Mapping[str, int], on_progress: OnProgress = lambda what, done, total: None
) -> None:
    """Generate worlds in `folder`, whole or not at all. Raises `EnvironmentFailed`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        numbers = [f"{split}={count}" for split, count in scenarios.items()]
        command = [str(interpreter()), str(INSIDE / "generate.py"), temporary, str(seed), *numbers]
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
            subprocess.Popen(
                command, env=child_variables(Path(temporary)), stdout=-1, stderr=errors, text=True
            ) as process,
        ):
            assert process.stdout is not None
            on_progress("generating worlds", 0, sum(scenarios.values()))
            for line in process.stdout:
                with suppress(ValueError, KeyError, TypeError):
                    progress = json.loads(line)
                    on_progress("generating worlds", progress["made"], progress["of"])
            if process.wait() != 0:
                errors.seek(0)
                raise EnvironmentFailed(f"worlds could not be generated: {_last_line(errors.read())}")
        with suppress(OSError):  # another process was faster
            Path(temporary).rename(folder)
            Path(temporary).mkdir()
    if not folder.is_dir():
        raise EnvironmentFailed(f"{folder} could not be written")


def child_variables(root: Path) -> dict[str, str]:
    """Environment variables of AppWorld's processes, which run models' code: its root, and no key of ours."""
    cache = str(install_folder() / "cache")
    return child_environment() | {"APPWORLD_ROOT": str(root), "APPWORLD_CACHE": cache, "PYTHONDONTWRITEBYTECODE": "1"}


def splits(folder: Path) -> list[str]:
    return sorted(file.stem for file in (folder / "data" / "datasets").glob("*.txt"))


@cache
def task_ids(folder: Path, split: str) -> tuple[str, ...]:
    """Task ids of a split of the worlds in `folder`, in AppWorld's order. Raises `EnvironmentFailed`."""
    file = folder / "data" / "datasets" / f"{split}.txt"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        near = did_you_mean(split, splits(folder))
        raise EnvironmentFailed(f"these worlds have no split '{split}': {near}") from error
    return tuple(line.partition(":")[0].strip() for line in lines if line.strip())


def _run(what: str, command: list[str]) -> None:
    done = subprocess.run(
        command,
        env=installer_environment() | child_variables(install_folder()),
        stdout=-1,
        stderr=-1,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EnvironmentFailed(f"{what} failed: {_last_line(done.stderr or done.stdout)} ({' '.join(command)})")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("WARNING")]
    return lines[-1][:500] if lines else "it said nothing"


@cache
def _fingerprint() -> str:
    import hashlib

    digest = hashlib.sha256(json.dumps([WORLD_SEED, SCENARIOS, VERSION]).encode())
    for name in ("generate.py", "society.py", "templates.py", "evaluation.py"):
        digest.update((INSIDE / name).read_bytes())
    return digest.hexdigest()[:12]


__getattr__ = moved_names(__name__, {"environment": f"{__name__}:child_variables"}, since="0.1", removed_in="1.0")
