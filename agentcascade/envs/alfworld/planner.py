"""Plan ALFWorld games with the engine's own planner (Fast Downward), on a reduced problem.

A kitchen holds fifty objects, and planning over all of them takes up to twenty seconds. A task concerns one or two of
them, so the problem is planned with those alone: leaving objects out only takes actions away, so a plan of the reduced
problem is one of the whole problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from agentcascade.envs.alfworld.engine import translator_guard
from agentcascade.errors import EnvironmentFailed, MissingExtra


class Planner:
    """Fast Downward, one instance of its library. Not thread-safe, and never unloaded, since that crashes."""

    def __init__(self) -> None:
        try:
            import fast_downward
        except ImportError as error:
            raise MissingExtra("textworld[pddl]", "alfworld", "planning ALFWorld games") from error
        self._downward = fast_downward
        self._library = fast_downward.load_lib()

    def plan(self, domain: str, problem: str) -> list[str]:
        """Operators such as ``gotolocation agent1 …`` that reach the goal; empty when it holds already.

        Raises `EnvironmentFailed` when there is no plan.
        """
        with translator_guard():
            _, plain = self._downward.pddl2sas(domain, problem)
            _, optimised = self._downward.pddl2sas(domain, problem, optimize=True)
        self._library.load_sas(plain.encode())
        self._library.load_sas_replan(optimised.encode())
        if self._library.check_goal():
            return []
        if not self._library.replan(False):
            raise EnvironmentFailed("the planner found no plan: the game cannot be won from here")
        operators = (self._downward.Operator * self._library.get_last_plan_length())()
        self._library.get_last_plan(operators)
        return [operator.name for operator in operators]


def reduce_problem(problem: str, facts: Iterable[Any], types: dict[str, str], *, thrifty: bool = True) -> str:
    """Reduce a PDDL problem to the present `facts` (propositions) on what its goal concerns.

    `types` maps every entity to its PDDL type. `thrifty` leaves out receptacles too: kept are those that hold
    something concerned, and one of each type that the goal names, that cleans, heats or cools, or that takes what is
    in hand.
    """
    facts = list(facts)
    goal = problem[problem.lower().index("(:goal") :]
    wanted = {kind.lower() for kind in re.findall(r"\b(\w+Type)\b", goal, re.IGNORECASE)}
    concerned = _goal_objects(facts, wanted)
    if thrifty:
        concerned |= _needed_receptacles(facts, concerned, wanted) | wanted
        concerned |= {f.arguments[1].name for f in facts if f.name in KINDS_OF and f.arguments[0].name in concerned}
        concerned |= {name for name, kind in types.items() if kind == "agent"}
    else:
        concerned |= {name for name, kind in types.items() if kind != "object"}
    kept_facts = [f for f in facts if all(a.name in concerned for a in f.arguments)]
    objects = "\n".join(
        f"  {name} - {types[name]}" for name in sorted({a.name for f in kept_facts for a in f.arguments})
    )
    init = "\n".join(f"  ({fact.name} {' '.join(a.name for a in fact.arguments)})" for fact in kept_facts)
    head = f"(define (problem reduced)\n(:domain alfred)\n(:objects\n{objects})\n(:init\n  (= (total-cost) 0)\n{init})"
    return f"{head}\n{goal}"


STATIONS = ("sinkbasintype", "microwavetype", "fridgetype")
KINDS_OF = ("objecttype", "receptacletype")


def _goal_objects(facts: list[Any], wanted: set[str]) -> set[str]:
    """Objects of the wanted types or in hand, and movable receptacles around them."""
    objects = set()
    for fact in facts:
        if fact.name == "objecttype" and fact.arguments[1].name.lower() in wanted:
            objects.add(fact.arguments[0].name)
        if fact.name == "holds":
            objects.add(fact.arguments[1].name)
    for fact in facts:  # a target may lie in a movable receptacle, or be one
        names = {a.name for a in fact.arguments}
        if fact.name == "inreceptacleobject" and names & objects:
            objects |= names
    return objects


def _needed_receptacles(facts: list[Any], things: set[str], wanted: set[str]) -> set[str]:
    """Receptacles that a plan for `things` needs, and the locations of these and of the agent."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for fact in facts:
        if len(fact.arguments) == 2:
            pairs.setdefault(fact.name, []).append((fact.arguments[0].name, fact.arguments[1].name))
    kind_of = dict(pairs.get("objecttype", []))
    held = {kind_of[thing] for _, thing in pairs.get("holds", []) if thing in kind_of}
    needed = wanted.union(STATIONS, (place for place, thing in pairs.get("cancontain", []) if thing in held))
    places = {place for thing, place in pairs.get("inreceptacle", []) if thing in things}
    of_kind: dict[str, str] = {}
    for place, kind in sorted(pairs.get("receptacletype", [])):
        of_kind.setdefault(kind, place)
    places |= {place for kind, place in of_kind.items() if kind in needed}
    spots = {spot for place, spot in pairs.get("receptacleatlocation", []) if place in places}
    return places | spots | {spot for _, spot in pairs.get("atlocation", [])}
