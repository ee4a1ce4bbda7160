"""What a step's situation is, apart from names: the demonstrated steps' and the imitator's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from agentcascade.envs.offline.prompt_parser import Entity, Example, ParsedPrompt, Turn, entities, verb

FAILURE = "nothing happens"
"""How the instructions say that an impossible command is answered."""


@dataclass(frozen=True)
class Moment:
    """What one step's situation is, apart from names. None: cannot be told from what is shown."""

    observation: str
    before: str | None
    """Verb of the last action."""
    progress: str | None
    """Verb of the last action with one thing on another; empty at the start."""
    carries: bool | None
    carried: Entity | None
    place: Entity | None
    """Where the last single-thing action led."""
    touched: frozenset[Entity]


def moment(turns: Sequence[Turn], index: int, observation: str, releasing: frozenset[str], *, whole: bool) -> Moment:
    """The situation before step `index`; `whole` when no earlier steps are hidden."""
    past = turns[:index]
    pairs = [(verb(t.action), entities(t.action)[0]) for t in past if len(entities(t.action)) == 2]
    carries: bool | None = False if whole else None
    carried = None
    if pairs:
        carries = pairs[-1][0] not in releasing
        carried = pairs[-1][1] if carries else None
    elif not whole:  # what is used later without being in sight there has been carried all along
        later = next((t for t in turns[index:] if len(entities(t.action)) == 2), None)
        if later is not None:
            thing = entities(later.action)[0]
            carries = thing not in entities(later.observation)
            carried = thing if carries else None
    singles = [entities(t.action)[0] for t in past if len(entities(t.action)) == 1]
    return Moment(
        observation=observation,
        before=verb(past[-1].action) if past else ("" if whole else None),
        progress=pairs[-1][0] if pairs else ("" if whole else None),
        carries=carries,
        carried=carried,
        place=singles[-1] if singles else next(iter(entities(observation)), None) if not whole else None,
        touched=frozenset(thing for _, thing in pairs),
    )


@lru_cache(maxsize=256)
def releasing_verbs(examples: tuple[Example, ...]) -> frozenset[str]:
    """Verbs after which the thing stays behind: what follows is about another thing, or about nothing any more."""
    kept: set[str] = set()
    left: set[str] = set()
    for example in examples:
        pairs = [t for t in example.turns if len(entities(t.action)) == 2]
        for one, other in pairwise(pairs):
            thing = entities(one.action)[0]
            carried = thing == entities(other.action)[0] and thing not in entities(other.observation)
            (kept if carried else left).add(verb(one.action))
        if pairs and example.ends and pairs[-1] is example.turns[-1]:
            left.add(verb(pairs[-1].action))
    return frozenset(left - kept)


class Present:
    """Where the imitator stands: what it remembers of its own conversation."""

    def __init__(self, prompt: ParsedPrompt) -> None:
        self.prompt = prompt
        observations = [*(t.observation for t in prompt.history), prompt.observation]
        self.done = Counter(t.action for t in prompt.history)
        worked, self.failed = [], set[str]()
        tried, in_vain = Counter(verb(t.action) for t in prompt.history), Counter[str]()
        for turn, after in zip(prompt.history, observations[1:]):
            if after.strip().lower().startswith(FAILURE):
                self.failed.add(turn.action)  # in vain until something works
                in_vain[verb(turn.action)] += 1
            else:
                worked.append(turn)
                self.failed.clear()
        self.luck = {v: 1 - in_vain[v] / (times + 1) for v, times in tried.items()}
        said = [o for o in observations if not o.strip().lower().startswith(FAILURE)]
        releasing = releasing_verbs(prompt.examples)
        self.now = moment(worked, len(worked), said[-1] if said else "", releasing, whole=True)
        self.here = [e for e in entities(self.now.observation) if worked or e not in prompt.places]
        self.visited: set[Entity] = set()
        self.seen_at: dict[Entity, Entity] = {}
        place = None
        for turn, after in zip(worked, said[1:]):
            named = entities(turn.action)
            if len(named) == 1 and named[0] in prompt.places:
                place = named[0]
                self.visited.add(place)
            for entity in entities(after):
                if place is not None and entity not in prompt.places:
                    self.seen_at[entity] = place
        pairs = [entities(t.action) for t in worked if len(entities(t.action)) == 2]
        self.served = {place for _, place in pairs}
        last = entities(worked[-1].action) if worked else ()
        self.just_handled = last[0] if len(last) == 2 else None

    def novelty(self, action: str) -> float:
        """Low for what just failed, and for what was done often."""
        return 0.01 if action in self.failed else float(0.6 ** self.done[action])
