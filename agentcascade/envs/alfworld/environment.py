"""ALFWorld environment: one game at a time, behind the `Environment` protocol, with an optional expert."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from agentcascade.envs.alfworld.engine import make_engine
from agentcascade.envs.alfworld.knowledge import Knowledge
from agentcascade.envs.alfworld.planner import Planner, reduce_problem
from agentcascade.envs.alfworld.verbalize import explain_command, outline_plan
from agentcascade.errors import EnvironmentFailed, describe

BANNER = "-= Welcome to TextWorld, ALFRED! =-"


class AlfworldEnvironment:
    """Plays game files. `expert=True` also answers `expert_plan` and `expert_advice`.

    Not thread-safe. Raises `EnvironmentFailed` for a file that is no game and for a game past its end.
    """

    def __init__(self, max_steps: int = 50, expert: bool = False) -> None:
        self.max_steps = max_steps
        self._engine = make_engine()
        self._planner = Planner() if expert else None
        self._state: Any = None
        self._steps = 0
        self._plan: list[str] | None = None
        self._advised: list[str] = []
        self._belief: Knowledge | None = None

    def reset(self, task: str) -> str:
        """Start the game in file `task`; returns the room and the task as the engine words them."""
        if not Path(task).is_file():
            raise EnvironmentFailed(f"there is no game file {task}: let the bench generate its games again")
        self._state = None
        try:
            self._engine.load(str(task))
            self._state = self._engine.reset()
        except (Exception, SystemExit) as error:  # the engine's parsers raise all sorts; its translator exits
            raise EnvironmentFailed(
                f"{task} is not an ALFWorld game ({describe(error)}): delete it to have it made again"
            ) from error
        self._steps = 0
        self._plan = None
        self._advised = []
        first = str(self._state.feedback).replace(BANNER, "").strip()
        self._belief = Knowledge(first, self._engine._game_data["pddl_problem"]) if self._planner else None
        return first

    def step(self, action: str) -> tuple[str, bool]:
        """Run a command; returns (observation, done). An impossible one is answered "Nothing happens."."""
        if self._state is None:
            raise EnvironmentFailed("no game is running: call reset first")
        command = " ".join(action.split())
        self._state, _, done = self._engine.step(command)
        self._steps += 1
        feedback = str(self._state.feedback).strip()
        if feedback != "Nothing happens.":
            self._plan = self._plan[1:] if self._plan and self._plan[0] == command else None
            self._advised = self._advised[1:] if self._advised and self._advised[0] == command else []
        if self._belief is not None:
            self._belief.observe(command, feedback)
        return feedback, bool(done) or self._steps >= self.max_steps

    @property
    def success(self) -> bool:
        return bool(self._state is not None and self._state["won"])

    def admissible(self) -> list[str]:
        """Every command that would do something now."""
        return list(self._state["admissible_commands"]) if self._state is not None else []

    def expert_plan(self) -> list[str]:
        """Plan with full knowledge: commands from here to the goal, planned anew only after a deviation."""
        if not self._plan:
            self._plan = self._commands(self._engine._pddl_state.facts)
        return list(self._plan)

    def expert_advice(self) -> Advice:
        """Plan with a player's knowledge: the rules of the game, and of this game what has been seen.

        While something that the goal needs has not been seen, it searches for it.
        """
        if self._planner is None or self._belief is None:
            raise EnvironmentFailed("this environment has no expert: make it with expert=True, and reset it")
        facts = list(self._engine._pddl_state.facts)
        kind = self._belief.missing()
        if kind and (search := self._belief.search(kind, facts)):
            return Advice(search, kind)
        if not self._advised:
            state, infos = self._engine._pddl_state, self._engine._entity_infos
            # The official games declare a thing of each type ("Mug - object") that stands nowhere: it has no name.
            objects = (name for name, kind in state.name2type.items() if kind == "object")
            names = {name: infos[name].name if name in infos else "" for name in objects}
            try:
                self._advised = self._commands(self._belief.known(facts, names))
            except EnvironmentFailed:
                self._advised = self.expert_plan()
        return Advice(list(self._advised))

    def expert_outline(self) -> str:
        """Outline of the plan to the goal."""
        return outline_plan(self.expert_plan())

    def expert_answer(self) -> str:
        """ReAct answer with the first advised command, and a thought on its purpose."""
        commands, searching = self.expert_advice()
        return f"Thought: {explain_command(commands, searching)}\nAction: {commands[0] if commands else 'look'}"

    def _commands(self, facts: Iterable[Any]) -> list[str]:
        if self._planner is None:
            raise EnvironmentFailed("this environment has no expert: make it with expert=True")
        state, game = self._engine._pddl_state, self._engine._game_data
        types = {name: kind for name, kind in state.name2type.items() if kind in PLANNED_TYPES}
        facts = [f for f in facts if all(a.name in types for a in f.arguments)]
        domain, problem = game["pddl_domain"], game["pddl_problem"]
        try:
            operators = self._planner.plan(domain, reduce_problem(problem, facts, types))
        except EnvironmentFailed:  # what was left out may be needed after all
            operators = self._planner.plan(domain, reduce_problem(problem, facts, types, thrifty=False))
        return list(state.plan_to_templated_actions(operators, self._engine._entity_infos))

    def close(self) -> None:
        self._state = None


class Advice(NamedTuple):
    """Advised commands, and the kind of thing that they search for, if they do."""

    commands: list[str]
    searching: str = ""


PLANNED_TYPES = {"agent", "location", "receptacle", "object", "rtype", "otype"}
