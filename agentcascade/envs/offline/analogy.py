"""Copying by analogy: which demonstrated step is most like this one, and what its action is called here.

The mechanics are those of text alone. Goals are aligned word by word, so that the demonstration's things stand for
one's own. A step resembles the present one as far as the same happened just before, the same of the goal's things are
in sight, and as much is carried along. Its action is then said with the things that play the same part here. Nothing is
known of households but what the prompt shows; with no demonstrations, the instructions' commands are filled in.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from agentcascade.envs.offline.prompt_parser import ENTITY, Entity, ParsedPrompt, Turn, entities, verb, words
from agentcascade.envs.offline.step_features import Moment, Present, moment, releasing_verbs

FUNCTION_WORDS = frozenset(
    words("a an the some any it its them then and or in on at to of with under into onto your is that this one")
)
QUANTITIES = frozenset({"two"})


@dataclass(frozen=True)
class Candidate:
    """An action, the thought that goes with it, and how well it fits."""

    action: str
    thought: str
    score: float


def candidates(prompt: ParsedPrompt) -> list[Candidate]:
    """Every action the prompt suggests, best first; equal actions are one, a little better for each repetition."""
    present = Present(prompt)
    found: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in [*by_analogy(present), *from_commands(present, 0.1 if prompt.examples else 1.0)]:
        found[candidate.action].append(candidate)
    merged = []
    for action, same in found.items():
        same.sort(key=lambda c: -c.score)
        support = sum(c.score for c in same[1:4]) / 3
        merged.append(Candidate(action, same[0].thought, same[0].score + 0.2 * support))
    return sorted(merged, key=lambda c: (-c.score, c.action))


def by_analogy(present: Present) -> Iterator[Candidate]:
    prompt = present.prompt
    plain = template_words(prompt)
    own = slots(prompt.goal, plain)
    releasing = releasing_verbs(prompt.examples)
    for example in prompt.examples:
        theirs = slots(example.goal, plain)
        names = dict(zip(theirs, own))
        kinship = overlap(content(example.goal, theirs), content(prompt.goal, own))
        for i, turn in enumerate(example.turns):
            then = moment(example.turns, i, turn.observation, releasing, whole=example.start == 0)
            alike = (0.1 + 0.9 * kinship) * likeness(then, present.now, names)
            for action, fit, chosen in grounded(present, then, turn, names):
                yield Candidate(action, retell(turn, names, chosen), alike * fit * present.novelty(action))


def template_words(prompt: ParsedPrompt) -> frozenset[str]:
    """Words that say what to do rather than with what: those of goals that never name a numbered thing."""
    texts = [t for e in prompt.examples for turn in e.turns for t in (turn.observation, turn.action)]
    things = {w for text in (*texts, prompt.observation) for w, _ in entities(text)}
    things |= {w for turn in prompt.history for w, _ in entities(turn.observation)}
    said = Counter(w for e in prompt.examples for w in set(words(e.goal)))
    told = {w for w, times in said.items() if times > 1} | {w for c in prompt.commands for w in words(c)}
    return (FUNCTION_WORDS | told) - things


def slots(goal: str, plain: frozenset[str]) -> tuple[str, ...]:
    """The things that a goal speaks of, in order. Its first word says what to do."""
    return tuple(dict.fromkeys(w for w in words(goal)[1:] if w not in plain | FUNCTION_WORDS | QUANTITIES))


def content(goal: str, things: Sequence[str]) -> frozenset[str]:
    return frozenset(w for w in words(goal) if w not in things and w not in FUNCTION_WORDS)


def overlap(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def likeness(then: Moment, now: Moment, names: Mapping[str, str]) -> float:
    """How much a demonstrated situation resembles the present one, 0 to 1."""

    def same(a: object, b: object, unknown: float, different: float) -> float:
        return unknown if a is None else 1.0 if a == b else different

    score = same(then.carries, now.carries, 0.5, 0.05) * same(then.progress, now.progress, 0.6, 0.2)
    score *= same(then.before, now.before, 0.8, 0.6)
    if then.carried and now.carried and names.get(then.carried[0]) != now.carried[0]:
        score *= 0.5
    sight, mine = in_sight(then), in_sight(now)
    for theirs, own in names.items():
        score *= 1.0 if (theirs in sight) == (own in mine) else 0.15
    return score * (0.3 + 0.7 * overlap(shape(then.observation), shape(now.observation)))


def in_sight(at: Moment) -> frozenset[str]:
    """Classes of what is named here and has not been dealt with."""
    return frozenset(w for w, n in entities(at.observation) if (w, n) not in at.touched)


@lru_cache(maxsize=8192)
def shape(observation: str) -> frozenset[str]:
    """An observation's words without its things, nor how many they are."""
    text = observation.lower()
    return frozenset(words(ENTITY.sub(" ", text))) - {"a", "an", "and"}


def grounded(
    present: Present, then: Moment, turn: Turn, names: Mapping[str, str]
) -> Iterator[tuple[str, float, list[Entity]]]:
    """The step's action with the things that play its things' parts here: (action, how well they fit, things)."""
    shown = entities(turn.action)
    if not shown:
        yield turn.action, 0.5, []
    elif len(shown) == 1 and (then.before == "" or shown[0] not in entities(turn.observation)):
        # the first observation names every place, but nobody is at one yet
        for place, fit in elsewhere(present, then, shown[0], names):
            yield rename(turn.action, [place]), fit, [place]
    else:
        options = [list(parts(present, then, thing, names)) for thing in shown]
        if all(options):
            chosen = [o[0][0] for o in options]
            fit = 1.0
            for option in options:
                fit *= option[0][1]
            if len(set(chosen)) == len(chosen):
                yield rename(turn.action, chosen), fit, chosen


def parts(present: Present, then: Moment, thing: Entity, names: Mapping[str, str]) -> Iterator[tuple[Entity, float]]:
    """What plays the part of `thing`, which is at hand: what is carried, the place itself, or something in sight."""
    now = present.now
    if thing == then.carried:
        if now.carried is not None:
            yield now.carried, 1.0
        return
    wanted = names.get(thing[0], thing[0])
    fresh = [e for e in present.here if e not in now.touched]
    yield from ((e, 1.0) for e in fresh if e[0] == wanted)
    if now.place is not None and (thing == then.place or now.place[0] == wanted):
        yield now.place, 1.0 if now.place[0] == wanted else 0.9 if thing[0] not in names else 0.3
    yield from ((e, 0.5) for e in present.here if e[0] == wanted)


def elsewhere(
    present: Present, then: Moment, thing: Entity, names: Mapping[str, str]
) -> Iterator[tuple[Entity, float]]:
    """Which of the known places is meant by a step to somewhere that is not in sight."""
    now = present.now
    wanted = names.get(thing[0], thing[0])
    needed = set(names.values())
    remembered = {p for t, p in present.seen_at.items() if t[0] in needed and t not in now.touched}
    meant = None  # what a number says: the next one after this place, or the first of its kind
    if in_turn(then.place, thing) and now.place is not None and now.place[0] == wanted:
        meant = wanted, now.place[1] + 1
    elif thing[1] == 1:
        meant = wanted, 1
    rank: Counter[str] = Counter()
    for place in present.prompt.places:
        if place == now.place:
            continue
        kind = "same" if place[0] == wanted else "other"
        fit = 1.0 if kind == "same" else 0.02 if now.carries or thing[0] in names else 0.4
        if not now.carries and place in remembered:
            fit = 1.3
        elif not now.carries and place in present.visited:
            fit = 0.05
        elif now.carries and kind == "same" and place in present.served:
            fit = 1.2  # it has served before
        elif place != meant:
            rank[kind] += 1
            fit *= 0.7 ** (rank[kind] - (meant is None))  # of equals, the one named first
        yield place, fit


def in_turn(place: Entity | None, thing: Entity) -> bool:
    """Whether one comes after the other by number, as in "shelf 1", "shelf 2"."""
    return place is not None and thing == (place[0], place[1] + 1)


def rename(action: str, chosen: Sequence[Entity]) -> str:
    """`action` with each of its entities replaced by the one chosen for it."""
    new = dict(zip(entities(action), chosen))
    return ENTITY.sub(lambda m: "{} {}".format(*new[m[1], int(m[2])]), action)


def retell(turn: Turn, names: Mapping[str, str], chosen: Sequence[Entity]) -> str:
    """The demonstration's thought in one's own names."""
    own = {w: e[0] for (w, _), e in zip(entities(turn.action), chosen)} | dict(names)
    cores = [(part.rstrip(".,;:"), part) for part in turn.thought.split()]
    return " ".join(own.get(core, core) + part[len(core) :] for core, part in cores)


def from_commands(present: Present, weight: float) -> Iterator[Candidate]:
    """Without demonstrations, and where they do not help: the instructions' commands, by overlap with the goal."""
    goal = set(words(present.prompt.goal)) - FUNCTION_WORDS
    places = present.prompt.places
    near = [e for e in present.here if e not in places]
    near += [present.now.carried] if present.now.carried else []
    for command in present.prompt.commands:
        holes = command.count("{")
        wish = 0.3 * bool(set(words(command.split("{")[0])) & goal)
        things = near if "{obj}" in command else [("", 0)]
        where = places if holes == 1 else [e for e in places if e == present.now.place]
        for thing in things:
            for place in where if "{recep}" in command else [("", 0)]:
                action = command.replace("{obj}", "{} {}".format(*thing)).replace("{recep}", "{} {}".format(*place))
                score = 0.1 + wish + 0.3 * (thing[0] in goal) + 0.2 * (place[0] in goal)
                score *= 0.5 if place in present.visited and holes == 1 else 1.0
                score *= 0.3 if holes == 2 and thing == present.just_handled else 1.0
                score *= weight * present.novelty(action) * present.luck.get(verb(action), 1.0)
                yield Candidate(action, f"The task speaks of this, so I {action}.", score)
