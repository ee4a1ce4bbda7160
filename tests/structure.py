"""Structure of the package: modules per package, floors of imports, circles, imports that climb. Run it to see them.

python tests/structure.py [folder of a package, e.g. an older checkout's agentcascade/]
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

NAME = "agentcascade"

FLOORS = """
cli
reports launch
server integrations bench
assembly
cascade
judging episodes economics routers
step steplog envs
vllm memory bank ledger conversation retrievers
batches
billing actions models telemetry storage
redaction config prompts wire
lifetime event_loop registry messages protocols errors
types
_util _version deprecation
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


def set_attributes(root: Path, name: str = "Cascade") -> tuple[list[str], list[str]]:
    """Public attributes that the constructor of a class sets, and those that anything sets later.

    Later is: in another method of the class, or on a variable ``cascade``, ``made`` or ``twin`` anywhere.
    """
    source = ast.parse((root / f"{name.lower()}.py").read_text(encoding="utf-8"))
    (definition,) = (n for n in ast.walk(source) if isinstance(n, ast.ClassDef) and n.name == name)
    first: set[str] = set()
    later: set[str] = set()
    for method in definition.body:
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
            (first if method.name == "__init__" else later).update(_assigned(method, {"self", "twin"}))
    for folder, _, files in os.walk(root, followlinks=True):
        for path in (Path(folder) / file for file in files if file.endswith(".py")):
            later.update(_assigned(ast.parse(path.read_text(encoding="utf-8")), {"cascade", "made", "twin"}))
    public = {attribute for attribute in first if not attribute.startswith("_")}
    return sorted(public), sorted(public & later)


def _assigned(tree: ast.AST, names: set[str]) -> Iterator[str]:
    """Attributes of variables with one of these names that are assigned to."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute, ctx=ast.Store()) if name in names:
                yield attribute


def top_picture(structure: Structure) -> tuple[int, int]:
    """Arrows and floors of the picture whose boxes are packages and modules at the top; a circle counts as one box."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, targets in structure.arrows.items():
        arrows[room(module)] |= {room(target) for target in targets} - {room(module)}
    groups = components(arrows)
    group = {name: i for i, members in enumerate(groups) for name in members}
    floor: dict[int, int] = {}
    for i, members in enumerate(groups):
        below = {group[target] for name in members for target in arrows[name]} - {i}
        floor[i] = 1 + max((floor[j] for j in below), default=0)
    return sum(len(targets) for targets in arrows.values()), max(floor.values())


WALK = """
import asyncio, sys, tempfile
import agentcascade
from agentcascade import ScriptedModel, Step, Trajectory, build
ways = []
def seen(frame, event, argument):
    name = frame.f_globals.get("__name__", "")
    if event == "call" and name.startswith("agentcascade.") and frame.f_code.co_name != "<module>":
        if not ways or ways[-1] != name:
            ways.append(name)
async def main(folder):
    teacher, student = ScriptedModel(["Action: go"]), ScriptedModel(["Action: look"])
    cascade = build(teacher=teacher, student=student, bank={"url": f"sqlite:///{folder}/a.db"},
                    actions={"format": "react"}, retrieval={"embedder": "hashing", "index": "exact"})
    await cascade.bank.add(Trajectory(goal="put a mug", steps=(Step(observation="o", action="look"),), success=True))
    task = [{"role": "user", "content": "put a mug on the desk"}]
    for step in range(2):
        episode = cascade.episode("put a mug", id=f"e{step}")
        sys.setprofile(seen if step else None)
        try:
            answer = await episode.complete(task)
        finally:
            sys.setprofile(None)
    assert answer.agentcascade.answered_by == "student", answer
    await cascade.aclose()
with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
print("way:", *ways)
"""


def way_of_a_step(checkout: Path) -> list[str]:
    """Modules that one step of an episode runs through, in order, a module once for as long as it runs.

    The student takes it: a demonstration, three samples, a decision recorded. A second step is followed, when all
    modules are loaded.
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    if not (checkout / f"{NAME}.egg-info").exists():  # entry points of its own, not of what is installed
        metadata = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "egg_info"]
        subprocess.run(metadata, check=True, capture_output=True, cwd=checkout)
    done = subprocess.run([sys.executable, "-c", WALK], env=environment, capture_output=True, text=True, cwd=checkout)
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("way:")[2].split()


def main() -> None:
    checkout = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    structure = Structure(checkout / NAME)
    rooms: dict[str, list[str]] = defaultdict(list)
    for module in structure.arrows:
        rooms[room(module)].append(module)
    rank = ranks(FLOORS)
    print("package            modules  floors")
    beside = sorted(name for name in rooms if name in structure.modules)
    for name in sorted(rooms.keys() - beside, key=lambda name: (-rank.get(name, -1), name)):
        heights = {structure.heights[module] for module in rooms[name]}
        print(f"{name:18} {len(rooms[name]):7}  {min(heights)}-{max(heights)}")
    print(f"\n{len(structure.arrows)} modules, {len(beside)} beside the packages: {', '.join(beside)}")
    arrows, floors = top_picture(structure)
    print(f"{len(rooms)} packages and modules at the top, {arrows} arrows between them, {floors} floors")
    print(f"{len(structure.circles)} circles of modules, of {[len(circle) for circle in structure.circles]}")
    if rooms.keys() <= rank.keys():
        climbs = structure.climbs()
        print(f"{len(climbs)} imports that climb" + "".join(f"\n  {a} -> {b}" for a, b in climbs))
    public, later = set_attributes(structure.root)
    print(f"Cascade: {len(public)} public attributes set by its constructor, {len(later)} of them set later")
    way = way_of_a_step(checkout)
    packages = [room(name.removeprefix(f"{NAME}.")) for name in way]
    changes = sum(a != b for a, b in pairwise(packages))
    print(f"a step runs through {len(set(way))} modules of {len(set(packages))} packages")
    print(f"it changes the module {len(way) - 1} times, the package {changes} times")


if __name__ == "__main__":
    main()
