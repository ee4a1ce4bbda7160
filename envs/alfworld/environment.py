"""One ALFWorld game at a time, behind the `Environment` protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentcascade.envs.alfworld.engine import make_engine
from agentcascade.envs.alfworld.planner import Planner, reduced
from agentcascade.errors import EnvironmentFailed, describe

BANNER = "-= Welcome to TextWorld, ALFRED! =-"


class AlfworldEnvironment:
    """Plays game files. `expert=True` also answers `expert_plan`, which sees the hidden state.

    Not thread-safe. Raises `EnvironmentFailed` for a file that is no game and for a game past its end.
    """

    def __init__(self, max_steps: int = 50, expert: bool = False) -> None:
        self.max_steps = max_steps
        self._engine = make_engine()
        self._planner = Planner() if expert else None
        self._state: Any = None
        self._steps = 0
        self._plan: list[str] | None = None

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
        self._steps, self._plan = 0, None
        return str(self._state.feedback).replace(BANNER, "").strip()

    def step(self, action: str) -> tuple[str, bool]:
        """(observation, done); an impossible action is answered "Nothing happens."."""
        if self._state is None:
            raise EnvironmentFailed("no game is running: call reset first")
        command = " ".join(action.split())
        self._state, _, done = self._engine.step(command)
        self._steps += 1
        if self._plan and self._plan[0] == command:
            self._plan = self._plan[1:]
        elif self._state.feedback != "Nothing happens.":
            self._plan = None
        return str(self._state.feedback).strip(), bool(done) or self._steps >= self.max_steps

    @property
    def success(self) -> bool:
        return bool(self._state is not None and self._state["won"])

    def admissible(self) -> list[str]:
        """Every command that would do something now."""
        return list(self._state["admissible_commands"]) if self._state is not None else []

    def expert_plan(self) -> list[str]:
        """The planner's commands from here to the goal; planned anew only after a deviation from the last plan."""
        if self._planner is None:
            raise EnvironmentFailed("this environment has no expert: make it with expert=True")
        if not self._plan:
            operators = self._operators(self._planner)
            self._plan = self._engine._pddl_state.plan_to_templated_actions(operators, self._engine._entity_infos)
        return list(self._plan)

    def _operators(self, planner: Planner) -> list[str]:
        state, game = self._engine._pddl_state, self._engine._game_data
        types = {name: kind for name, kind in state.name2type.items() if kind in KINDS}
        facts = [f for f in state.facts if all(a.name in types for a in f.arguments)]
        try:
            return planner.plan(game["pddl_domain"], reduced(game["pddl_problem"], facts, types))
        except EnvironmentFailed:  # what was left out may be needed after all
            return planner.plan(game["pddl_domain"], reduced(game["pddl_problem"], facts, types, thrifty=False))

    def close(self) -> None:
        self._state = None


KINDS = {"agent", "location", "receptacle", "object", "rtype", "otype"}
