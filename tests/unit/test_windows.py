"""Imports on a system without POSIX calls, as Windows is: nothing is missed before it is used."""

from __future__ import annotations

import subprocess
import sys

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
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "{}"), done.stdout + done.stderr[-2000:]
