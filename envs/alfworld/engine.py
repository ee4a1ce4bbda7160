"""The TextWorld engine for ALFWorld's games, without the work that it repeats.

As shipped, loading a game translates its problem four times and every step parses the same grammar strings anew: 1.5 s
to load and about 30 ms a step. The texts and the rules are the engine's own; only repeated results are kept.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

from agentcascade.errors import MissingExtra


@lru_cache(maxsize=1)
def modules() -> Any:
    """(textworld, PddlEnv, Demangler), with the engine's repeated work cached once per process."""
    import os

    # alfworld refuses to import without this variable; nothing is read from the folder.
    os.environ.setdefault("ALFWORLD_DATA", os.path.expanduser("~/.cache/alfworld"))
    try:
        import textworld
        from alfworld.agents.utils.misc import Demangler
        from textworld.envs import PddlEnv
        from textworld.envs.pddl import logic, textgen
    except ImportError as error:
        raise MissingExtra("alfworld", "alfworld", "the ALFWorld engine") from error
    _keep_translations(logic)
    _keep_parses(textgen)
    return textworld, PddlEnv, Demangler


def _keep_translations(logic: Any) -> None:
    """A game's problem is translated once, not for each of load and reset, and never for the unused planner."""
    downward = logic.fast_downward

    class Cached:
        def __getattr__(self, name: str) -> Any:
            return getattr(downward, name)

        @staticmethod
        @lru_cache(maxsize=4)
        def _translate(domain: str, problem: str) -> Any:
            return downward.pddl2sas(domain, problem)

        def pddl2sas(self, domain: str, problem: str, verbose: bool = False, optimize: bool = False) -> Any:
            return self._translate(domain, problem)

    logic.fast_downward = Cached()


def _keep_parses(textgen: Any) -> None:
    """Parsed grammar strings are kept; the engine writes into them, so each use gets a copy."""
    parse = lru_cache(maxsize=4096)(textgen._parse_and_convert)

    def parse_and_convert(text: str, rule_name: str = "symbols", **_: Any) -> Any:
        return copy.deepcopy(parse(text, rule_name=rule_name))

    textgen._parse_and_convert = parse_and_convert


def make_engine() -> Any:
    """A PddlEnv with ALFWorld's names for things ("mug 1"), whose commands are derived once per action and game."""
    textworld, PddlEnv, Demangler = modules()

    class Engine(PddlEnv):  # type: ignore[misc, valid-type]
        def load(self, path: str) -> None:
            self._commands: dict[Any, str] = {}
            super().load(path)
            demangler = Demangler(game_infos=self._entity_infos, shuffle=False)
            for info in self._entity_infos.values():
                info.name = demangler.demangle_alfred_name(info.id)

        def _gather_infos(self) -> None:
            state, infos = self.state, self._entity_infos
            state["won"], state["lost"] = self._pddl_state.check_goal(), False
            state["last_action"], state["_last_action"] = None, self._last_action
            state["_valid_actions"] = list(self._pddl_state.all_applicable_actions())
            names = {key: info.name for key, info in infos.items()}
            state["_valid_commands"] = [self._command(action, names) for action in state["_valid_actions"]]
            state["admissible_commands"] = sorted(set(state["_valid_commands"]))

        def _command(self, action: Any, names: dict[str, str]) -> str:
            """The command's text. Its grammar asks only where receptacles stand, which never changes in a game."""
            key = action.name, tuple((p.name, v.name) for p, v in action.mapping.items())
            if key not in self._commands:
                context = {
                    "state": self._pddl_state,
                    "facts": list(self._pddl_state.facts),
                    "variables": {p.name: self._entity_infos[v.name] for p, v in action.mapping.items()},
                    "mapping": action.mapping,
                    "entity_infos": self._entity_infos,
                }
                action.command_template = self._logic.grammar.derive(action.command_template, context)
                self._commands[key] = action.format_command(names)
            return self._commands[key]

    return Engine(textworld.EnvInfos(won=True, admissible_commands=True))
