"""Copying by analogy: which demonstrated step is most like this one, and what its action is called here.

The mechanics are those of text alone: goals are aligned word by word, so that the demonstration's things stand for
one's own; a step resembles the present one as far as their observations, last commands and progress do; names are
replaced by analogous things that have been seen. Nothing is known of households but what the prompt shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from agentcascade.envs.offline.reading import ENTITY, Entity, Example, Reading, Turn, entities, verb, words

FUNCTION_WORDS = frozenset(
    words("a an the some any it its them then and or in on at to of with under into onto your is that this two one")
)


@dataclass(frozen=True)
class Candidate:
    """An action, the thought that goes with it, and how well it fits."""

    action: str
    thought: str
    score: float


class Present:
    """Where the imitator stands: what it remembers of its own conversation."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.here = entities(reading.observation)
        self.turns = reading.history
        self.last = self.turns[-1].action if self.turns else ""
        self.done = [t.action for t in self.turns]
        self.observations = [t.observation for t in self.turns[1:]] + ([reading.observation] if self.turns else [])
        self.failed = {
            (before, action)
            for action, before, after in zip(self.done, ["", *self.observations], self.observations)
            if after.strip().lower().startswith("nothing happens")
        }
        fails = {action for _, action in self.failed}
        self.progress = [a for a in self.done if len(entities(a)) == 2 and a not in fails]
        handled = [entities(a)[0] for a in self.progress]
        self.hand = handled[-1] if handled else None
        self.handled = set(handled)
        self.visited: dict[Entity, int] = {}
        self.place: Entity | None = None
        self.seen_at: dict[Entity, Entity] = {}
        for i, (action, after) in enumerate(zip(self.done, self.observations)):
            named = entities(action)
            if len(named) == 1 and named[0] in reading.places and named[0] in entities(after):
                self.place = named[0]
                self.visited[named[0]] = i
            for entity in entities(after):
                if self.place is not None and entity not in reading.places:
                    self.seen_at[entity] = self.place

    def close_by(self) -> set[Entity]:
        """What a command can be about without going anywhere."""
        near = set(self.here) if self.turns else set()
        return near | {e for e in (self.hand, self.place) if e is not None}


def candidates(reading: Reading) -> list[Candidate]:
    """Every action the prompt suggests, best first; equal actions are one, a little better for each repetition."""
    present = Present(reading)
    best: dict[str, list[Candidate]] = defaultdict(list)
    source = by_analogy(present) if reading.examples else from_commands(present)
    for candidate in source:
        best[candidate.action].append(candidate)
    merged = []
    for action, same in best.items():
        same.sort(key=lambda c: -c.score)
        support = sum(c.score for c in same[1:4]) / 3
        merged.append(Candidate(action, same[0].thought, same[0].score + 0.15 * support))
    return sorted(merged, key=lambda c: (-c.score, c.action))


def by_analogy(present: Present) -> Iterator[Candidate]:
    reading = present.reading
    plain = template_words(reading.examples, reading.commands)
    own = [w for w in words(reading.goal) if w not in plain]
    own = list(dict.fromkeys(own))
    for example in reading.examples:
        slots = slots_of(example)
        names = dict(zip(slots, own))
        kinship = goal_similarity(example, reading.goal, frozenset(slots), frozenset(own))
        for i, turn in enumerate(example.turns):
            alike = likeness(present, example, i, names)
            for action, grounding, thought in grounded(present, turn, names):
                yield Candidate(action, thought, (0.4 + 0.6 * kinship) * alike * grounding)


@lru_cache(maxsize=1024)
def slots_of(example: Example) -> tuple[str, ...]:
    """The goal's words that its steps use as names of things: they change from task to task."""
    named = {word for turn in example.turns for text in (turn.observation, turn.action) for word, _ in entities(text)}
    thoughts = {word for turn in example.turns for word in words(turn.thought)}
    used = named & (thoughts | {w for t in example.turns for w, _ in entities(t.action)})
    return tuple(dict.fromkeys(w for w in words(example.goal) if w in used))


def template_words(examples: Sequence[Example], commands: Sequence[str]) -> frozenset[str]:
    """Words that say what to do rather than with what."""
    told = {w for e in examples for w in words(e.goal) if w not in slots_of(e)}
    return FUNCTION_WORDS | told | {w for c in commands for w in words(c)}


def goal_similarity(example: Example, goal: str, slots: frozenset[str], own: frozenset[str]) -> float:
    """Overlap of the two goals' words that are no names."""
    a = {w for w in words(example.goal) if w not in slots and w not in FUNCTION_WORDS - {"two"}}
    b = {w for w in words(goal) if w not in own and w not in FUNCTION_WORDS - {"two"}}
    return len(a & b) / len(a | b) if a | b else 1.0


def likeness(present: Present, example: Example, index: int, names: Mapping[str, str]) -> float:
    """How much the demonstration's step `index` resembles the present one, 0 to 1."""
    turn = example.turns[index]
    before = [t.action for t in example.turns[:index] if len(entities(t.action)) == 2]
    if before:
        stage = 1.0 if present.progress and verb(present.progress[-1]) == verb(before[-1]) else 0.1
    elif example.start == 0:
        stage = 0.1 if present.progress else 1.0
    else:
        stage = 0.5
    if index:
        last = example.turns[index - 1].action
        same_verb = verb(last) == verb(present.last)
        same_names = [names.get(w, w) for w, _ in entities(last)] == [w for w, _ in entities(present.last)]
        previous = 0.5 * same_verb + 0.5 * (same_verb and same_names)
    else:
        previous = 1.0 if example.start == 0 and not present.turns else 0.3
    scene = overlap(outline(turn.observation, tuple(names.items())), outline(present.reading.observation, ()))
    return stage * (0.45 + 0.3 * scene + 0.25 * previous)


@lru_cache(maxsize=8192)
def outline(observation: str, names: tuple[tuple[str, str], ...]) -> frozenset[str]:
    """An observation's words, the demonstration's names replaced by one's own."""
    own = dict(names)
    return frozenset(own.get(w, w) for w in words(observation))


def overlap(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def grounded(present: Present, turn: Turn, names: Mapping[str, str]) -> Iterator[tuple[str, float, str]]:
    """The step's action with the things of one's own world: (action, how well it fits, thought)."""
    shown = entities(turn.action)
    there = set(entities(turn.observation))
    if len(shown) == 1 and shown[0] not in there:
        yield from elsewhere(present, turn, names)
        return
    close = present.close_by()
    chosen: list[Entity] = []
    fit = 1.0
    for word, _ in shown:
        wanted = names.get(word, word)
        same = [e for e in (*present.here, *close) if e[0] == wanted and e in close and e not in chosen]
        if not same and len(shown) == 2 and present.place is not None and wanted == word and word not in names:
            same, fit = [present.place], 0.8 * fit  # another place of the same use
        if not same:
            return
        chosen.append(preferred(present, same, turn))
    action = rename(turn.action, chosen)
    if "closed" in turn.observation.lower() and "closed" not in present.reading.observation.lower():
        fit *= 0.2
    yield action, fit * novelty(present, action), retell(turn, names, chosen)


def preferred(present: Present, same: Sequence[Entity], turn: Turn) -> Entity:
    """What is in hand for a command that goes on with it; else something not handled yet."""
    if present.hand in same and present.hand is not None:
        return present.hand
    return next((e for e in same if e not in present.handled), same[0])


def elsewhere(present: Present, turn: Turn, names: Mapping[str, str]) -> Iterator[tuple[str, float, str]]:
    """A command about something that is not here, such as going somewhere: which of the known places is meant?"""
    word, _ = entities(turn.action)[0]
    wanted = names.get(word, word)
    about = {names.get(w, w) for w in words(turn.thought) if w in names} - {wanted}
    remembered = {
        place
        for thing, place in present.seen_at.items()
        if thing[0] in about and thing not in present.handled and word not in names
    }
    rank: dict[str, int] = defaultdict(int)
    for place in present.reading.places:
        if place == present.place:
            continue
        if place in remembered:
            fit = 1.3
        elif word in names:
            fit = (1.0 if place[0] == wanted else 0.0) * 0.9 ** rank["goal"]
            rank["goal"] += place[0] == wanted
            fit *= 0.6 if place in present.visited and not present.progress else 1.0
        elif place in present.visited:
            fit = 0.08
        else:
            kind = "same" if place[0] == word else "other"
            fit = (1.0 if kind == "same" else 0.35) * 0.93 ** rank[kind]
            rank[kind] += 1
        action = rename(turn.action, [place])
        if fit > 0:
            yield action, fit * novelty(present, action, moving=True), retell(turn, names, [place])


def novelty(present: Present, action: str, *, moving: bool = False) -> float:
    """Low for what just failed or was done in this very situation; places may be returned to."""
    now = present.reading.observation
    if any(action == failed and before == now for before, failed in present.failed) or action == present.last:
        return 0.02
    times = present.done.count(action)
    return (0.7 if moving else 0.5) ** times


def rename(action: str, chosen: Sequence[Entity]) -> str:
    """`action` with its entities replaced, in order."""
    rest = iter(chosen)
    return ENTITY.sub(lambda m: "{} {}".format(*next(rest)), action)


def retell(turn: Turn, names: Mapping[str, str], chosen: Sequence[Entity]) -> str:
    """The demonstration's thought in one's own names."""
    own = {w: e[0] for (w, _), e in zip(entities(turn.action), chosen)} | dict(names)
    return " ".join(
        (own.get(core, core) + part[len(core) :]) if (core := part.rstrip(".,;:")) else part
        for part in turn.thought.split()
    )


def from_commands(present: Present) -> Iterator[Candidate]:
    """Without demonstrations: the commands of the instructions, filled with what is known, by overlap with the goal."""
    goal = set(words(present.reading.goal)) - FUNCTION_WORDS
    close = present.close_by()
    things = [e for e in present.here if e not in present.reading.places] if present.turns else []
    things += [present.hand] if present.hand else []
    for command in present.reading.commands:
        holes = command.count("{")
        wish = 0.3 * bool(set(words(command.split("{")[0])) & goal)
        if holes == 0:
            yield Candidate(command, f"I try: {command}.", (0.05 + wish) * novelty(present, command))
            continue
        for thing in things if "{obj}" in command else [("", 0)]:
            for place in present.reading.places if "{recep}" in command else [("", 0)]:
                if holes == 2 and place not in close:
                    continue
                action = command.replace("{obj}", "{} {}".format(*thing)).replace("{recep}", "{} {}".format(*place))
                score = 0.1 + wish + 0.3 * (thing[0] in goal) + 0.2 * (place[0] in goal)
                score *= 0.5 if place in present.visited and holes == 1 else 1.0
                yield Candidate(action, f"The task speaks of this, so I {action}.", score * novelty(present, action))
