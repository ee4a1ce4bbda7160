"""Knowledge of a player, which the expert plans on: the places named at the start, and what has been seen since."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_NAME = re.compile(r"\b[a-z]+ \d+\b")
_ARRIVED = re.compile(r"^You arrive at ([a-z]+ \d+)\.")
_LOOKED = re.compile(r"(go to|open|examine) ([a-z]+ \d+)")
_OF_TYPE = re.compile(r"\(objectType (\?\w+) (\w+)Type\)", re.IGNORECASE)


class Knowledge:
    """Player's knowledge: the rules (what fits where, what opens), and what `observe` was told of this game."""

    def __init__(self, first: str, problem: str) -> None:
        self._places = _NAME.findall(first)
        self.seen: set[str] = set()
        self._searched: set[str] = set()
        self._closed_here = ""
        self._beside = ""
        self._tried = set[str]()
        """A place at this spot that was not looked into, and how that was tried in vain"""
        goal = problem[problem.lower().index("(:goal") :]
        kinds = [kind.lower() for _, kind in sorted(set(_OF_TYPE.findall(goal)))]
        self.needed = {kind: kinds.count(kind) for kind in kinds}

    def observe(self, command: str, feedback: str) -> None:
        verb, place = _looked_into(command)
        if feedback.startswith("Nothing happens"):
            if verb == "go to" and place in self._places and place not in self._searched:
                self._beside = place  # two places at one spot: one is there already
            elif place and place == self._beside:
                self._tried.add(verb)
                if {"open", "examine"} <= self._tried:
                    self._into(place)
            return
        self.seen.update(_NAME.findall(feedback))
        arrived = _ARRIVED.match(feedback)
        if arrived or (place in self._places and verb != "go to"):
            place = arrived[1] if arrived else place
            if f"The {place} is closed" in feedback:
                self._closed_here = place
                self._beside = ""
                self._tried = set()
            else:
                self._into(place)

    def _into(self, place: str) -> None:
        """Note that the player is at `place` and has seen what is in it."""
        self._closed_here = ""
        self._beside = ""
        self._tried = set()
        self._searched.add(place)

    def known(self, facts: Iterable[Any], names: dict[str, str]) -> list[Any]:
        """Facts that concern no unseen object; `names` maps ids of objects to their names."""
        return [f for f in facts if all(names.get(a.name, "") in self.seen or a.name not in names for a in f.arguments)]

    def missing(self) -> str:
        """Kind of thing that the goal needs more of than have been seen, else an empty string."""
        have = [name.rsplit(" ", 1)[0] for name in self.seen]
        return next((kind for kind, count in self.needed.items() if have.count(kind) < count), "")

    def search(self, kind: str, facts: Iterable[Any]) -> list[str]:
        """Commands that search for a `kind` in the cheapest place: an open one costs one step."""
        if self._closed_here:
            return [f"open {self._closed_here}"]
        pairs: dict[str, set[str]] = {"openable": set(), "cancontain": set()}
        for fact in facts:
            if fact.name == "openable":
                pairs["openable"].add(fact.arguments[0].name.split("_bar_")[0])
            elif fact.name == "cancontain" and fact.arguments[1].name == f"{kind}type":
                pairs["cancontain"].add(fact.arguments[0].name.removesuffix("type"))
        if self._beside:
            tried = "open" in self._tried or _class(self._beside) not in pairs["openable"]
            return [f"{'examine' if tried else 'open'} {self._beside}"]
        left = [p for p in self._places if p not in self._searched]
        likely = [p for p in left if _class(p) in pairs["cancontain"]] or left
        likely.sort(key=lambda p: (_class(p) in pairs["openable"], _class(p), int(p.rsplit(" ", 1)[1])))
        return [f"go to {likely[0]}"] if likely else []


def _looked_into(command: str) -> tuple[str, str]:
    """Verb and place of a command that shows what is in a place, else two empty strings."""
    match = _LOOKED.fullmatch(command)
    return (match[1], match[2]) if match else ("", "")


def _class(name: str) -> str:
    return name.rsplit(" ", 1)[0]
