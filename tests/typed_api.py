"""Share of the public API's types that a user's type checker knows without inferring them (`pyright --verifytypes`).

usage: python tests/typed_api.py     lists the symbols of each `__all__`, and their members, whose types are ambiguous;
                                     status 1 below the goal. Takes half a minute of a core.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = "agentcascade"
GOAL = 0.98


def verified() -> list[dict[str, Any]]:
    """Pyright's word on each symbol, read from outside of the checkout, as a user's checker reads it."""
    command = [sys.executable, "-m", "basedpyright", "--verifytypes", PACKAGE, "--ignoreexternal", "--outputjson"]
    with tempfile.TemporaryDirectory() as elsewhere:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    symbols: list[dict[str, Any]] = found["typeCompleteness"]["symbols"]
    return symbols


def public_names() -> set[str]:
    """Names in each `__all__`, by their module there and by that which defines them."""
    from tests.unit.test_public_api import PUBLIC

    found = set()
    for name, names in PUBLIC.items():
        module = import_module(name)
        for public in names:
            thing = getattr(module, public)
            found.add(f"{name}.{public}")
            found.add(f"{getattr(thing, '__module__', name)}.{getattr(thing, '__qualname__', public)}")
    return found


def is_within(name: str, public: set[str]) -> bool:
    """Whether it is a public name or a member of one."""
    parts = name.split(".")
    return any(".".join(parts[:end]) in public for end in range(2, len(parts) + 1))


def main() -> int:
    sys.path.insert(0, str(ROOT))
    public = public_names()
    counted = [symbol for symbol in verified() if is_within(symbol["name"], public)]
    lacking = [symbol for symbol in counted if symbol["isTypeAmbiguous"] or not symbol["isTypeKnown"]]
    for symbol in lacking:
        why = symbol["diagnostics"][0]["message"].splitlines()[0] if symbol["diagnostics"] else "by what it holds"
        print(f"{symbol['category']} {symbol['name']}: {why}")
    share = 1 - len(lacking) / len(counted)
    print(f"{share:.1%} of {len(counted):,} public symbols have known types (goal {GOAL:.0%})")
    return int(share < GOAL)


if __name__ == "__main__":
    sys.exit(main())
