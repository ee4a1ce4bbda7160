"""Coverage of each package, statements and branches together, beside its goal.

usage: python tests/coverage_by_package.py     after `pytest --cov`, as in `make coverage`; exits 1 if a goal is missed
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

GOALS = {"step": 95, "models": 95, "actions": 95, "storage": 95, "all": 90}
"""Percent; what has no row here is in `all`"""
COUNTED = ("num_statements", "missing_lines", "num_branches", "missing_branches")


def package(file: str) -> str:
    """The package of a file, whether or not it is named by the link that the package holds to it."""
    parts = Path(file).parts
    below = parts[parts.index("agentcascade") + 1 :] if "agentcascade" in parts else parts
    return below[0] if len(below) > 1 else "(modules)"


def percent(counts: Counter[str]) -> float:
    every = counts["num_statements"] + counts["num_branches"]
    return 100 * (1 - (counts["missing_lines"] + counts["missing_branches"]) / every) if every else 100.0


def main() -> int:
    with tempfile.NamedTemporaryFile(suffix=".json") as made:
        command = [sys.executable, "-m", "coverage", "json", "-q", "-o", made.name]
        subprocess.run(command, check=True)
        files = json.loads(Path(made.name).read_text())["files"]
    packages: dict[str, Counter[str]] = {}
    for file, found in files.items():
        counts = Counter({name: found["summary"][name] for name in COUNTED})
        for name in (package(file), "all"):
            packages.setdefault(name, Counter()).update(counts)
    missed = False
    print("| package | statements | branches | covered | goal |\n| --- | --- | --- | --- | --- |")
    for name in sorted(packages, key=lambda name: (name == "all", name)):
        counts, goal = packages[name], GOALS.get(name)
        missed |= goal is not None and percent(counts) < goal
        shown = f"{counts['num_statements']:,} | {counts['num_branches']:,} | {percent(counts):.1f} %"
        print(f"| {name} | {shown} | {f'{goal} %' if goal else ''} |")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
