"""The installed package at work, outside of a checkout: imports, commands, a cascade. `nox -s smoke`, on any system.

python smoke.py      in a folder of its own, with the extras faiss, onnx, server and sql
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

import agentcascade

ELSEWHERE = ("agentcascade.envs.alfworld", "agentcascade.envs.appworld")
"""What runs in an interpreter of its own, or needs an engine that brings the GPL."""
COMMANDS = (
    ("--version",),
    ("--help",),
    ("launch", "--", sys.executable, "-c", "print('as it was')"),
    ("init", "--preset", "openai", "--yes"),
    ("tour", "--no-pause"),
    ("bank", "list"),
    ("ledger",),
)


def import_all() -> dict[str, str]:
    """Modules that cannot be imported, and why: not those of a package that is not installed here."""
    failed: dict[str, str] = {}

    def note(name: str) -> None:
        error = sys.exc_info()[1]
        if not (isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("agentcascade")):
            failed[name] = f"{type(error).__name__}: {error}"

    for module in pkgutil.walk_packages(agentcascade.__path__, "agentcascade.", onerror=note):
        if not module.name.startswith(ELSEWHERE) and not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except Exception:
                note(module.name)
    return failed


def cascade() -> None:
    """Six runs of a scripted teacher become demonstrations; a student that agrees with itself takes the seventh."""
    says = {name: agentcascade.ScriptedModel(lambda messages, sample: "open the door", name=name) for name in "ts"}
    with agentcascade.build(teacher=says["t"], student=says["s"], bank={"url": "sqlite:///smoke.db"}) as built:
        for number in range(7):
            episode = built.sync_episode(goal=f"leave room {number}", mode="collect" if number < 6 else "cascade")
            answer = episode.complete([{"role": "user", "content": "You see a door."}])
            episode.finish(success=True)
    assert answer.agentcascade.answered_by == "student", answer
    assert answer.choices[0].message.content == "open the door"


def main() -> int:
    print(sys.version, sys.platform, agentcascade.__file__)
    failed = import_all()
    cascade()
    environment = os.environ | {"PYTHONUTF8": "0", "AGENTCASCADE_BANK__URL": "sqlite:///smoke.db"}
    for command in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "agentcascade", *command], env=environment, capture_output=True, timeout=300
        )
        print(*command[:2], "→", done.returncode)
        if done.returncode:
            failed[" ".join(command)] = (done.stdout + done.stderr).decode(errors="replace")[-3000:]
    for name, why in failed.items():
        print(f"\n{name}: {why}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(Path(folder))
        status = main()
        os.chdir("/")
    sys.exit(status)
