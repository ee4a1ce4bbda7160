"""Plans for ALFWorld games with the engine's own planner (Fast Downward), on a reduced problem.

A kitchen holds fifty objects, and planning over all of them takes up to twenty seconds. A task concerns one or two of
them, so the problem is planned with those alone: leaving objects out only takes actions away, so a plan of the reduced
problem is one of the whole problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from agentcascade.errors import EnvironmentFailed, MissingExtra


class Planner:
    """One instance of the planner's library; not thread-safe. Kept for the life of the process: unloading it crashes."""

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


def reduced(problem: str, facts: Iterable[Any], types: dict[str, str]) -> str:
    """The PDDL problem with the present `facts` (propositions) and only the objects that its goal concerns.

    `types` maps every entity to its PDDL type.
    """
    facts = list(facts)
    goal = problem[problem.lower().index("(:goal") :]
    wanted = {kind.lower() for kind in re.findall(r"\b(\w+Type)\b", goal, re.IGNORECASE)}
    kept = {n for n, kind in types.items() if kind != "object"}
    for fact in facts:
        if fact.name == "objecttype" and fact.arguments[1].name.lower() in wanted:
            kept.add(fact.arguments[0].name)
        if fact.name == "holds":
            kept.add(fact.arguments[1].name)
    for fact in facts:  # a target may lie in a movable receptacle, or be one
        names = {a.name for a in fact.arguments}
        if fact.name == "inreceptacleobject" and names & kept:
            kept |= names
    present = {a.name for f in facts for a in f.arguments} & kept
    objects = "\n".join(f"  {name} - {types[name]}" for name in sorted(present))
    init = "\n".join(
        f"  ({fact.name} {' '.join(a.name for a in fact.arguments)})"
        for fact in facts
        if all(a.name in kept for a in fact.arguments)
    )
    return f"(define (problem reduced)\n(:domain alfred)\n(:objects\n{objects})\n(:init\n  (= (total-cost) 0)\n{init})\n{goal}"
