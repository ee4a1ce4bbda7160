"""Windows: imports without POSIX calls, what is done instead of them, and a checkout without links."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from agentcascade._util import files
from agentcascade.errors import ConfigError
from agentcascade.launch import foreground
from agentcascade.storage import claims
from agentcascade.vllm.engine import launch_command
from agentcascade.vllm.registry import Replica

ROOT = Path(__file__).parents[2]
PROGRAM = """
import importlib, multiprocessing, os, pkgutil, signal, sys
sys.dont_write_bytecode = True
MISSING = ["fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "readline", "uvloop"]
import aiohttp, httpx, litellm, openai, sqlalchemy, click.testing, uvicorn, fastapi  # theirs are not ours
import agentcascade
names = [m.name for m in pkgutil.walk_packages(agentcascade.__path__, "agentcascade.") if ".envs." not in m.name]
for name in MISSING:
    sys.modules[name] = None
for name in ("fork", "register_at_fork", "fchmod", "getuid", "killpg", "setsid", "sched_getaffinity"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGUSR1", "SIGKILL"):
    if hasattr(signal, name):
        delattr(signal, name)
failed = {}
for name in names:
    if name.endswith("__main__"):
        continue
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {error}"
print(failed)
"""


def test_every_module_can_be_imported_without_posix_calls() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=900)
    assert (done.returncode, done.stdout.strip()) == (0, "{}"), done.stdout + done.stderr[-2000:]


def test_what_windows_does_not_have_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr("os.fchmod")
    monkeypatch.delattr("os.killpg")
    monkeypatch.delattr("os.tcgetpgrp")
    monkeypatch.setattr("os.kill", lambda *_: pytest.fail("signal 0 is Ctrl-C there"))
    monkeypatch.delattr(claims, "fcntl")
    with files.append_to(tmp_path / "a") as file:
        assert claims.try_lock(file.fileno())
    assert foreground._is_in_foreground()
    assert not Replica(api_base="http://localhost:1", pid=1).alive
    with pytest.raises(ConfigError, match="WSL"):
        launch_command(None)


def test_the_package_has_no_links_and_names_that_every_system_can_write() -> None:
    """A link is a file with a path in it where git may not make links; two names may differ in case alone nowhere."""
    names = []
    for folder in ("agentcascade", "deploy", "docs", "examples", "tests"):
        here = [path for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
        assert [path for path in here if path.is_symlink()] == []
        names += [path.relative_to(ROOT).as_posix() for path in here]
    reserved = re.compile(
        r'[<>:"\\|?*\x00-\x1f]|[ .](?:/|$)|(?:^|/)(?:con|prn|aux|nul|com\d|lpt\d)(?:\.[^/]*)?(?:/|$)', re.I
    )
    assert [name for name in names if reserved.search(name) or len(name) > 160] == []
    assert [name for name, count in Counter(map(str.casefold, names)).items() if count > 1] == []
