"""Structure of the package: modules per package, floors of imports, circles, imports that climb. Run it to see them.

python tests/structure.py [folder of a package, e.g. an older checkout's agentcascade/]
"""

from __future__ import annotations

import ast
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

NAME = "agentcascade"

FLOORS = """
cli
reports
server integrations bench
assembly
cascade
episodes routers
step steplog envs
vllm memory bank ledger conversation retrievers
billing actions models telemetry storage
redaction config prompts
lifetime event_loop registry messages protocols errors
types
_util _version
"""
"""Packages from the top down; one may import from the floors below, and on its own what stands to the right of it.

A package's ``__init__`` hands out names of its own modules, and stands on no floor.
"""


class Import(NamedTuple):
    """An import statement's name, in full, and where it stands."""

    module: str
    """The importing module, without ``agentcascade.``."""
    name: str
    lazily: bool
    """Inside a function or for type checkers alone, so not when the module is loaded."""


@dataclass(frozen=True)
class Structure:
    """Modules and imports of a package folder, linked folders included."""

    root: Path
    imports: list[Import] = field(default_factory=list)

    def __post_init__(self) -> None:
        for module, path in self.modules.items():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            self.imports.extend(Import(module, *found) for found in _statements(tree, module, lazily=False))

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Dotted name without ``agentcascade.`` → file; a package's is its ``__init__``."""
        modules = {}
        for folder, _, files in os.walk(self.root, followlinks=True):
            for path in (Path(folder) / name for name in files if name.endswith(".py")):
                parts = path.relative_to(self.root).with_suffix("").parts
                modules[".".join(parts)] = path
        return modules

    def home(self, name: str) -> str | None:
        """The module that an imported name of this package is, or is in; None for other packages."""
        if f"{name}.".startswith(f"{NAME}."):
            rest = name.removeprefix(NAME).removeprefix(".")
            while True:
                for module in (rest, f"{rest}.__init__".lstrip(".")):
                    if module in self.modules:
                        return module
                rest = rest.rpartition(".")[0]
        return None

    @cached_property
    def arrows(self) -> dict[str, set[str]]:
        """Module → modules that it imports, whether at once or lazily; doors (``__init__``, ``__main__``) left out."""
        arrows: dict[str, set[str]] = {module: set() for module in self.modules if not is_door(module)}
        for module, name, _ in self.imports:
            target = self.home(name)
            if not is_door(module) and target is not None and not is_door(target) and target != module:
                arrows[module].add(target)
        return arrows

    @cached_property
    def circles(self) -> list[list[str]]:
        """Groups of modules that import each other, directly or not (Tarjan's strongly connected components)."""
        return [sorted(group) for group in components(self.arrows) if len(group) > 1]

    @cached_property
    def heights(self) -> dict[str, int]:
        """Module → its floor: one above the highest that it imports, circles counted as one."""
        group = {module: i for i, members in enumerate(components(self.arrows)) for module in members}
        floor: dict[int, int] = {}
        for i, members in enumerate(components(self.arrows)):  # what is imported comes first
            below = {group[target] for module in members for target in self.arrows[module]} - {i}
            floor[i] = 1 + max((floor[j] for j in below), default=0)
        return {module: floor[i] for module, i in group.items()}

    def climbs(self, floors: str = FLOORS) -> list[tuple[str, str]]:
        """Imports that do not go down: (importing module, imported module)."""
        rank = ranks(floors)
        return sorted(
            (module, target)
            for module, targets in self.arrows.items()
            for target in targets
            if room(module) != room(target) and rank.get(room(module), -1) <= rank.get(room(target), -1)
        )


def is_door(module: str) -> bool:
    return module.rpartition(".")[2] in ("__init__", "__main__")


def room(module: str) -> str:
    """The package at the top level, or the module that stands beside them."""
    return module.split(".")[0]


def ranks(floors: str) -> dict[str, int]:
    """Package → its place, counted from below, from the right."""
    rooms = [name for row in floors.split("\n") for name in row.split()]
    return {name: place for place, name in enumerate(reversed(rooms))}


def components(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Strongly connected components, in an order in which arrows lead back (Tarjan 1972, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    open_: list[str] = []
    found: list[list[str]] = []
    for start in sorted(arrows):
        work = [(start, iter(sorted(arrows[start])))] if start not in index else []
        while work:
            node, targets = work[-1]
            if node not in index:
                index[node] = low[node] = len(index)
                open_.append(node)
            for target in targets:
                if target not in index:
                    work.append((target, iter(sorted(arrows[target]))))
                    break
                if target in open_:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    at = open_.index(node)
                    found.append(open_[at:])
                    del open_[at:]
    return found


def _statements(node: ast.AST, module: str, *, lazily: bool) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, lazily) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = f"{NAME}.{module}".split(".")[: -child.level] if child.level else []
            base = ".".join([*above, *([child.module] if child.module else [])])
            yield from ((f"{base}.{alias.name}", lazily) for alias in child.names)
        else:
            later = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            )
            yield from _statements(child, module, lazily=lazily or later)


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / NAME
    structure = Structure(root)
    rooms: dict[str, list[str]] = defaultdict(list)
    for module in structure.arrows:
        rooms[room(module)].append(module)
    rank = ranks(FLOORS)
    print("package            modules  floors")
    for name in sorted(rooms, key=lambda name: (-rank.get(name, -1), name)):
        heights = {structure.heights[module] for module in rooms[name]}
        print(f"{name:18} {len(rooms[name]):7}  {min(heights)}-{max(heights)}")
    beside = [name for name in rooms if name in structure.modules]
    print(f"\n{len(structure.arrows)} modules, {len(beside)} of them beside the packages: {', '.join(sorted(beside))}")
    print(f"{len(rooms)} packages and modules at the top, {max(structure.heights.values())} floors of modules")
    print(f"{len(structure.circles)} circles: {structure.circles}")
    climbs = structure.climbs()
    print(f"{len(climbs)} imports that climb" + "".join(f"\n  {a} -> {b}" for a, b in climbs))


if __name__ == "__main__":
    main()
