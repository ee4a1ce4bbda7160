"""Garbage collection in a process of our own: modules are looked through seldom, and not at its end."""

from __future__ import annotations

import subprocess
import sys

from agentcascade._util.garbage import GC_THRESHOLD

PROGRAM = """
import atexit, gc, sys
before = gc.get_threshold()
import agentcascade, agentcascade.cli, agentcascade.__main__
print(gc.get_threshold() == before, gc.get_freeze_count())
atexit.register(lambda: print(gc.get_freeze_count() > 10_000))  # the last of all
sys.argv = ["agentcascade", "--version"]
try:
    agentcascade.__main__.run()
finally:
    print(gc.get_threshold() == ({threshold}, *before[1:]), gc.get_freeze_count())
"""


def test_a_command_spares_its_modules_and_a_program_that_imports_us_does_not() -> None:
    program = PROGRAM.format(threshold=GC_THRESHOLD)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, _, *last = done.stdout.splitlines()  # the version between them
    assert (first, last) == ("True 0", ["True 0", "True"])
