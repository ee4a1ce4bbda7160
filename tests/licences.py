"""The licence of every package that each extra brings, off the metadata of what is installed.

usage: python tests/licences.py     writes LICENSES.md beside the README, of the extras that are installed here
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from email.message import Message
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parents[1] / "LICENSES.md"
OWN = "agentcascade"
DEVELOPMENT = ("dev", "docs")
COPYLEFT = re.compile(r"(?<![A-Za-z])A?GPL|^GNU (Affero )?General Public License")
"""The GPL and the AGPL, not the LGPL, which a library may be used under."""
WITH_GPL = ("alfworld",)
KNOWN = {
    "alfworld": "MIT",
    "fast-downward-textworld": "GPL-3.0",
    "textworld": "MIT",
}
"""Where the metadata hold nothing, or the whole text."""

HEAD = """\
# Licences of what is installed

agentcascade itself is under Apache-2.0. The table is made by `python tests/licences.py` from the metadata of the packages that each
extra brings on Linux, beyond the core's own; a test compares them. It is no legal advice.

**The GPL comes with the extra `alfworld` alone**, and so with `make demo` and `make test`, which install it: TextWorld, which plays
ALFWorld's games, needs jericho (GPL-2.0 or later) and plans with Fast Downward (GPL-3.0). Nothing but the ALFWorld benchmark imports
them. psycopg (extras `postgres` and `pgvector`) is under the LGPL.
"""  # noqa: E501


@cache
def _project() -> Mapping[str, Any]:
    found: Mapping[str, Any] = tomllib.loads((PAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def extras() -> list[str]:
    """Those that users install, the core ('') first."""
    return ["", *(e for e in _project()["optional-dependencies"] if e not in DEVELOPMENT)]


def closure(extra: str) -> dict[str, Distribution]:
    """Every package that `extra` (and the core) brings here, by its canonical name. Raises `PackageNotFoundError`."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(OWN, ""), (OWN, extra)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for needed in _own(wanted) if name == OWN else _needs(found.setdefault(name, distribution(name)), wanted):
            own = canonicalize_name(needed.name)
            waiting += [(own, ""), *((own, e) for e in needed.extras)]
    return found


def _own(extra: str) -> list[Requirement]:
    lines = _project()["optional-dependencies"][extra] if extra else _project()["dependencies"]
    found = [Requirement(line) for line in lines]
    return [r for r in found if r.marker is None or r.marker.evaluate()]


def _needs(package: Distribution, extra: str) -> Iterator[Requirement]:
    for line in package.requires or ():
        needed = Requirement(line)
        always = needed.marker is None or needed.marker.evaluate({"extra": ""})
        if always is not bool(extra) and (always or (needed.marker and needed.marker.evaluate({"extra": extra}))):
            yield needed


def licence(package: Distribution) -> str:
    """As the metadata say it: expression, else classifiers, else the first line of the text."""
    own, meta = canonicalize_name(package.name), cast(Message, package.metadata)
    if own in KNOWN:
        return KNOWN[own]
    if expression := meta.get("License-Expression"):
        return str(expression)
    told = [c.rpartition(" :: ")[2] for c in meta.get_all("Classifier") or () if c.startswith("License ::")]
    told = [c for c in told if c != "OSI Approved"]
    text = next((line.strip() for line in (meta.get("License") or "").splitlines() if line.strip()), "")
    return " / ".join(told) or text[:60] or "not told"


def lines(before: str = "") -> dict[str, str]:
    """A row of the table for each extra; of one that is not installed here, the row in `before`."""
    core, found = closure(""), {}
    kept = {line.split(" | ")[0].strip("| `"): line for line in before.splitlines() if line.startswith("| `")}
    for extra in extras():
        try:
            brought = {n: p for n, p in closure(extra).items() if n not in core} if extra else core
        except PackageNotFoundError:
            if extra in kept:
                found[extra] = kept[extra]
            continue
        listed = ", ".join(f"{name} ({licence(p)})" for name, p in sorted(brought.items()))
        found[extra] = f"| {f'`{extra}`' if extra else 'the core'} | {listed or 'nothing more'} |"
    return found


def page(before: str = "") -> str:
    return "\n".join([HEAD, "| extra | brings |", "| --- | --- |", *lines(before).values()]) + "\n"


if __name__ == "__main__":
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    PAGE.write_text(page(old), encoding="utf-8")
