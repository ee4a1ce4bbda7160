"""TextWorld engine for ALFWorld's games, with caches for the work that it repeats.

As shipped, loading a game translates its problem four times, and every step parses the same grammar strings anew and
copies the world's description for every name it prints: 1.6 s to load and 70 ms a step. The texts and the rules are
the engine's own; only repeated results are kept (an integration test compares the two, word for word).
"""

from __future__ import annotations

import copy
import gc
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from agentcascade.errors import MissingExtra


@lru_cache(maxsize=1)
def engine_modules() -> Any:
    """(textworld, PddlEnv, Demangler, mementos), with the engine's repeated work cached once per process."""
    data = os.environ.get("ALFWORLD_DATA")
    try:
        import textworld
        from alfworld.agents.utils.misc import Demangler
        from mementos.core import _memento_cache
        from textworld.envs import PddlEnv
        from textworld.envs.pddl import logic, textgen
    except ImportError as error:
        raise MissingExtra("alfworld", "alfworld", "the ALFWorld engine") from error
    finally:
        # alfworld sets the variable where it is missing, and `load_games` must not mistake that for the user's choice.
        if data is None:
            os.environ.pop("ALFWORLD_DATA", None)
    _keep_translations(logic)
    _keep_parses(textgen)
    return textworld, PddlEnv, Demangler, _memento_cache


@contextmanager
def translator_guard() -> Iterator[None]:
    """Guard around the translator, which overwrites ``sys.argv`` and spends half its time in the garbage collector."""
    arguments, collecting = sys.argv, gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        sys.argv = arguments
        if collecting:
            gc.enable()


def _keep_translations(logic: Any) -> None:
    """Cache translations: a game's problem is translated once, not for each of load and reset, nor for the planner."""
    downward = logic.fast_downward

    class Cached:
        def __getattr__(self, name: str) -> Any:
            return getattr(downward, name)

        @staticmethod
        @lru_cache(maxsize=4)
        def _translate(domain: str, problem: str) -> Any:
            with translator_guard():
                return downward.pddl2sas(domain, problem)

        def pddl2sas(self, domain: str, problem: str, verbose: bool = False, optimize: bool = False) -> Any:
            return self._translate(domain, problem)

    logic.fast_downward = Cached()


def _keep_parses(textgen: Any) -> None:
    """Cache parses of grammar strings and conditions, and share contexts where the engine copies them deeply.

    The engine writes into parsed symbols, so each use gets a copy; it never writes into what a context holds, only
    into the context's own two mappings.
    """
    parse = lru_cache(maxsize=1024)(textgen._parse_and_convert)
    query = lru_cache(maxsize=1024)(textgen.Rule.parse_conjunctive_query)

    class Rule:
        parse_conjunctive_query = staticmethod(query)

    def parse_and_convert(text: str, rule_name: str = "symbols", **_: Any) -> Any:
        return copy.deepcopy(parse(text, rule_name=rule_name))

    def copy_context(context: dict[str, Any]) -> dict[str, Any]:
        return {**context, "variables": dict(context["variables"]), "mapping": dict(context["mapping"])}

    def copy_symbol(self: Any, context: dict[str, Any]) -> Any:
        twin = copy.copy(self)
        for name in ("symbol", "expression"):  # a list's or a condition's inner symbol gets its own context later
            inner = getattr(self, name, None)
            if isinstance(inner, textgen.Symbol):
                setattr(twin, name, inner.copy(inner.context))
        twin.context = copy_context(context) if context else {}
        return twin

    textgen._parse_and_convert = parse_and_convert
    textgen.Rule = Rule
    textgen.copy_context = copy_context
    textgen.Symbol.copy = copy_symbol


def make_engine() -> Any:
    """Make a PddlEnv with ALFWorld's names ("mug 1"), whose commands are derived once per wording and game."""
    textworld, PddlEnv, Demangler, mementos = engine_modules()

    class Engine(PddlEnv):  # type: ignore[misc, valid-type]
        def load(self, path: str) -> None:
            mementos.clear()  # the engine keeps every fact of every game there for ever
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
            template = action.command_template
            named = _words(template)
            key = template, *(v.name for p, v in action.mapping.items() if p.name in named)
            if key not in self._commands:
                context = {
                    "state": self._pddl_state,
                    "facts": list(self._pddl_state.facts),
                    "variables": {p.name: self._entity_infos[v.name] for p, v in action.mapping.items()},
                    "mapping": action.mapping,
                    "entity_infos": self._entity_infos,
                }
                action.command_template = self._logic.grammar.derive(template, context)
                self._commands[key] = action.format_command(names)
            return self._commands[key]

    return Engine(textworld.EnvInfos(won=True, admissible_commands=True))


@lru_cache(maxsize=256)
def _words(template: str) -> frozenset[str]:
    """Placeholders that a command's template can mention."""
    return frozenset(re.findall(r"\w+", template))
