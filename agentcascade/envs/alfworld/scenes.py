"""Scenes and tasks of generated games, from the alfworld wheel: AI2-THOR floor plans, affordances, goal templates.

A game made here uses ALFWorld's own PDDL domain, grammar, receptacles and containment rules; only which objects lie
where is drawn at random.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from agentcascade.errors import MissingExtra

PROPORTIONS = {
    "pick_and_place_simple": 24,
    "look_at_obj_in_light": 18,
    "pick_clean_then_place_in_recep": 31,
    "pick_heat_then_place_in_recep": 23,
    "pick_cool_then_place_in_recep": 21,
    "pick_two_obj_and_place": 17,
}
"""Task types of the 134 games of ALFWorld's unseen split."""

STATIONS = {
    "pick_clean_then_place_in_recep": ("Cleanable", "SinkBasin"),
    "pick_heat_then_place_in_recep": ("Heatable", "Microwave"),
    "pick_cool_then_place_in_recep": ("Coolable", "Fridge"),
}
MOVABLE = frozenset({"Pot", "Pan", "Bowl", "Mug", "Plate", "Cup", "Box"})
"""Receptacles that are objects too; the generated games use them as objects only."""

LAMP = "DeskLamp"
LAMP_STANDS = frozenset({"Desk", "Dresser", "SideTable", "Shelf"})
FURNITURE = {
    "StoveBurner": 4, "CoffeeMachine": 1, "Toaster": 1, "GarbageCan": 1, "Toilet": 1, "Sofa": 1, "ArmChair": 1,
    "Bed": 1, "ToiletPaperHanger": 1, "HandTowelHolder": 1, "TowelHolder": 1, "Dresser": 1, "SideTable": 1, "Desk": 1,
}  # fmt: skip
"""Receptacles that a floor plan's layout lists among its objects, and how many stand there."""

PREDICATES = {
    "Cleanable": "cleanable", "Heatable": "heatable", "Coolable": "coolable", "Sliceable": "sliceable",
    "Toggleable": "toggleable",
}  # fmt: skip


@lru_cache(maxsize=1)
def alfred_modules() -> Any:
    """(constants, goal library, package folder) of alfworld."""
    from agentcascade.envs.alfworld.engine import engine_modules

    engine_modules()
    try:
        import alfworld
        from alfworld.gen import constants, goal_library
    except ImportError as error:
        raise MissingExtra("alfworld", "alfworld", "generating ALFWorld games") from error
    return constants, goal_library, Path(alfworld.__file__).parent


@dataclass
class Scene:
    """Furnished room: PDDL location by receptacle id, and the object classes that belong there."""

    number: int
    receptacles: dict[str, str]
    classes: list[str]
    types: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.types = {r: receptacle_type(r) for r in self.receptacles}

    def places_for(self, thing: str) -> list[str]:
        """Types of fixed receptacles here that may hold `thing`."""
        present = sorted(set(self.types.values()) - MOVABLE)
        return [t for t in present if thing in containable(t)]


@dataclass
class HouseholdTask:
    """Task of a generated game: type, object, receptacle and lamp."""

    kind: str
    thing: str
    place: str = ""
    lamp: str = ""


@lru_cache(maxsize=128)
def containable(receptacle: str) -> frozenset[str]:
    constants, _, _ = alfred_modules()
    held = constants.VAL_RECEPTACLE_OBJECTS.get(receptacle, set())
    return frozenset(o for o in held if not o.endswith("Sliced"))


def receptacle_type(identifier: str) -> str:
    for ending in ("SinkBasin", "BathtubBasin"):
        if identifier.endswith(ending):
            return ending
    return identifier.split("|")[0]


def floor_plans(kind: str, split: str) -> list[int]:
    """Scene numbers whose rooms suit a task type; the unseen split's are never used by the others."""
    constants, _, _ = alfred_modules()
    rooms = [n for room in sorted(constants.GOALS_VALID[kind]) for n in constants.SCENE_TYPE[room]]
    seen = set(constants.TRAIN_SCENE_NUMBERS)
    return [n for n in rooms if (n in seen) == (split != "valid_unseen")]


@lru_cache(maxsize=256)
def _layout(number: int) -> tuple[dict[str, list[float]], list[str]]:
    _, _, folder = alfred_modules()
    layouts = folder / "gen" / "layouts"
    openable = json.loads((layouts / f"FloorPlan{number}-openable.json").read_text())
    return openable, sorted(json.loads((layouts / f"FloorPlan{number}-objects.json").read_text()))


def furnish(number: int, rng: random.Random) -> Scene:
    """Furnish a floor plan with the receptacles of its layout and those that it only names."""
    constants, _, _ = alfred_modules()
    layout, classes = _layout(number)
    receptacles = {
        r: f"loc|{round(x * 4)}|{round(z * 4)}|{round(turn / 90) % 4}|{int(horizon)}"
        for r, (x, z, turn, horizon) in layout.items()
    }
    have = {receptacle_type(r) for r in receptacles}
    for name in (c for c in classes if c in FURNITURE and c not in have):
        for _ in range(FURNITURE[name]):
            spot = f"loc|{21 + len(receptacles)}|{rng.randint(-10, 10)}|{rng.randint(0, 3)}|30"
            receptacles[f"{name}|{coordinates(rng)}"] = spot
    portable = {o for held in constants.VAL_RECEPTACLE_OBJECTS.values() for o in held if not o.endswith("Sliced")}
    portable &= set(constants.OBJECTS)
    return Scene(number, receptacles, [c for c in classes if c in portable or c == LAMP])


def choose_task(kind: str, scene: Scene, rng: random.Random) -> HouseholdTask | None:
    """Choose a task of `kind` that is possible in `scene`; None where there is none."""
    constants, _, _ = alfred_modules()
    present = set(scene.types.values())
    things = [c for c in scene.classes if c != LAMP and scene.places_for(c)]
    if kind == "look_at_obj_in_light":
        things = [c for c in things if c not in constants.VAL_ACTION_OBJECTS["Toggleable"]]
        if LAMP not in scene.classes or not present & LAMP_STANDS or not things:
            return None
        return HouseholdTask(kind, rng.choice(things), lamp=LAMP)
    affordance, station = STATIONS.get(kind, ("", ""))
    if station and station not in present:
        return None
    options = [
        (thing, place)
        for thing in things
        if not affordance or thing in constants.VAL_ACTION_OBJECTS[affordance]
        for place in scene.places_for(thing)
        if place != station and len(scene.places_for(thing)) >= 2
    ]
    return HouseholdTask(kind, *rng.choice(options)) if options else None


def place_objects(scene: Scene, task: HouseholdTask, rng: random.Random) -> list[tuple[str, str, str]]:
    """Place objects: (object id, class, receptacle id) of each; the task's things start away from their goal."""
    constants, _, _ = alfred_modules()
    placed = []
    for name in scene.classes:
        count = 1 if name == LAMP else rng.randint(1, constants.MAX_NUM_OF_OBJ_INSTANCES)
        if name == task.thing and task.kind == "pick_two_obj_and_place":
            count = max(count, 2)
        stands = [r for r, t in scene.types.items() if (t in LAMP_STANDS if name == LAMP else name in containable(t))]
        if name == task.thing:
            stands = [r for r in stands if scene.types[r] != task.place] or stands
        for _ in range(count if stands else 0):
            placed.append((f"{name}|{coordinates(rng)}", name, rng.choice(stands)))
    return placed


def pddl_problem(scene: Scene, task: HouseholdTask, placed: list[tuple[str, str, str]], name: str) -> str:
    """PDDL problem of a game in ALFWorld's domain, with the objects of `placed`."""
    constants, goals, _ = alfred_modules()
    present = set(scene.types.values())
    fixed = set(constants.RECEPTACLES) - MOVABLE
    object_types = sorted((set(constants.OBJECTS) - fixed) | {c for _, c, _ in placed})
    receptacle_types = sorted((set(constants.RECEPTACLES) | present) - MOVABLE)
    spots = sorted(set(scene.receptacles.values()))
    start = next(s for s in ("loc|0|0|0|30", "loc|99|0|0|30") if s not in spots)
    lines = [f"(define (problem plan_{name})", "(:domain alfred)", "(:objects", "agent1 - agent"]
    lines += [f"{t}Type - otype" for t in object_types] + [f"{t}Type - rtype" for t in receptacle_types]
    lines += [f"{pddl_name(o)} - object" for o, _, _ in placed] + [
        f"{pddl_name(r)} - receptacle" for r in scene.receptacles
    ]
    lines += [f"{pddl_name(s)} - location" for s in [*spots, start]] + [")", "(:init", "(= (total-cost) 0)"]
    for receptacle, spot in scene.receptacles.items():
        kind = scene.types[receptacle]
        lines.append(f"(receptacleType {pddl_name(receptacle)} {kind}Type)")
        lines.append(f"(receptacleAtLocation {pddl_name(receptacle)} {pddl_name(spot)})")
        if kind in constants.OPENABLE_CLASS_LIST:
            lines.append(f"(openable {pddl_name(receptacle)})")
    for kind in receptacle_types:
        lines += [f"(canContain {kind}Type {o}Type)" for o in sorted(containable(kind)) if o in object_types]
    for identifier, kind, receptacle in placed:
        me = pddl_name(identifier)
        lines.append(f"(objectType {me} {kind}Type)")
        lines.append(f"(inReceptacle {me} {pddl_name(receptacle)})")
        lines.append(f"(objectAtLocation {me} {pddl_name(scene.receptacles[receptacle])})")
        if kind != LAMP:
            lines.append(f"(pickupable {me})")
        lines += [f"({p} {me})" for a, p in PREDICATES.items() if kind in constants.VAL_ACTION_OBJECTS[a]]
        if kind in MOVABLE:
            lines.append(f"(isReceptacleObject {me})")
    lines += [f"(atLocation agent1 {pddl_name(start)})", ")"]
    template: str = goals.gdict[task.kind]["pddl"]
    goal = template.format(obj=task.thing, recep=task.place, toggle=task.lamp, mrecep="").replace("#", "-")
    return "\n".join(lines) + "\n" + goal  # the goal's template closes "(define"


def goal_text(task: HouseholdTask, rng: random.Random) -> str:
    """Text of the goal by ALFRED's own templates."""
    _, goals, _ = alfred_modules()
    template: str = rng.choice(goals.gdict[task.kind]["templates"])
    return template.format(obj=task.thing.lower(), recep=task.place.lower(), toggle=task.lamp.lower(), mrecep="")


def pddl_name(identifier: str) -> str:
    for sign, word in (("|", "_bar_"), ("+", "_plus_"), ("-", "_minus_"), (".", "_dot_"), (",", "_comma_")):
        identifier = identifier.replace(sign, word)
    return identifier


def coordinates(rng: random.Random) -> str:
    """Random position in AI2-THOR's notation, which makes an id unique."""
    values = (rng.uniform(-3, 3), rng.uniform(0.1, 2), rng.uniform(-3, 3))
    return "|".join(f"{'+' if v >= 0 else '-'}{abs(v):05.2f}" for v in values)
